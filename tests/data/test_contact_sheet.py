"""Sheets of pictures with what is annotated in them."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from mrbench.data.contact_sheet import _label


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
