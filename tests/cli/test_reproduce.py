"""A run again from its record: what is undamaged comes out equal to the bit, and every number that is not is named."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner, Result

from mrbench.cli.app import app
from mrbench.engine import checkpoint
from mrbench.engine.reproduce import compare_weights, recorded_config, reproduce
from mrbench.errors import UserError
from mrbench.runs.comparison import Pair, compare_evaluations, compare_histories, compare_surroundings
from mrbench.runs.record import Run, list_runs

SMALL = (
    "data.shapes.image_size=64",
    "data.shapes.train_images=8",
    "data.shapes.val_images=4",
    "data.shapes.diameters=[9,40]",
    "model.group_size=4",
    "model.backbone.width=8",
    "model.neck.channels=16",
    "model.rpn.samples=32",
    "model.rpn.pre_nms_train=50",
    "model.rpn.post_nms_train=32",
    "model.rpn.post_nms_test=32",
    "model.roi.samples=32",
    "model.box_head.fc_channels=16",
    "model.mask_head.convs=1",
    "model.mask_head.channels=16",
    "schedule.iterations=4",
    "schedule.warmup_iterations=1",
    "optimizer.ema=0.5",
    "runtime.device=cpu",
    "runtime.threads=1",
    "runtime.num_workers=0",
    "runtime.log_period=2",
)


def mrbench(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("recorded")
    done = mrbench("train", *SMALL, "--root", str(root))
    assert done.exit_code == 0, done.output
    (run,) = list_runs(root)
    return run


@pytest.fixture
def damaged(recorded: Run, tmp_path: Path) -> Run:
    """A copy of the record, to be changed."""
    shutil.copytree(recorded.folder, tmp_path / recorded.run_id)
    return Run(tmp_path / recorded.run_id)


def test_a_run_comes_out_equal_to_the_bit(recorded: Run, tmp_path: Path) -> None:
    done = mrbench("runs", "reproduce", str(recorded.folder), "--into", str(tmp_path), "runtime.num_workers=1")
    assert done.exit_code == 0, done.output
    assert "all numbers are equal; the record's tier is exact" in done.output
    assert "at 2 iterations: all equal" in done.output
    (again,) = list_runs(tmp_path)
    assert again.run_id == recorded.run_id
    digest = json.loads((recorded.checkpoint_dir / "final.json").read_text())["sha256"]
    assert f"weights  all equal, SHA-256 {digest[:12]}" in done.output
    assert again.detections_file().read_bytes() == recorded.detections_file().read_bytes()


def test_numbers_that_are_not_reproduced_are_named_with_their_distance(damaged: Run) -> None:
    evaluation = json.loads(damaged.evaluation_file.read_text())
    evaluation["metrics"]["box/AP"] += 0.25
    damaged.evaluation_file.write_text(json.dumps(evaluation))
    lines = [json.loads(line) for line in damaged.metrics_file.read_text().splitlines()]
    lines[1]["mask"] *= 2.0  # at iteration 4
    damaged.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = mrbench("runs", "reproduce", str(damaged.folder))
    assert done.exit_code == 1, done.output
    assert "-0.25" in done.output
    assert "the first that differs is at iteration 4, the furthest is mask at 4, by 0.5 of it" in done.output
    assert "not all numbers are equal" in done.output
    assert "weights  all equal" in done.output


def test_another_weight_is_found_and_measured(tmp_path: Path) -> None:
    runs = [Run(tmp_path / name) for name in ("then", "now", "narrower")]
    layer = nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.5, -2.0, 1.0], [0.0, 0.25, 1.5]]))
    checkpoint.save_weights(runs[0].checkpoint_dir, layer, 1)
    same = compare_weights(runs[0], runs[0])
    assert same is not None
    assert same.difference == 0
    with torch.no_grad():
        layer.weight[1, 2] += 0.02  # where the largest is 2
    checkpoint.save_weights(runs[1].checkpoint_dir, layer, 1)
    found = compare_weights(runs[0], runs[1])
    assert found is not None
    assert found.difference == pytest.approx(0.01)
    assert found.sha256[0] != found.sha256[1]
    checkpoint.save_weights(runs[2].checkpoint_dir, nn.Linear(2, 2, bias=False), 1)
    other = compare_weights(runs[0], runs[2])
    assert other is not None
    assert other.difference == float("inf")
    (runs[1].checkpoint_dir / checkpoint.FINAL).unlink()
    assert compare_weights(runs[0], runs[1]) is None


def test_records_are_compared_by_iteration_and_without_times(recorded: Run, damaged: Run) -> None:
    lines = [json.loads(line) for line in damaged.metrics_file.read_text().splitlines()]
    lines[0] |= {"time": 1.0, "images_per_second": 2.0, "peak_memory": 3, "lr": 0.5}
    damaged.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines[:1]))
    history = compare_histories(recorded, damaged)
    assert list(history) == [2]
    assert [pair.name for pair in history[2] if not pair.equal] == ["lr"]
    assert all(pair.equal for pair in compare_evaluations(recorded, damaged))
    nothing = float("nan")
    assert Pair("AP", nothing, nothing).equal
    assert not Pair("AP", None, 1.0).equal


def test_what_was_otherwise_then_is_named(recorded: Run, damaged: Run) -> None:
    provenance = damaged.provenance()
    provenance["packages"]["numpy"] = "1.0"
    provenance["threads"] = 7
    damaged.provenance_file.write_text(json.dumps(provenance))
    found = {name: then for name, then, _ in compare_surroundings(damaged, recorded)}
    assert found == {"numpy": "1.0", "threads": 7}


@pytest.mark.parametrize(
    "change, what",
    [("seed=1", "cannot be changed"), ("evaluation.max_detections=5", "would be another run")],
)
def test_another_run_is_no_reproduction(recorded: Run, change: str, what: str) -> None:
    with pytest.raises(UserError, match=what):
        recorded_config(recorded, [change])


def test_processes_and_threads_are_those_of_the_record(damaged: Run) -> None:
    provenance = damaged.provenance()
    damaged.provenance_file.write_text(json.dumps({**provenance, "processes": 2, "threads": 3}))
    runtime = recorded_config(damaged).runtime
    assert (runtime.devices, runtime.threads) == (2, 3)
    assert recorded_config(damaged, ["runtime.devices=1"]).runtime.devices == 1


def test_a_run_is_not_written_over_and_must_be_complete(recorded: Run, damaged: Run) -> None:
    with pytest.raises(UserError, match="itself"):
        reproduce(recorded, recorded.config(), recorded.folder.parent.parent)
    damaged.update(state="failed")
    with pytest.raises(UserError, match="is not complete"):
        reproduce(damaged, damaged.config(), damaged.folder.parent / "again")
    assert not (damaged.folder.parent / "again").exists()
