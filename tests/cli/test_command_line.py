"""The command line as a person meets it: help, mistakes, completion."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMANDS = ["train", "eval", "predict", "sweep", "report", "gpu-bench", "recipes", "runs", "data"]


def mrbench(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mrbench", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "COLUMNS": "80", **environment},
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(command: str) -> None:
    done = mrbench(command, "--help")
    assert done.returncode == 0
    assert "mrbench" in done.stdout
    assert "xample" in done.stdout or command in ("recipes", "runs", "data")
    listed = mrbench("--help").stdout
    assert f" {command} " in listed


def test_a_mistyped_command_exits_with_2() -> None:
    done = mrbench("trian")
    assert done.returncode == 2
    assert "train" in done.stderr


@pytest.mark.parametrize(
    "arguments,says",
    [
        (["train", "model.nrom=gn"], "model.norm"),
        (["train", "model=nothing"], "mask_rcnn_small"),
        (["train", "optimizer.lr=fast"], "optimizer.lr"),
        (["train", "data=coco_folder", "data.root=/nowhere"], "data.root"),
        (["recipes", "show", "mask_rcnn"], "mask_rcnn_r50_fpn"),
        (["runs", "show", "nothing"], "There is no run"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(arguments: list[str], says: str, tmp_path: Path) -> None:
    done = mrbench(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 3
    assert not list(tmp_path.iterdir())


def test_cfg_prints_what_would_run_and_runs_nothing(tmp_path: Path) -> None:
    done = mrbench("train", "--cfg", "seed=4", cwd=tmp_path)
    assert done.returncode == 0
    assert "seed: 4" in done.stdout
    assert "mask_rcnn_small-shapes-" in done.stdout + done.stderr
    assert not list(tmp_path.iterdir())


def test_recipes_are_listed_with_what_they_reach() -> None:
    done = mrbench("recipes", "list", COLUMNS="120")
    assert "mask_rcnn_r50_fpn_1x" in done.stdout
    assert "38.6" in done.stdout


def test_shell_completion_completes_commands() -> None:
    done = mrbench(
        _MRBENCH_COMPLETE="complete_bash", COMP_WORDS="mrbench sw", COMP_CWORD="1", _TYPER_COMPLETE_ARGS="mrbench sw"
    )
    assert "sweep" in done.stdout.split()


def test_an_empty_folder_has_no_runs_and_that_is_no_mistake(tmp_path: Path) -> None:
    done = mrbench("runs", "list", "--root", str(tmp_path))
    assert done.returncode == 0
    assert "No runs" in done.stdout
