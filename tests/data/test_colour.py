"""Colour jitter against torchvision's own."""

import numpy as np
import torch
from torchvision.transforms import v2

from mrbench.data.colour import Colours, change_colours, draw_colours

STRENGTHS = [0.4, 1.5, 0.3, 0.1]


def test_amounts_have_the_distribution_of_torchvisions() -> None:
    drawn = [draw_colours(STRENGTHS, np.random.default_rng(i)) for i in range(4000)]
    torchvision = v2.ColorJitter(*STRENGTHS)
    for place, kind in enumerate(("brightness", "contrast", "saturation", "hue")):
        low, high = getattr(torchvision, kind)
        amounts = np.sort([dict(colours.steps)[kind] for colours in drawn])
        uniform = low + (high - low) * (np.arange(4000) + 0.5) / 4000
        # Kolmogorov-Smirnov at 1 %
        assert np.abs(amounts - uniform).max() / (high - low) < 1.63 / np.sqrt(4000)
        first = np.mean([colours.steps[place][0] == kind for colours in drawn])
        assert abs(first - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 4000)


def test_a_strength_of_nothing_changes_nothing() -> None:
    colours = draw_colours([0.0, 0.5, 0.0, 0.0], np.random.default_rng(0))
    assert [kind for kind, _ in colours.steps] == ["contrast"]
    assert draw_colours([0.0] * 4, np.random.default_rng(0)).steps == ()


def test_pixels_equal_torchvisions_in_the_same_order() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    # Numbers that single precision has exactly, as torchvision draws in it.
    fixed = {"brightness": 1.25, "contrast": 0.625, "saturation": 1.375, "hue": 0.0625}
    mirrored = pixels[:, ::-1]  # a view, as plans hand it over
    expected = torch.from_numpy(mirrored.copy()).permute(2, 0, 1)
    for kind in ("hue", "contrast", "saturation", "brightness"):
        amount = fixed[kind]
        expected = v2.ColorJitter(**{kind: (amount, amount)})(expected)
    steps = tuple((kind, fixed[kind]) for kind in ("hue", "contrast", "saturation", "brightness"))
    before = pixels.copy()
    found = change_colours(mirrored, Colours(steps))
    assert np.array_equal(found, expected.permute(1, 2, 0).numpy())
    assert np.array_equal(pixels, before)
