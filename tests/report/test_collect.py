"""Records in every state are read, shown and counted; none is dropped."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mrbench.errors import UserError
from mrbench.report import caveats, collect, grouping, origin, words
from mrbench.report.build import build


@pytest.fixture
def broken(make_study: Callable[..., Path], tmp_path: Path) -> Path:
    """One run each: failed, interrupted, pending, without a folder, never started, damaged, not evaluated, AP null."""
    root = make_study(tmp_path, seeds=3, matches=False)
    record = json.loads((root / "studies" / "demo.json").read_text())
    arms = {name: arm["runs"] for name, arm in record["arms"].items()}

    def change(run_id: str, **fields: Any) -> None:
        path = root / "runs" / run_id / "status.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    change(
        arms["bn"]["0"], state="failed", error={"kind": "out_of_memory", "message": "no memory at iteration 17\nmore"}
    )
    change(arms["bn"]["1"], state="running", iteration=120)
    checkpoints = root / "runs" / arms["bn"]["1"] / "checkpoints"
    checkpoints.mkdir()
    (checkpoints / "00000130.pt").touch()  # later than the last line of the log
    change(arms["bn"]["2"], state="pending")
    for path in (root / "runs" / arms["roi_pool"]["0"]).iterdir():
        path.unlink()
    (root / "runs" / arms["roi_pool"]["0"]).rmdir()
    arms["roi_pool"]["1"] = None
    (root / "runs" / arms["roi_pool"]["2"] / "status.json").write_text('{"state": "comp')
    (root / "runs" / arms["longer"]["0"] / "evaluation.json").unlink()
    path = root / "runs" / arms["longer"]["1"] / "evaluation.json"
    evaluation = json.loads(path.read_text())
    evaluation["metrics"]["mask/AP"] = None
    evaluation["notes"] = ["no detections"]
    path.write_text(json.dumps(evaluation))
    (root / "studies" / "demo.json").write_text(json.dumps(record))
    return root


def test_runs_in_every_state_are_kept_with_the_reason(broken: Path) -> None:
    study = collect.load_study(broken, "demo")
    assert len(study.runs) == 15
    states = {(run.arm, run.seed): (run.state, run.problem) for run in study.runs}
    assert states["bn", 0] == ("failed", "no memory at iteration 17")
    assert states["bn", 1] == ("interrupted", "at iteration 130 of 500")
    assert states["bn", 2] == ("pending", "")
    assert states["roi_pool", 0] == ("missing", "no folder of this run")
    assert states["roi_pool", 1] == ("missing", "not started")
    assert states["roi_pool", 2][0] == "damaged"
    assert states["longer", 0] == ("completed", "not evaluated")
    assert states["gn", 0] == ("completed", "")


def test_only_completed_runs_give_numbers(broken: Path) -> None:
    study = collect.load_study(broken, "demo")
    assert study.arm("bn").scores("box/AP") == {}
    assert set(study.arm("longer").scores("box/AP")) == {1, 2}
    assert set(study.arm("longer").scores("mask/AP")) == {2}
    report = build(study)
    assert report.answers[0].differences["longer"].seeds == (1, 2)
    assert report.answers[1].differences["longer"].decision == "too few seeds"
    assert report.answers[0].differences["bn"].mean is None
    assert len(words.problems(report)) == 7
    assert words.sentence(report, study.arm("bn")) == "No finished run (1 interrupted, 1 pending, 1 failed)."
    assert caveats.evaluation_notes(report) == ["no detections"]


def test_a_study_without_any_result_says_so(make_study: Callable[..., Path], tmp_path: Path) -> None:
    report = build(collect.load_study(make_study(tmp_path, seeds=1, state="pending"), "demo"))
    assert words.headline(report) == "No run of this study has finished yet: there is nothing to compare."


def test_an_unknown_study_metric_or_arm_gets_the_nearest_names(demo: Path) -> None:
    with pytest.raises(UserError) as error:
        collect.load_study(demo, "dem")
    assert "demo" in error.value.hint
    study = collect.load_study(demo, "demo")
    with pytest.raises(UserError) as error:
        collect.with_metrics(study, ["box/AP57"])
    assert "box/AP75" in error.value.hint
    with pytest.raises(UserError) as error:
        collect.with_baseline(study, "roipool")
    assert "roi_pool" in error.value.hint
    with pytest.raises(UserError) as error:
        grouping.split_names(demo, ["demmo"])
    assert "demo" in error.value.hint


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"arms": {}}', '{"arms": {"a": {"runs": {"x": "y"}}}}', '{"arms": [1]}']
)
def test_a_file_that_is_not_a_study_is_one_message(tmp_path: Path, text: str) -> None:
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "odd.json").write_text(text)
    with pytest.raises(UserError):
        collect.load_study(tmp_path, "odd")


def test_runs_by_hand_form_arms_by_what_differs_but_the_seed(demo: Path) -> None:
    study = grouping.gather(
        demo, [f"mask_rcnn_small-shapes-{arm}{seed:06x}" for arm in ("gn", "bn") for seed in (0, 1)]
    )
    assert [arm.name for arm in study.arms] == ["norm=gn", "norm=bn"]
    assert [run.seed for arm in study.arms for run in arm.runs] == [0, 1, 0, 1]
    assert study.baseline == "norm=gn"
    report = build(study, resamples=0)
    assert report.answers[0].differences["norm=bn"].seeds == (0, 1)


def test_one_run_can_be_reported_alone(demo: Path) -> None:
    report = build(grouping.gather(demo, ["mask_rcnn_small-shapes-gn000000"]))
    assert words.headline(report) == "There is one arm: nothing to compare it with."


def test_settings_name_what_differs_and_nothing_else(demo: Path) -> None:
    rows = [tuple(record.values()) for record in origin.settings(collect.load_study(demo, "demo")).records()]
    assert rows == [
        ("bn", "model.norm", "gn", "bn"),
        ("roi_pool", "model.pooler.kind", "roi_align", "roi_pool"),
        ("longer", "schedule.iterations", "500", "1000"),
    ]


def test_mixed_software_is_warned_of_and_equal_software_is_not(
    demo: Path, make_study: Callable[..., Path], tmp_path: Path
) -> None:
    assert origin.warnings(collect.load_study(demo, "demo")) == []
    root = make_study(tmp_path, seeds=1)
    path = root / "runs" / "mask_rcnn_small-shapes-bn000000" / "provenance.json"
    path.write_text(path.read_text().replace("2.11.0", "2.12.0").replace('"here"', '"there"'))
    (line,) = origin.warnings(collect.load_study(root, "demo"))
    assert line == "torch: 2.12.0 (bn); 2.11.0 (4 other arms)"


def test_the_command_of_a_row_has_base_arm_and_seeds(demo: Path) -> None:
    report = build(collect.load_study(demo, "demo"), resamples=0)
    command = words.command(report, report.study.arm("bn"))
    assert command == "mrbench sweep data=shapes model=mask_rcnn_small model.norm=bn seed=0,1,2"


def test_curves_are_the_logged_points_without_what_is_not_finite(demo: Path) -> None:
    run = collect.load_study(demo, "demo").runs[0]
    assert run.folder is not None
    x, y = run.curve("evaluation", "box/AP")
    assert x == [100, 200, 300, 400, 500]
    assert all(0 < value < 100 for value in y)
    assert run.curve("train", "no such thing") == ([], [])
