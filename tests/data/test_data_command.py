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


def test_check_passes_a_sound_set_and_lists_what_is_wrong(folder) -> None:
    assert run("check", *overrides(folder)).exit_code == 0
    folder.content["annotations"][4]["bbox"] = [0, 0, 0, 1]
    folder.content["annotations"][2]["category_id"] = 4
    folder.write()
    (folder.root / "images" / "val" / "1.png").unlink()
    result = run("check", *overrides(folder))
    assert result.exit_code == 2
    assert "zero width or height" in result.output
    assert "category id 4" in result.output
    assert "1 of 5 image files are missing" in result.output
    assert "3 problems" in result.output
    assert result.output.count("data.on_error=skip") == 1
    assert "fetch what is missing" in result.output


def test_check_of_a_folder_that_is_not_there_is_one_message(tmp_path: Path) -> None:
    result = run("check", "data=coco_folder", f"data.root={tmp_path / 'none'}")
    assert isinstance(result.exception, UserError)
    assert "none" in result.exception.what
    assert result.exception.hint
    assert result.output == ""


@pytest.mark.parametrize("name", ["nuclei-dsb2018", "coco-mini"])
def test_real_sets_are_sound(shared: Path, name: str) -> None:
    result = run("check", "data=coco_folder", f"data.root={shared / 'data' / name}")
    assert result.exit_code == 0, result.output
    assert "no problems" in result.output


def test_sample_writes_a_sheet(folder, tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    result = run("sample", *overrides(folder), "--count", "9", "--columns", "3", "--side", "64", "-o", str(path))
    assert result.exit_code == 0, result.output
    assert Image.open(path).size == (3 * 68 + 4, 2 * 68 + 4)
    wrong = run("sample", *overrides(folder), "--split", "test")
    assert "no split 'test'" in str(wrong.exception)
