"""Runs without a study file, and several studies: what becomes an arm, what pairs its runs, and what it is called."""

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from mrbench.errors import UserError
from mrbench.report import caveats, grouping, origin, table, terminal, words, write
from mrbench.report.build import build
from mrbench.report.collect import Study, load_study, with_baseline
from mrbench.report.grouping import gather
from mrbench.report.rules import parse_rules


def arms(root: Path, *names: str, where: tuple[str, ...] = (), by: tuple[str, ...] = ()) -> dict[str, list[str]]:
    study = gather(root, names, parse_rules(where), by)
    return {arm.name: [run.run_id or "" for run in arm.runs] for arm in study.arms}


def set_values(root: Path, run: str, **changes: str) -> None:
    """Text in place of text, in the configuration of a run."""
    path = root / "runs" / f"mask_rcnn_small-shapes-{run}" / "config.yaml"
    text = path.read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)


@pytest.fixture
def root(make_study: Callable[..., Path], tmp_path: Path) -> Path:
    return make_study(tmp_path, seeds=2, matches=False)


def test_a_filter_takes_the_runs_that_are_so_configured(demo: Path) -> None:
    found = arms(demo, where=("model.norm=bn",))
    assert list(found.values()) == [[f"mask_rcnn_small-shapes-bn{seed:06x}" for seed in range(3)]]
    (longer,) = arms(demo, where=("model.norm=gn,bn", "schedule.iterations=1e3")).values()
    assert longer == [f"mask_rcnn_small-shapes-long{seed:06x}" for seed in range(3)]
    assert list(arms(demo, "demo", where=("model.norm=gn",))) == ["gn", "roi_pool", "class_agnostic", "longer"]


def test_arms_by_the_values_of_a_setting_hold_all_runs_and_are_in_order(demo: Path) -> None:
    found = arms(demo, "demo", by=("schedule.iterations",))
    assert {name: len(runs) for name, runs in found.items()} == {"iterations=500": 12, "iterations=1000": 3}
    assert list(arms(demo, by=("model.norm", "schedule.iterations"))) == [
        "norm=bn iterations=500",
        "norm=gn iterations=500",
        "norm=gn iterations=1000",
    ]


def test_grouped_runs_are_paired_over_what_else_differs_and_the_seed(root: Path) -> None:
    """norm x pooler, two seeds: a run with roi_pool and seed 1 is compared with its like."""
    for seed in (0, 1):
        set_values(root, f"clas{seed:06x}", **{"norm: gn": "norm: bn", "kind: roi_align": "kind: roi_pool"})
        shutil.rmtree(root / "runs" / f"mask_rcnn_small-shapes-long{seed:06x}")
    study = gather(root, [], (), ("model.norm",))
    blocks = [
        {run.seed: (run.config["model.pooler.kind"], run.config["seed"]) for run in arm.runs} for arm in study.arms
    ]
    assert [arm.name for arm in study.arms] == ["norm=bn", "norm=gn"]
    assert blocks[0] == blocks[1]
    assert len(blocks[0]) == 4
    assert "model.pooler.kind" in study.notes[0]
    assert build(study, resamples=0).answers[0].differences["norm=bn"].seeds == (0, 1, 2, 3)


def test_an_arm_that_mixes_settings_is_warned_of_in_every_format_and_seeds_are_the_runs_own(root: Path) -> None:
    for old, seed, iterations in ((0, 7, 0), (1, 7, 20)):
        set_values(
            root,
            f"gn{old:06x}",
            **{f"seed: {old}\n": f"seed: {seed}\n", "iterations: 500": f"iterations: {iterations}"},
        )
    failed = root / "runs" / "mask_rcnn_small-shapes-gn000001" / "status.json"
    failed.write_text(failed.read_text().replace("completed", "failed"))
    study = gather(root, [], parse_rules(["model.pooler.kind=roi_align"]), ("model.norm",))
    report = build(study, resamples=0)
    told = "arm norm=gn mixes schedule.iterations=0,20,500,1000"
    for kind in ("markdown", "json", "latex", "html"):
        assert told in write.text(report, kind, 0), kind
    assert not any("arm norm=bn" in note for note in caveats.interval_notes(report))
    console = Console(width=300, file=io.StringIO())
    terminal.show(report, console)
    assert told in console.file.getvalue()
    assert "norm=gn, seed 7 (gn000001): failed" in words.problems(report)
    rows = {row["run"]: row["seed"] for row in table.runs(report).records()}
    assert all(seed == (7 if run.endswith(("-gn000000", "-gn000001")) else int(run[-1])) for run, seed in rows.items())
    assert gather(root, ["demo"]).warnings == ()


def test_several_studies_are_one_table_and_a_run_that_both_have_counts_once(root: Path) -> None:
    record = json.loads((root / "studies" / "demo.json").read_text())
    chosen = {"same": record["arms"]["gn"], "longer": record["arms"]["bn"]}
    (root / "studies" / "other.json").write_text(
        json.dumps({**record, "study": "other", "arms": chosen, "baseline": "same"})
    )
    shutil.copy(root / "studies" / "demo.json", root / "studies" / "again.json")
    assert list(arms(root, "demo", "again")) == list(arms(root, "demo"))
    study = gather(root, ["other", "demo"])
    assert [arm.name for arm in study.arms] == ["same", "longer", "roi_pool", "class_agnostic", "demo/longer"]
    assert (study.name, study.baseline) == ("other+demo", "same")
    assert {run.arm for arm in study.arms for run in arm.runs} == {arm.name for arm in study.arms}


def test_what_a_study_warns_of_is_told_with_its_name_in_a_table_of_several(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(root: Path, name: str) -> Study:
        return replace(load_study(root, name), warnings=("arm gn mixes lr=0.1,0.2.",) if name == "other" else ())

    monkeypatch.setattr(grouping, "load_study", load)
    shutil.copy(root / "studies" / "demo.json", root / "studies" / "other.json")
    study = gather(root, ["demo", "other"])
    assert study.warnings == ("other: arm gn mixes lr=0.1,0.2.",)
    assert study.warnings[0] in caveats.interval_notes(build(study, resamples=0))


def against(study: Study) -> str:
    (line,) = (note for note in caveats.interval_notes(build(study, 0)) if note.startswith("Baseline: "))
    return line.removesuffix(" --baseline NAME takes another arm.")


def test_runs_of_one_study_are_compared_with_the_arm_that_has_its_baseline(root: Path) -> None:
    """By letter bn is before gn, which is the study's."""
    chosen = parse_rules(["schedule.iterations=500"])
    assert against(gather(root, [], chosen, ["model.norm"])) == "Baseline: norm=gn, as in the study demo."
    assert against(gather(root, ["demo"], chosen, ["model.norm"])) == "Baseline: norm=gn, as in the study demo."
    record = json.loads((root / "studies" / "demo.json").read_text())
    (root / "studies" / "other.json").write_text(json.dumps({**record, "baseline": "bn"}))
    (root / "studies" / "damaged.json").write_text("{")
    told = "Baseline: norm=bn, the first by model.norm: the smallest number, or the first word by letter."
    assert against(gather(root, [], chosen, ["model.norm"])) == told  # two studies that disagree
    assert against(gather(root, ["demo"], chosen, ["model.norm"])) == "Baseline: norm=gn, as in the study demo."


def test_why_an_arm_is_the_baseline_is_said_where_nobody_chose_it(root: Path) -> None:
    named = [f"mask_rcnn_small-shapes-{run}000000" for run in ("long", "gn")]
    assert against(gather(root, named)) == "Baseline: iterations=1000, the first run's."
    left = gather(root, ["demo"], parse_rules(["model.norm=bn"]))
    assert left.baseline_because == "the first that is left, as no run of gn has model.norm=bn"
    whole = gather(root, ["demo"])
    assert not any(note.startswith("Baseline: ") for note in caveats.interval_notes(build(whole, 0)))
    assert with_baseline(gather(root, named), "iterations=500").baseline_because == ""


def test_names_are_short_where_only_paths_differ(root: Path) -> None:
    for seed in (0, 1):
        for arm, where in (("gn", "/a/long/way/first"), ("bn", "/a/long/way/second")):
            set_values(
                root, f"{arm}{seed:06x}", **{"  name: mask_rcnn_small\n": f"  name: m\n  weights: {where}/w.pt\n"}
            )
            set_values(root, f"{arm}{seed:06x}", **{"norm: bn" if arm == "bn" else "norm: gn": "norm: gn"})
    names = [f"mask_rcnn_small-shapes-{arm}{seed:06x}" for arm in ("gn", "bn") for seed in (0, 1)]
    assert list(arms(root, *names)) == ["weights=first/w.pt", "weights=second/w.pt"]


def test_a_name_that_leaves_settings_out_is_explained_below_the_table(root: Path) -> None:
    changes = {"norm: bn": "norm: frozen_bn", "roi_align": "roi_pool", "mask_rcnn_small": "other", "500": "900"}
    set_values(root, "bn000000", **changes)
    runs = [f"mask_rcnn_small-shapes-{arm}000000" for arm in ("gn", "bn")]
    report = build(gather(root, runs), resamples=0)
    names = [arm.name for arm in report.study.arms]
    assert [name.rpartition(" ")[2] for name in names] == ["(+2)", "(+2)"]  # four differ, two are told
    assert len(origin.settings(report.study).rows) == 4
    (line,) = (note for note in caveats.interval_notes(report) if "(+1)" in note)
    console = Console(width=80, file=io.StringIO(), record=True)
    terminal.show(report, console)
    assert line in " ".join(console.export_text().split())
    plain = build(gather(root, ["demo"]), resamples=0)
    assert not any("(+1)" in note for note in caveats.interval_notes(plain))


def test_where_the_data_lie_makes_no_arm(root: Path) -> None:
    for seed, where in ((0, "/here/coco"), (1, "/there/coco")):
        set_values(root, f"gn{seed:06x}", **{"runtime:\n": f"data:\n  name: coco\n  root: {where}\nruntime:\n"})
    assert len(arms(root, "mask_rcnn_small-shapes-gn000000", "mask_rcnn_small-shapes-gn000001")) == 1


def test_where_the_data_lie_is_no_setting_that_tells_arms_apart_but_their_annotations_are(root: Path) -> None:
    """As in the identity of a run: another folder of the same annotations makes the same run."""
    data = "data:\n  kind: coco_folder\n  name: {}\n  root: {}\n  on_error: {}\nruntime:\n"
    prints = {"gn": "00aa", "roi_pool": "00aa", "bn": "00bb"}
    for arm, where in (("gn", "/a/mine"), ("roi_pool", "/b/mine"), ("bn", "/c/mine"), ("longer", "/d/other")):
        for seed in (0, 1):
            error = "skip" if arm == "bn" else "raise"
            set_values(root, f"{arm[:4]}{seed:06x}", **{"runtime:\n": data.format("null", where, error)})
            path = root / "runs" / f"mask_rcnn_small-shapes-{arm[:4]}{seed:06x}" / "provenance.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | {"data_fingerprint": prints.get(arm)}))
    for seed in (0, 1):
        named = data.format("mine", "/e/mine", "raise")
        set_values(root, f"clas{seed:06x}", **{"runtime:\n": named})
    rows = [tuple(record.values()) for record in origin.settings(gather(root, ["demo"])).records()]
    assert rows == [
        ("bn", "data.fingerprint", "00aa", "00bb"),
        ("bn", "model.norm", "gn", "bn"),
        ("roi_pool", "model.pooler.kind", "roi_align", "roi_pool"),
        ("longer", "data.name", "mine", "other"),
        ("longer", "schedule.iterations", "500", "1000"),
    ]


def test_a_data_set_without_a_name_is_asked_for_by_its_folder_s(root: Path) -> None:
    """As in the names of its runs (`config.identity.data_name`)."""
    folder = "data:\n  kind: coco_folder\n  name: null\n  root: /here/mine\nruntime:\n"
    for seed in (0, 1):
        set_values(root, f"gn{seed:06x}", **{"runtime:\n": folder})
        set_values(
            root, f"bn{seed:06x}", **{"runtime:\n": "data:\n  kind: shapes\n  name: shapes\n  root: null\nruntime:\n"}
        )
    assert list(arms(root, "demo", where=("data.name=mine",))) == ["gn"]
    assert list(arms(root, "demo", where=("data.name=mine,shapes",))) == ["gn", "bn"]
    assert {"name=mine", "name=shapes"} <= set(arms(root, "demo", by=("data.name",)))
    with pytest.raises(UserError) as error:
        arms(root, "demo", where=("data.name=nine",))
    assert "data.name=mine, shapes" in error.value.hint


@pytest.mark.parametrize(
    ("where", "by", "says"),
    [
        (("model.nrom=gn",), (), "model.norm"),
        ((), ("model.nrom",), "model.norm"),
        (("model.norm=ln",), (), "bn, gn"),
        (("model.norm",), (), "key=value"),
    ],
)
def test_a_mistyped_setting_or_value_is_told_what_there_is(
    demo: Path, where: tuple[str, ...], by: tuple[str, ...], says: str
) -> None:
    with pytest.raises(UserError) as error:
        arms(demo, where=where, by=by)
    assert says in f"{error.value.what} {error.value.hint}"
