"""Sheets of pictures with what is annotated in them."""

import numpy as np
from PIL import Image, ImageDraw

from mrbench.data.contact_sheet import _label


def test_names_do_not_lie_on_one_another(monkeypatch) -> None:
    """Three boxes at one place have two for a name, and a fourth elsewhere has its own."""
    written = []
    text = ImageDraw.ImageDraw.text

    def watched(pen, place, name, **style) -> None:
        written.append(pen.textbbox(place, name, stroke_width=1))
        text(pen, place, name, **style)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", watched)
    boxes = np.array([[10, 10, 110, 110]] * 3 + [[150, 10, 190, 50]], dtype=float)
    _label(Image.new("RGB", (200, 200)), boxes, ["one", "two", "three", "four"], [(255, 0, 0)] * 4)
    assert len(written) == 3
    for i, a in enumerate(written):
        for b in written[:i]:
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
