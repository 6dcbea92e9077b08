"""A sweep as a person sees it without a terminal."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from mrbench.cli.sweep_actions import show_logs
from mrbench.config.composer import compose
from mrbench.launch import table
from mrbench.launch.progress import COMPLETED, RUNNING, RunView
from mrbench.launch.record import output_file
from mrbench.launch.selection import record_of
from mrbench.launch.table import Display, describe
from mrbench.runs.record import open_run
from mrbench.study.record import ArmRecord, StudyRecord

STUDY = StudyRecord("s", "a", arms={"a": ArmRecord(runs={0: "r"})})


def test_lines_are_never_told_twice_and_an_evaluation_is_called_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "QUIET_SECONDS", 0.0)
    told = StringIO()
    display = Display(STUDY, Console(file=told, width=100))
    half = RunView("r", RUNNING, 5, 10, 2.0)
    evaluating = RunView("r", RUNNING, 10, 10, 2.0, remaining=0.0)
    for view in (half, half, evaluating, evaluating, RunView("r", COMPLETED, 10, 10, ap=3.0)):
        display.show({"r": view})
    assert told.getvalue().splitlines() == [
        "a seed 0: running 50% 2.0 img/s",
        "a seed 0: evaluating",
        "a seed 0: completed AP 3.0",
    ]
    assert describe(RunView("r", RUNNING)) == "running"


def test_a_log_that_is_not_there_yet_or_empty_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = open_run(tmp_path, compose())
    show_logs(tmp_path, record_of(run), follow=False)
    assert capsys.readouterr().out == "Nothing was logged yet.\n"
    output_file(run.folder).parent.mkdir()
    output_file(run.folder).touch()
    show_logs(tmp_path, record_of(run), follow=False)
    assert capsys.readouterr().out == "Nothing was logged yet.\n"
