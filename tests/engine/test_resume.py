"""A run that is killed, at whatever moment, ends as one that was left alone."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mrbench.config.schema import RunConfig
from mrbench.engine import checkpoint
from mrbench.engine.signals import Preempted
from mrbench.engine.step import TrainStep
from mrbench.engine.train import train
from mrbench.errors import UserError
from mrbench.runs.record import Run, list_runs, open_run

Same = Callable[[Run, Run], None]


def killed(scripts: Path, moment: str, root: Path, *overrides: str) -> int:
    command = [sys.executable, str(scripts / "killed_train.py"), "train", "--root", str(root), *overrides]
    # Not through a pipe: a killed process's workers live on for some seconds, and would hold it open.
    with open(os.devnull, "w") as nowhere:
        done = subprocess.run(
            command, env={**os.environ, "MOMENT": moment}, stdout=nowhere, stderr=nowhere, timeout=120
        )
    return done.returncode


@pytest.mark.parametrize("moment", ["step", "inside-checkpoint", "final-evaluation"])
def test_killed_once_ends_bit_identical(
    moment: str,
    tmp_path: Path,
    scripts: Path,
    overrides: tuple[str, ...],
    tiny: Callable[..., RunConfig],
    undisturbed: Run,
    assert_same_result: Same,
) -> None:
    # With loader workers, which the undisturbed run has not: they must neither show nor keep the run locked.
    assert killed(scripts, moment, tmp_path, *overrides, "runtime.num_workers=2") == -signal.SIGKILL
    (run,) = list_runs(tmp_path)
    assert run.status().state == "running"
    train(run, tiny())
    assert run.status().attempt == 2
    assert_same_result(run, undisturbed)
    assert not list(run.checkpoint_dir.glob(".*")), "what the killed process left is cleared away"


def test_killed_again_and_again_ends_bit_identical(
    tmp_path: Path,
    scripts: Path,
    overrides: tuple[str, ...],
    tiny: Callable[..., RunConfig],
    undisturbed: Run,
    assert_same_result: Same,
) -> None:
    for moment in ("between-checkpoint-and-sum", "inside-log-line"):
        assert killed(scripts, moment, tmp_path, *overrides) == -signal.SIGKILL
    (run,) = list_runs(tmp_path)
    assert "passed over 00000008.pt" in run.log_file.read_text()
    train(run, tiny())
    assert_same_result(run, undisturbed)


def test_sigterm_saves_and_the_same_command_goes_on(
    tmp_path: Path,
    tiny: Callable[..., RunConfig],
    undisturbed: Run,
    assert_same_result: Same,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step = TrainStep.__call__

    def stopped_in_the_middle(self: TrainStep, batch: object) -> dict[str, torch.Tensor]:
        if batch.iteration == 6:  # type: ignore[attr-defined]
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, batch)  # type: ignore[arg-type]

    run = open_run(tmp_path, tiny())
    with monkeypatch.context() as patch:
        patch.setattr(TrainStep, "__call__", stopped_in_the_middle)
        with pytest.raises(Preempted):
            train(run, tiny())
    assert run.status().state == "preempted"
    assert run.status().iteration == 7
    newest = checkpoint.newest(run.checkpoint_dir, print)
    assert newest is not None
    assert newest.name == "00000007.pt"
    train(run, tiny())
    assert_same_result(run, undisturbed)


def test_workers_do_not_show(
    tmp_path: Path, tiny: Callable[..., RunConfig], undisturbed: Run, assert_same_result: Same
) -> None:
    config = tiny("runtime.num_workers=2")
    run = open_run(tmp_path, config)
    train(run, config)
    assert_same_result(run, undisturbed)


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path: Path) -> None:
    for iteration in (1, 2, 3):
        checkpoint.save(tmp_path, iteration, {"value": torch.full((1000,), float(iteration))}, keep=2)
    assert sorted(path.name for path in tmp_path.glob("*.pt")) == ["00000002.pt", "00000003.pt"]
    newest = tmp_path / "00000003.pt"
    newest.write_bytes(newest.read_bytes()[:-100])
    passed_over: list[str] = []
    found = checkpoint.newest(tmp_path, passed_over.append)
    assert found == tmp_path / "00000002.pt"
    assert float(checkpoint.load(found)["value"][0]) == 2.0
    assert len(passed_over) == 1
    assert "00000003.pt" in passed_over[0]


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    path = checkpoint.save_weights(tmp_path, torch.nn.Linear(3, 2), 0)
    checkpoint.load_model_weights(path, torch.nn.Linear(3, 2))
    for other, named in ((torch.nn.Linear(3, 4), "weight"), (torch.nn.Sequential(torch.nn.Linear(3, 2)), "0.weight")):
        with pytest.raises(UserError, match=named):
            checkpoint.load_model_weights(path, other)
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(UserError, match=r"text\.pt"):
        checkpoint.load_model_weights(tmp_path / "text.pt", torch.nn.Linear(3, 2))
