"""A job's own process: what it leaves in its log and in the run's record."""

import signal
import sys
from pathlib import Path

import pytest

from mrbench.config.compose import compose
from mrbench.config.schema import RunConfig
from mrbench.errors import UserError
from mrbench.launch.job import run_job
from mrbench.launch.progress import Watcher
from mrbench.runs.record import Run, open_run


def broken_data(run: Run, config: RunConfig) -> None:
    raise UserError("2 broken annotations in a.json\n  annotation 4: no box\n  annotation 5: no box", "Mend the file.")


def test_a_mistake_is_told_without_a_traceback_and_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *arguments: None)
    monkeypatch.setattr(sys, "argv", [])
    config = compose()
    run = open_run(tmp_path, config)
    run_job(str(run.folder), config, ["train"], f"{__name__}:broken_data", str(tmp_path / "stop"), [])
    said = capsys.readouterr().err
    assert said.startswith("error: 2 broken annotations in a.json\n")
    assert said.endswith("Mend the file.\n")
    view = Watcher("box/AP").view(run, 1)
    assert view.state == "failed"
    assert view.error == "2 broken annotations in a.json: annotation 4: no box. Mend the file."
