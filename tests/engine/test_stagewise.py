"""Stage-wise training: an RPN on its own, its proposals in a file, then a detector on these."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mrbench.cli.app import main
from mrbench.config.schema import RunConfig
from mrbench.data.loader import train_loader
from mrbench.data.proposals import read_proposals
from mrbench.data.sources import open_split
from mrbench.engine.signals import Preempted
from mrbench.engine.step import TrainStep
from mrbench.engine.train import train
from mrbench.errors import UserError
from mrbench.modeling.build import build_network
from mrbench.runs.record import Run, open_run

Tiny = Callable[..., RunConfig]
MODES = ("only", "precomputed")


def command(monkeypatch: pytest.MonkeyPatch, *words: str) -> int | None:
    monkeypatch.setattr(sys, "argv", ["mrbench", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code  # type: ignore[return-value]


@pytest.fixture(scope="module")
def rpn(tmp_path_factory: pytest.TempPathFactory, tiny: Tiny) -> Run:
    """A tiny run of an RPN alone."""
    config = tiny("model.rpn.mode=only")
    run = open_run(tmp_path_factory.mktemp("stagewise"), config)
    train(run, config)
    return run


@pytest.fixture(scope="module")
def file(rpn: Run) -> Path:
    """What it proposes."""
    path = rpn.folder / "proposals.npz"
    with pytest.MonkeyPatch.context() as patch:
        assert not command(patch, "proposals", str(rpn.folder), "-o", str(path))
    return path


def changes_of(mode: str, file: Path) -> tuple[str, ...]:
    if mode == "only":
        return ("model.rpn.mode=only",)
    return ("model.rpn.mode=precomputed", f"data.train.proposals={file}", f"data.val.proposals={file}")


def test_a_run_of_the_rpn_alone_has_its_recall_and_a_report(
    rpn: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluation = rpn.evaluation()
    assert evaluation is not None
    assert len(evaluation["metrics"]) == 8
    assert all(name.startswith("proposal/AR") for name in evaluation["metrics"])
    assert evaluation["metrics"]["proposal/AR1000"] > 0
    assert not rpn.matches_file.exists()
    assert {line["kind"] for line in rpn.metrics()} == {"train", "evaluation"}
    root = str(rpn.folder.parents[1])
    assert not command(monkeypatch, "report", "--root", root, rpn.run_id)
    assert "proposal AR1000" in capsys.readouterr().out
    assert not command(monkeypatch, "eval", "--root", root, rpn.run_id)
    assert "ARs1000" in capsys.readouterr().out
    assert rpn.evaluation()["metrics"] == evaluation["metrics"]  # type: ignore[index]


def test_the_file_has_what_training_and_testing_look_at(rpn: Run, file: Path, tiny: Tiny) -> None:
    config = tiny("model.rpn.mode=only")
    for split, most in (("train", config.model.rpn.post_nms_train), ("val", config.model.rpn.post_nms_test)):
        table = read_proposals(file, split)
        assert sorted(table.image_ids) == sorted(image.id for image in open_split(config.data, split).images)
        assert 0 < np.diff(table.offsets).max() <= most
    written = read_proposals(rpn.proposals_file(), "val")
    assert np.array_equal(written.boxes, read_proposals(file, "val").boxes), "those of the run's own evaluation"


@pytest.mark.parametrize("mode", MODES)
def test_a_run_that_was_stopped_ends_bit_identical(
    mode: str,
    rpn: Run,
    file: Path,
    tmp_path: Path,
    tiny: Tiny,
    assert_same_result: Callable[[Run, Run], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = tiny(*changes_of(mode, file))
    step = TrainStep.__call__

    def stopped_in_the_middle(self: TrainStep, batch: object) -> dict[str, torch.Tensor]:
        if batch.iteration == 6:  # type: ignore[attr-defined]
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, batch)  # type: ignore[arg-type]

    run, whole = open_run(tmp_path / "stopped", config), rpn
    with monkeypatch.context() as patch:
        patch.setattr(TrainStep, "__call__", stopped_in_the_middle)
        with pytest.raises(Preempted):
            train(run, config)
    train(run, config)
    if mode == "precomputed":
        whole = open_run(tmp_path / "whole", config)
        train(whole, config)
        assert "rpn_box" not in whole.metrics()[0]
        assert list(whole.provenance()["proposals_sha256"]) == [str(file)]
        assert_same_result(run, whole)
        return
    assert run.proposals_file().read_bytes() == whole.proposals_file().read_bytes()
    assert run.evaluation()["metrics"] == whole.evaluation()["metrics"]  # type: ignore[index]
    first, second = (torch.load(r.checkpoint_dir / "final.pt", weights_only=True)["model"] for r in (run, whole))
    assert all(torch.equal(first[name], second[name]) for name in second)


@pytest.mark.parametrize("mode", MODES)
def test_a_batch_in_parts_is_the_same_batch(
    mode: str, file: Path, tiny: Tiny, every_proposal: tuple[str, ...]
) -> None:
    changes = ("optimizer=sgd", *every_proposal, *changes_of(mode, file))
    losses = []
    for parts in (1, 2):
        config = tiny(*changes, f"runtime.accumulate={parts}")
        torch.manual_seed(0)
        step = TrainStep(build_network(config.model, 4), config, torch.device("cpu"))
        loader = train_loader(open_split(config.data, "train"), config)
        losses.append([{k: float(v) for k, v in step(next(loader)).items()} for _ in range(4)])
    for whole, cut in zip(*losses, strict=True):
        assert cut == pytest.approx(whole, abs=1e-4)


@pytest.mark.parametrize("mode", MODES)
def test_two_processes_train_and_evaluate_as_one(mode: str, file: Path, tmp_path: Path, tiny: Tiny) -> None:
    # No region reaches the coarse levels, whose weights then have a gradient of zero in every process.
    levels = ("model.pooler.method=torchvision", "model.pooler.canonical_size=2000")
    changes = (*changes_of(mode, file), *levels, "schedule.iterations=4")
    runs = []
    for processes in (1, 2):
        config = tiny(*changes, "schedule.warmup_iterations=50", f"runtime.devices={processes}")
        runs.append(open_run(tmp_path / str(processes), config))
        train(runs[-1], config)
    one, two = ([line["loss"] for line in run.metrics() if line["kind"] == "train"] for run in runs)
    assert two == pytest.approx(one, abs=1e-4)
    first, second = (run.evaluation() for run in runs)
    assert first is not None
    assert second is not None
    assert second["metrics"] == pytest.approx(first["metrics"], abs=0.5)


def test_what_does_not_fit_is_said_before_training(file: Path, tmp_path: Path, tiny: Tiny) -> None:
    with pytest.raises(UserError, match="needs the proposals of the train split"):
        tiny("model.rpn.mode=precomputed")
    with pytest.raises(UserError, match=r"data\.val\.proposals is given, but model\.rpn\.mode=joint"):
        tiny(f"data.val.proposals={file}")
    more = tiny(*changes_of("precomputed", file), "data.shapes.val_images=8")
    run = open_run(tmp_path, more)
    with pytest.raises(UserError, match="no proposals for 2 of the 8 images of the val split"):
        train(run, more)
    assert run.status().iteration == 0
    assert not run.metrics()


def test_commands_that_cannot_be_say_so(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(file.parent)
    weights = str(file.parent / "checkpoints" / "final.pt")
    both = [f"data.train.proposals={file}", f"data.val.proposals={file}"]
    cases = {
        ("proposals", run, "--split", "test"): "--split test names",
        ("proposals",): "Give one run",
        ("proposals", run, "-o", str(tmp_path)): "cannot be written",
        ("proposals", "--weights", weights, "model.rpn.mode=precomputed", *both): "without an RPN",
        ("proposals", "--weights", str(tmp_path / "none.pt")): "There is no file",
        ("predict", run, str(tmp_path)): "model.rpn.mode=only",
    }
    for words, said in cases.items():
        assert command(monkeypatch, *words) == 2
        assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
