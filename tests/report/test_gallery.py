"""Pictures of the report: those on which arm and baseline differ most, with what each of them found."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mrbench.report import gallery, page
from mrbench.report.build import Report, build
from mrbench.report.collect import load_study
from mrbench.report.drawing import draw


@pytest.fixture
def report(pictured: Path) -> Report:
    return build(load_study(pictured, "pictured"), resamples=0)


def test_the_largest_gain_and_the_largest_loss_come_first_and_equal_pictures_never(report: Report) -> None:
    found = gallery.gather(report, 4)
    # F1 = 2 found / (found + wrong + 4): gn 1, 0.4, 6/7, 2/3; bn 0, 6/7, 6/7, 0.4
    assert [row.name for row in found.rows] == ["2.png", "1.png", "4.png"]
    assert [row.name for row in gallery.gather(report, 1).rows] == ["2.png"]
    assert [[panel.said for panel in row.panels] for row in found.rows] == [
        ["4 instances", "1 of 4 found, 0 wrong", "3 of 4 found, 0 wrong"],
        ["4 instances", "4 of 4 found, 0 wrong", "0 of 4 found, 0 wrong"],
        ["4 instances", "2 of 4 found, 0 wrong", "1 of 4 found, 0 wrong"],
    ]
    assert [panel.title for panel in found.rows[0].panels] == ["ground truth", "gn", "bn"]


def test_panels_show_what_was_found_and_nothing_of_a_low_score(report: Report) -> None:
    row = gallery.gather(report, 1).rows[0]
    truth, base, own = (np.asarray(Image.open(io.BytesIO(panel.picture))).astype(int) for panel in row.panels)
    width = truth.shape[1]

    def marked(pixels: np.ndarray, place: tuple[int, int]) -> bool:
        """Whether the square there has another colour than the picture's middle, where nothing is."""
        factor = width / 64
        x, y = (round((value + 8) * factor) for value in place)
        return bool(np.abs(pixels[y, x] - [120, 90, 90]).max() > 25)

    places = ((4, 4), (40, 4), (4, 30), (40, 30), (22, 16))
    assert [marked(truth, place) for place in places] == [True, True, True, True, False]
    assert [marked(base, place) for place in places] == [True, False, False, False, False]
    assert [marked(own, place) for place in places] == [True, True, True, False, False]


def test_without_pictures_a_note_says_what_is_missing(pictured: Path, tmp_path: Path, demo: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(pictured, root)
    for path in root.glob("runs/*/config.yaml"):
        path.write_text(path.read_text().replace(f"root: {pictured / 'data'}", f"root: {root / 'gone'}"))
    found = gallery.gather(build(load_study(root, "pictured"), resamples=0))
    assert not found.rows
    assert "gone" in found.notes[0]
    (next(root.glob("runs/*-bn")) / "detections" / "val.json").write_text("[{]")
    shutil.copytree(pictured / "data", root / "gone")
    found = gallery.gather(build(load_study(root, "pictured"), resamples=0))
    assert not found.rows
    assert found.notes[0].startswith("No pictures:")
    bare = gallery.gather(build(load_study(demo, "demo"), resamples=0))
    assert not bare.rows
    assert "detections" in bare.notes[0]


def test_arms_that_find_the_same_have_no_pictures(pictured: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(pictured, root)
    for name in ("matches.npz", "detections/val.json"):
        shutil.copy(
            root / "runs" / "mask_rcnn_small-squares-gn" / name, root / "runs" / "mask_rcnn_small-squares-bn" / name
        )
    found = gallery.gather(build(load_study(root, "pictured"), resamples=0))
    assert not found.rows
    assert "the same" in found.notes[0]


def test_the_page_embeds_them_and_loads_nothing(report: Report) -> None:
    text = page.render(report, draw(report))
    assert text.count('src="data:image/jpeg;base64,') == 9
    assert text.count(" src=") == 9
    assert "src=" not in page.render(report, draw(report), pictures=0).partition("<script>")[0]
    assert json.dumps("2.png, gn: 1 of 4 found, 0 wrong")[1:-1] in text
