"""Ablation files: what they mean, and how their mistakes are told."""

from pathlib import Path

import pytest

from mrbench.errors import UserError
from mrbench.study.ablation import load_study, study_names
from mrbench.study.plan import make_plan
from mrbench.study.seeds import parse_seeds

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
        (("title:", "titel:"), ["unknown key 'titel'", "title"]),
        (("baseline: gn", "baseline: gm"), ["'gm' is not an arm", "gn"]),
        (("baseline: gn\n", ""), ["baseline is missing", "gn, bn, plain"]),
        (("plain:", "gn:"), ["'gn' stands twice (line 10)"]),
        (("note:", "notes:"), ["unknown key 'notes' in arm bn", "note"]),
        (("lsj/table/gn", "lsj/table/gm"), ["arm bn", "no published row 'lsj/table/gm'", "lsj/table/gn"]),
        (("[model.norm=gn]", "[model.norm]"), ["arm gn", "'model.norm' is not an override"]),
        (("[model.norm=gn]", "3"), ["arm gn is not a mapping"]),
        (("seeds: 0-1", "seeds: 3-1"), ["seeds", "'3-1'"]),
        (("seeds: 0-1", "metrics: [box/mAP]"), ["'box/mAP' is not a metric"]),
        (("seeds: 0-1", "scales: {medium: {}}"), ["unknown key 'medium' in scales"]),
        (("seeds: 0-1", "exclude: [{a: 1}]"), ["no factors"]),
        (("arms:", "arms: ["), ["is not YAML"]),
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


@pytest.mark.parametrize("name", study_names())
def test_studies_that_come_along_compose_at_every_scale(name: str) -> None:
    study = load_study(name)
    for scale in study.scales or [None]:
        plan = make_plan(study.at_scale(scale), seeds=[0])
        assert len(plan.unique()) == len(study.arms)
