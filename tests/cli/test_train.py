"""`mrbench train` before its training begins."""

import json
from pathlib import Path

import pytest
import typer

from mrbench.cli import train as command
from mrbench.cli.sweep import sweep_command
from mrbench.config.composer import compose
from mrbench.errors import UserError
from mrbench.launch.executor import Job, Limits
from mrbench.launch.record import begin
from mrbench.runs.record import list_runs, open_run


def test_data_that_is_not_there_makes_no_run(tmp_path: Path) -> None:
    asked = ["data=coco_folder", "data.name=mine", f"data.root={tmp_path / 'nowhere'}"]
    with pytest.raises(UserError, match=r"data\.root is not a folder"):
        command.train_command(asked, root=tmp_path / "root")
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize("key", ["model.weights", "model.backbone.weights"])
def test_weights_that_are_not_there_make_no_run(key: str, tmp_path: Path) -> None:
    asked = [f"{key}={tmp_path / 'no.pth'}"]
    for ask in (command.train_command, lambda what, root: sweep_command([*what, "seed=0,1"], root=root)):
        with pytest.raises(UserError, match=rf"{key} is not a file: .*no\.pth"):
            ask(asked, root=tmp_path / "root")
        assert not (tmp_path / "root").exists()


def interrupted(*arguments: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "where,checkpoints,says",
    [
        ("_command", [], "before anything was done."),
        ("_train", [], "while it started up: the same command begins at iteration 1."),
        ("_train", [20, 37], "while it started up: the same command goes on from iteration 37/40."),
    ],
)
def test_ctrl_c_before_training_listens_says_where_the_same_command_goes_on(
    where: str,
    checkpoints: list[int],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = ["schedule.iterations=40"]
    run = open_run(tmp_path, compose(asked))
    run.update(iteration=38, state="running")
    run.checkpoint_dir.mkdir()
    for iteration in checkpoints:
        (run.checkpoint_dir / f"{iteration:08d}.pt").touch()
    monkeypatch.setattr(command, where, interrupted)
    with pytest.raises(typer.Exit) as left:
        command.train_command(asked, root=tmp_path)
    assert left.value.exit_code == 130
    assert capsys.readouterr().err == f"stopped by SIGINT {says}\n"


def test_ctrl_c_while_a_sweep_is_planned_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mrbench.study.plan.make_plan", interrupted)
    with pytest.raises(typer.Exit) as left:
        sweep_command(["seed=0,1"], root=tmp_path)
    assert left.value.exit_code == 130
    assert "what was submitted goes on without this terminal" in capsys.readouterr().err


@pytest.mark.parametrize("mistake", ["runtime.device=cuda", "precision=tf32"])
def test_a_device_or_precision_that_is_not_there_leaves_no_new_run(
    mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match="GPU"):
        command.train_command([mistake], root=tmp_path)
    assert list_runs(tmp_path) == []
    assert list((tmp_path / "runs").iterdir()) == []


def test_pictures_that_are_not_there_leave_no_new_run(tmp_path: Path) -> None:
    """Only the first step asks for them: annotations alone open as a data set."""
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0}
    square = [[1, 1, 10, 1, 10, 10, 1, 10]]
    content = {
        "images": [{"id": 1, "file_name": "gone.png", "width": 32, "height": 32}],
        "annotations": [{**box, "segmentation": square}],
        "categories": [{"id": 1, "name": "thing"}],
    }
    for split in ("train", "val"):
        (tmp_path / f"{split}.json").write_text(json.dumps(content))
    asked = ["data=coco_folder", "data.name=mine", f"data.root={tmp_path}", "runtime.device=cpu"]
    with pytest.raises(UserError, match=r"gone\.png"):
        command.train_command([*asked, "runtime.num_workers=0"], root=tmp_path / "root")
    assert list_runs(tmp_path / "root") == []


def test_a_mistake_leaves_a_run_of_a_sweep_and_a_begun_one_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    asked = ["runtime.device=cuda"]
    begun = open_run(tmp_path, compose([*asked, "seed=1"]))
    begun.update(state="preempted", attempt=1, iteration=20)
    queued = open_run(tmp_path, compose(asked))
    begin(tmp_path, "local", "module:function", [Job(queued.folder, compose(asked))], Limits())
    for run, seed in ((queued, "seed=0"), (begun, "seed=1")):
        before = run.status_file.read_bytes()
        with pytest.raises(UserError, match="GPU"):
            command.train_command([*asked, seed], root=tmp_path)
        assert run.status_file.read_bytes() == before
