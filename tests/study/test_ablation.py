"""Ablation files: what they mean, and how their mistakes are told."""

from pathlib import Path

import pytest

from mrbench.data.proposals import make_table
from mrbench.errors import UserError
from mrbench.evaluation import coco
from mrbench.evaluation.proposals import evaluate_proposals
from mrbench.study.ablation import ARM_KEYS, SCALE_KEYS, STUDY_KEYS, load_study
from mrbench.study.plan import make_plan
from mrbench.study.seeds import parse_seeds
from mrbench.study.study import KNOWN_METRICS

GOOD = """
title: Norms
question: Does it
  matter?
base: [schedule.iterations=10]
baseline: gn
arms:
  gn: [model.norm=gn]
  bn: {overrides: model.norm=bn, published: lsj/table/gn, note: two images}
  plain:
seeds: 0-1
"""


def write(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text)
    return str(path)


def test_a_file_is_read_as_it_is_meant(tmp_path: Path) -> None:
    study = load_study(write(tmp_path, GOOD))
    assert (study.name, study.title, study.question) == ("mine", "Norms", "Does it matter?")
    assert [a.name for a in study.arms] == ["gn", "bn", "plain"]
    assert [a.overrides for a in study.arms] == [("model.norm=gn",), ("model.norm=bn",), ()]
    assert study.arms[1].published == "lsj/table/gn"
    assert study.seeds == (0, 1)
    assert study.metrics == ("box/AP", "mask/AP")


def test_factors_make_a_grid_less_what_is_excluded(tmp_path: Path) -> None:
    text = """
baseline: model.norm=gn,optimizer.lr=0.1
factors: {model.norm: [gn, bn, none], optimizer.lr: [0.1, 1e-2]}
exclude: [{model.norm: bn, optimizer.lr: 1e-2}, {model.norm: none}]
"""
    study = load_study(write(tmp_path, text))
    assert [a.name for a in study.arms] == [
        "model.norm=gn,optimizer.lr=0.1",
        "model.norm=gn,optimizer.lr=1e-2",
        "model.norm=bn,optimizer.lr=0.1",
    ]


def test_values_of_factors_are_written_as_overrides_write_them(tmp_path: Path) -> None:
    text = """
baseline: data.keep_empty=true
factors: {data.keep_empty: [true, false]}
arms: {sizes: ["augmentation.short_edge=[640,800]"]}
"""
    study = load_study(write(tmp_path, text))
    assert [a.name for a in study.arms] == ["sizes", "data.keep_empty=true", "data.keep_empty=false"]
    plan = make_plan(study)
    assert [r.config.data.keep_empty for r in plan.runs] == [False, True, False]
    assert plan.runs[0].config.augmentation.short_edge == [640, 800]


@pytest.mark.parametrize(
    "change,says",
    [
        (("title:", "titel:"), ["unknown key 'titel' in the file (line 2)", "title"]),
        (("baseline: gn", "baseline: gm"), ["'gm' is not an arm (line 6)", "gn"]),
        (("baseline: gn\n", ""), ["baseline is missing", "gn, bn, plain"]),
        (("plain:", "gn:"), ["'gn' stands twice (line 10)"]),
        (("note:", "notes:"), ["unknown key 'notes' in arm bn (line 9)", "note"]),
        (("lsj/table/gn", "lsj/table/gm"), ["arm bn (line 9)", "no published row 'lsj/table/gm'", "lsj/table/gn"]),
        (("[model.norm=gn]", "[model.norm]"), ["arm gn", "'model.norm' is not an override"]),
        (("[model.norm=gn]", "3"), ["arm gn (line 8) is not a mapping"]),
        (("seeds: 0-1", "seeds: 3-1"), ["seeds (line 11)", "'3-1'"]),
        (("seeds: 0-1", "metrics: [box/mAP]"), ["'box/mAP' is not a metric (line 11)"]),
        (("seeds: 0-1", "metrics: [box/APP]"), ["'box/APP' is not a metric (line 11)", "Did you mean box/AP "]),
        (("seeds: 0-1", "scales: {medium: {}}"), ["unknown key 'medium' in scales"]),
        (("seeds: 0-1", "exclude: [{a: 1}]"), ["no factors"]),
        (("seeds: 0-1", "scales: {small: {without: [bm]}}"), ["scale small (line 11)", "'bm' is not an arm", "bn"]),
        (("seeds: 0-1", "scales: {small: {without: [gn]}}"), ["scale small", "baseline 'gn'"]),
        (("plain:", "plain: {builds_on: bm}"), ["arm plain (line 10) builds on 'bm'", "bn"]),
        (("gn: [model.norm=gn]", "gn: {builds_on: bn}"), ["arm gn (line 8) builds on 'bn'", "above it"]),
        (("gn: [model.norm=gn]", "gn: {small: [norm]}"), ["arm gn (line 8), small: 'norm' is not an override"]),
        (("seeds: 0-1", "factors: {size: {big: {overide: a=b}}}"), ["factors: size: big (line 11)", "override"]),
        (("seeds: 0-1", "factors: {a: {x: , y: }}\nexclude: [{a: z}]"), ["a=z", "(line 12)"]),
        (("seeds: 0-1", "factors: {a: {x: , 'x,y': }, b: {'y,z': , z: }}"), ["two arms are called 'x,y,z'"]),
        (("arms:", "arms: ["), ["is not YAML", "at line "]),
    ],
)
def test_a_mistake_is_told_with_file_place_and_nearest_name(
    change: tuple[str, str], says: list[str], tmp_path: Path
) -> None:
    assert change[0] in GOOD
    with pytest.raises(UserError) as caught:
        load_study(write(tmp_path, GOOD.replace(*change, 1)))
    for part in ["mine.yaml", *says]:
        assert part in str(caught.value)
    assert "<" not in str(caught.value)


def test_every_metric_of_an_evaluation_may_be_asked_for() -> None:
    of_results = {*(f"{kind}/{name}" for kind in ("box", "mask") for name in coco.METRICS)}
    of_results |= {f"keypoint/{name}" for name in coco.KEYPOINT_METRICS}
    no_proposals = make_table([], [], [])
    recall = evaluate_proposals({"images": [], "annotations": [], "categories": []}, no_proposals).metrics
    assert set(KNOWN_METRICS) == of_results | set(recall)


def test_an_override_error_names_file_and_arm(tmp_path: Path) -> None:
    study = load_study(write(tmp_path, GOOD.replace("model.norm=bn", "model.nrom=bn")))
    with pytest.raises(UserError) as caught:
        make_plan(study)
    for part in ("mine.yaml: arm bn: ", "model.nrom", "model.norm"):
        assert part in str(caught.value)


def test_a_scale_comes_after_the_base_and_has_a_name_of_its_own(tmp_path: Path) -> None:
    text = GOOD + "scales: {small: {base: [seed=0, schedule.iterations=5], note: quick}, full: {base: []}}"
    study = load_study(write(tmp_path, text))
    assert study.at_scale().name == "mine-small"
    assert study.at_scale().note == "quick"
    assert make_plan(study.at_scale("small")).runs[0].config.schedule.iterations == 5
    assert make_plan(study.at_scale("full")).runs[0].config.schedule.iterations == 10
    assert study.at_scale("full").name == "mine-full"


@pytest.mark.parametrize(
    "text,seeds",
    [("0-4", [0, 1, 2, 3, 4]), ("3", [3]), ("0,2-3,2", [0, 2, 3]), ([1, "4-5"], [1, 4, 5]), (7, [7])],
)
def test_seeds(text: object, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "-1", "2-1", "1.5", [True], [None]])
def test_what_is_no_seed(text: object) -> None:
    with pytest.raises(UserError):
        parse_seeds(text)


GRID = """
baseline: deep,long
base: [schedule.iterations=7]
factors:
  head: {flat: [model.box_head.fcs=2], deep: {overrides: [model.box_head.convs=4], small: [model.box_head.fcs=1]}}
  length: {short: , long: {full: [schedule=3x], note: patient}}
exclude: [{head: flat, length: long}]
arms:
  deep,long: {published: lsj/table/gn, overrides: [optimizer.lr=0.5], note: the row}
scales: {small: {without: ["flat,short"]}, full: }
"""


def test_levels_have_names_and_an_arm_called_as_a_combination_adds_to_it(tmp_path: Path) -> None:
    study = load_study(write(tmp_path, GRID))
    full, small = study.at_scale("full"), study.at_scale("small")
    assert [a.name for a in full.arms] == ["flat,short", "deep,short", "deep,long"]
    assert full.arms[2].overrides == ("model.box_head.convs=4", "optimizer.lr=0.5", "schedule=3x")
    assert (full.arms[2].published, full.arms[2].note) == ("lsj/table/gn", "patient; the row")
    assert [a.name for a in small.arms] == ["deep,short", "deep,long"]
    assert small.arms[1].overrides == ("model.box_head.convs=4", "optimizer.lr=0.5", "model.box_head.fcs=1")


def test_published_rows_belong_to_the_full_scale(tmp_path: Path) -> None:
    study = load_study(write(tmp_path, GRID))
    assert [a.published for a in study.at_scale("small").arms] == [None, None]
    assert study.at_scale("full").arms[2].published == "lsj/table/gn"


def test_an_arm_that_builds_on_another_has_all_that_it_overrides_before_its_own(tmp_path: Path) -> None:
    text = """
baseline: a
arms:
  a: {overrides: [optimizer.lr=1], small: [seed=1], published: lsj/table/gn, note: first}
  b: {builds_on: a, overrides: [optimizer.momentum=0.5]}
  c: {builds_on: b, small: [optimizer.lr=2]}
scales: {small: }
"""
    arms = {a.name: a for a in load_study(write(tmp_path, text)).at_scale("small").arms}
    assert arms["c"].overrides == ("optimizer.lr=1", "optimizer.momentum=0.5", "seed=1", "optimizer.lr=2")
    assert load_study(write(tmp_path, text)).arms[2].published is None
    assert arms["b"].note == ""


def test_the_file_that_the_documentation_shows_is_a_study_at_both_scales(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "sweeps.md").read_text(encoding="utf-8")
    text = page.partition("```yaml\n")[2].partition("```")[0]
    study = load_study(write(tmp_path, text))
    names = [arm.name for arm in study.arms]
    assert all(f"`{name}`" in page for name in names)
    assert [key for key in (*STUDY_KEYS, *ARM_KEYS, *SCALE_KEYS) if f"{key}:" not in text] == []
    small = make_plan(study.at_scale("small"), seeds=[0])
    assert [run.arm for run in small.runs] == [name for name in names if name != "finer"]
    assert len(small.unique()) == len(small.runs), "no two arms are the same"
    full = make_plan(study.at_scale("full"), ["data.root=/data", "data.name=coco2017"], seeds=[0])
    assert len(full.unique()) == len(names)
