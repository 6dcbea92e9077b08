"""Sheets of pictures with what is annotated in them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from mrbench.data.coco import CocoDataset
from mrbench.data.contact_sheet import _label, contact_sheet


@pytest.fixture
def written(monkeypatch) -> list[tuple[float, float, float, float]]:
    """Where names were written: left, top, right, bottom."""
    found = []
    text = ImageDraw.ImageDraw.text

    def watched(pen, place, name, **style) -> None:
        found.append(pen.textbbox(place, name, stroke_width=1))
        text(pen, place, name, **style)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", watched)
    return found


def test_names_do_not_lie_on_one_another(written) -> None:
    """Three boxes at one place have two for a name, and a fourth elsewhere has its own."""
    boxes = np.array([[10, 10, 110, 110]] * 3 + [[150, 10, 190, 50]], dtype=float)
    _label(Image.new("RGB", (200, 200)), boxes, ["one", "two", "three", "four"], [(255, 0, 0)] * 4)
    assert len(written) == 3
    for i, a in enumerate(written):
        for b in written[:i]:
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_a_name_at_the_border_is_whole(written) -> None:
    """At the right, at the foot and in the corners: as many white pixels as of the name in the middle."""
    size, name = 120, "traffic light"
    white = []
    for left, top in ((40, 40), (110.7, 40), (40, 115.5), (111.3, 116), (-5, -3)):
        picture = _label(
            Image.new("RGB", (size, size)), np.array([[left, top, left + 8, top + 4]]), [name], [(255, 0, 0)]
        )
        white.append(int((np.array(picture) == 255).all(2).sum()))
        x1, y1, x2, y2 = written[-1]
        assert min(x1, y1) >= 0
        assert max(x2, y2) <= size
    assert white == white[:1] * 5


def _sheet_of(folder: Path, labels: list[int], names: list[str]) -> np.ndarray:
    """Of one black picture of 200 x 20 pixels, with a square of 10 pixels every 20 pixels; crowds are labelled -1."""
    Image.new("RGB", (200, 20)).save(folder / "a.png")
    nothing = {"size": [20, 200], "counts": [4000]}
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 200, "height": 20}],
        "categories": [{"id": 1 + n, "name": name} for n, name in enumerate(names)],
        "annotations": [
            {"id": 1 + n, "image_id": 1, "category_id": max(label, 0) + 1, "bbox": [20 * n, 5, 10, 10], "area": 100}
            | {"iscrowd": int(label < 0)}
            | {"segmentation": [[x, 5, x + 10, 5, x + 10, 15, x, 15]] if label >= 0 else nothing}
            for n, label in enumerate(labels)
            for x in [20 * n]
        ],
    }
    (folder / "a.json").write_text(json.dumps(content))
    return np.asarray(contact_sheet(CocoDataset(folder / "a.json", folder), [0], 1, 200))


def _edges(sheet: np.ndarray, count: int, top: int) -> list[tuple[int, ...]]:
    """The colours of the boxes' left edges, near their feet."""
    return [tuple(sheet[top + 14, 4 + 20 * n].tolist()) for n in range(count)]


def test_instances_of_the_only_class_differ_in_colour_and_its_name_is_the_title(tmp_path: Path, written) -> None:
    sheet = _sheet_of(tmp_path, [0] * 9, ["nucleus"])
    assert len(set(_edges(sheet, 9, sheet.shape[0] - 204))) == 9
    assert [y < 20 for _, _, _, y in written] == [True], "one name, above the pictures"
    assert (sheet[:17] != 255).any()


def test_a_class_keeps_its_colour_and_its_instances_differ_in_shade_until_they_are_many(
    tmp_path: Path, written
) -> None:
    names = ["one", "two", "three"]
    few = _edges(_sheet_of(tmp_path, [0, 1, 0, -1], names), 4, 4)
    assert len(set(few)) == 4
    assert few[3] == (128, 128, 128)
    others = _edges(_sheet_of(tmp_path, [1, 2, 0], names), 3, 4)
    assert (others[0], others[2]) == (few[1], few[0])
    many = _edges(_sheet_of(tmp_path, [0] * 9, names), 9, 4)
    assert len(set(many)) == 9
    assert written
