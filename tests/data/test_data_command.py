"""`mrbench data`: what it prints and how it ends."""

from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from mrbench.cli.data import app
from mrbench.errors import UserError


def run(*arguments: str):
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})


def overrides(folder) -> list[str]:
    return ["data=coco_folder", f"data.root={folder.root}"]


def test_show_counts_both_splits(folder) -> None:
    folder.content["annotations"][4]["bbox"] = [0, 0, 0, 1]
    folder.write()
    result = run("show", *overrides(folder))
    assert result.exit_code == 0, result.output
    rows = {" ".join(line.split()[:-2]): line.split()[-2:] for line in result.output.splitlines() if line}
    assert rows["images"] == ["5", "5"]
    assert rows["without annotations"] == ["2", "2"]
    assert rows["crowd regions"] == ["2", "2"]
    assert rows["broken annotations"] == ["1", "1"]
    assert rows["3 three"] == ["1", "1"]


def test_check_of_a_folder_that_is_not_there_is_one_message(tmp_path: Path) -> None:
    result = run("check", "data=coco_folder", f"data.root={tmp_path / 'none'}")
    assert isinstance(result.exception, UserError)
    assert "none" in result.exception.what
    assert result.exception.hint
    assert result.output == ""


@pytest.mark.parametrize("name", ["nuclei-dsb2018", "coco-mini"])
def test_real_sets_are_sound(shared: Path, name: str) -> None:
    result = run("check", "data=coco_folder", f"data.root={shared / 'data' / name}", "--decode")
    assert result.exit_code == 0, result.output
    assert "no problems" in result.output


def test_the_embedded_set_is_sound() -> None:
    result = run("check", "data.shapes.train_images=40", "data.shapes.val_images=10", "data.shapes.crowd=0.5")
    assert result.exit_code == 0, result.output
    assert "no problems found\n" in result.output


def test_keypoints_of_real_people_are_sound(shared: Path) -> None:
    files = [f"data.{split}.annotations=annotations/person_keypoints_{split}.json" for split in ("train", "val")]
    places = [f"data.root={shared / 'data' / 'coco-mini'}", "model=keypoint_rcnn_r50_fpn"]
    result = run("check", "data=coco_folder", *files, *places)
    assert result.exit_code == 0, result.output


def test_sample_writes_a_sheet(folder, tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    result = run("sample", *overrides(folder), "--count", "9", "--columns", "3", "--side", "64", "-o", str(path))
    assert result.exit_code == 0, result.output
    assert Image.open(path).size == (3 * 68 + 4, 2 * 68 + 4)
    wrong = run("sample", *overrides(folder), "--split", "test")
    assert "no split 'test'" in str(wrong.exception)


def test_sample_shows_what_a_training_sees(folder, tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    arguments = [*overrides(folder), "augmentation=copy_paste", "augmentation.jitter_size=64", "--augmented"]
    result = run("sample", *arguments, "--count", "6", "--columns", "3", "--side", "64", "-o", str(path))
    assert result.exit_code == 0, result.output
    assert "the first 6 pictures of the training" in result.output
    assert Image.open(path).size == (3 * 68 + 4, 2 * 68 + 4)
    wrong = run("sample", *arguments, "--split", "val")
    assert "train split only" in str(wrong.exception)
