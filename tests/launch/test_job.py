"""A job's own process: what it leaves in its log and in the run's record."""

import signal
import sys
from pathlib import Path

import pytest

from mrbench.config.composer import compose
from mrbench.config.schema import RunConfig
from mrbench.engine.failures import NonFiniteLoss
from mrbench.engine.signals import Preempted
from mrbench.errors import UserError
from mrbench.launch.executor import Job, Limits
from mrbench.launch.job import main, run_job
from mrbench.launch.progress import Watcher
from mrbench.launch.record import begin, read_job, stop_file
from mrbench.runs.record import Run, open_run


def broken_data(run: Run, config: RunConfig) -> None:
    raise UserError("2 broken annotations in a.json\n  annotation 4: no box\n  annotation 5: no box", "Mend the file.")


def asked_to_stop(run: Run, config: RunConfig) -> None:
    run.update(state="preempted", iteration=7)
    raise Preempted(signal.SIGTERM, 7)


def loss_is_lost(run: Run, config: RunConfig) -> None:
    raise NonFiniteLoss(3, "mask", float("inf"), [5])


@pytest.mark.parametrize(
    "entry,code,says",
    [
        ("asked_to_stop", 143, "stopped by SIGTERM at iteration 7: the next sweep goes on from there.\n"),
        ("loss_is_lost", 1, "failed: mask is inf at iteration 3 (images 5)\n"),
    ],
)
def test_an_end_before_its_time_is_one_line_and_an_exit_code(
    entry: str,
    code: int,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *arguments: None)
    monkeypatch.setattr(sys, "argv", [])
    config = compose()
    run = open_run(tmp_path, config)
    begin(tmp_path, "local", f"{__name__}:{entry}", [Job(run.folder, config)], Limits())
    assert main(str(run.folder)) == code
    assert capsys.readouterr().err == says


def test_a_mistake_is_told_without_a_traceback_and_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *arguments: None)
    monkeypatch.setattr(sys, "argv", [])
    config = compose()
    run = open_run(tmp_path, config)
    begin(tmp_path, "local", f"{__name__}:broken_data", [Job(run.folder, config, ("train",))], Limits())
    run_job(str(run.folder))
    said = capsys.readouterr().err
    assert said.startswith("error: 2 broken annotations in a.json\n")
    assert said.endswith("Mend the file.\n")
    view = Watcher("box/AP").view(run, 1)
    assert view.state == "failed"
    assert view.error == "2 broken annotations in a.json: annotation 4: no box. Mend the file."
    record = read_job(run.folder)
    assert record is not None
    assert record.ended is not None


def test_a_cancelled_job_does_not_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "signal", lambda *arguments: None)
    config = compose()
    run = open_run(tmp_path, config)
    begin(tmp_path, "local", f"{__name__}:broken_data", [Job(run.folder, config)], Limits())
    stop_file(run.folder).touch()
    run_job(str(run.folder))
    assert run.status().state == "pending"


@pytest.mark.parametrize("state", ["completed", "failed"])
def test_a_run_that_another_job_has_ended_meanwhile_is_not_run_again(
    state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *arguments: None)
    config = compose()
    run = open_run(tmp_path, config)
    begin(tmp_path, "local", f"{__name__}:never_called", [Job(run.folder, config)], Limits())
    run.update(state=state)
    run_job(str(run.folder))
    assert run.status().state == state


def test_a_job_says_that_other_code_runs_than_was_submitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *arguments: None)
    monkeypatch.setattr(sys, "argv", [])
    monkeypatch.setenv("MRBENCH_SUBMITTED_CODE", "null")  # set, so that it is put back
    monkeypatch.setattr("mrbench.launch.record.to_submit", lambda: {"version": "0", "source_sha256": "0" * 64})
    config = compose()
    run = open_run(tmp_path, config)
    begin(tmp_path, "local", f"{__name__}:broken_data", [Job(run.folder, config)], Limits())
    run_job(str(run.folder))
    assert (
        "the code has changed since the submission: version 0 (0000000000) was submitted" in run.log_file.read_text()
    )


def test_a_mistake_is_on_record_where_training_left_the_run_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a run that was stopped earlier, and cannot go on: a sweep must not take it for one that was stopped."""
    monkeypatch.setattr(signal, "signal", lambda *arguments: None)
    monkeypatch.setattr(sys, "argv", [])
    config = compose()
    run = open_run(tmp_path, config)
    run.update(state="preempted", iteration=7)
    begin(tmp_path, "local", f"{__name__}:broken_data", [Job(run.folder, config)], Limits())
    run_job(str(run.folder))
    status = run.status()
    assert (status.state, status.iteration) == ("failed", 7)
    assert status.error is not None
    assert status.error["kind"] == "user_error"
