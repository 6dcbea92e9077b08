"""`mrbench train` before its training begins."""

from pathlib import Path

import pytest
import typer

from mrbench.cli import train as command
from mrbench.cli.sweep import sweep_command
from mrbench.errors import UserError


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


def test_ctrl_c_before_training_listens_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "_train", interrupted)
    with pytest.raises(typer.Exit) as left:
        command.train_command(root=tmp_path)
    assert left.value.exit_code == 130
    assert capsys.readouterr().err == "stopped by SIGINT before it began: the same command begins.\n"
