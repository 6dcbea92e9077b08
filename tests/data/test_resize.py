"""The part of a resized picture, against resizing the whole one in double precision."""

import numpy as np
import pytest
from PIL import Image

from mrbench.data.resize import resize_crop


def weights(original: int, resized: int) -> np.ndarray:
    """[resized, original]: a triangle as wide as the reduction around each new pixel's centre, cut at the border."""
    reach = max(original / resized, 1.0)
    centres = (np.arange(resized) + 0.5) * original / resized
    distance = np.abs(np.arange(original) + 0.5 - centres[:, None])
    found = np.maximum(1 - distance / reach, 0)
    return found / found.sum(axis=1, keepdims=True)


def resize_all(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    rows, columns = weights(pixels.shape[0], height), weights(pixels.shape[1], width)
    return np.einsum("hy,yxc,wx->hwc", rows, pixels.astype(np.float64), columns, optimize=True)


@pytest.mark.parametrize("seed", range(40))
def test_a_part_equals_that_of_the_whole_within_rounding(seed: int) -> None:
    random = np.random.default_rng(seed)
    original = random.integers(1, 90, 2)
    pixels = random.integers(0, 256, (*original, 3), dtype=np.uint8)
    # Every fifth is hardly resized at all, where a part could be taken for the whole.
    resized = original + random.integers(0, 3, 2) if seed % 5 == 0 else random.integers(1, 180, 2)
    size = [int(random.integers(1, r + 1)) for r in resized]
    crop = [int(random.integers(0, r - s + 1)) for r, s in zip(resized, size, strict=True)]
    found = resize_crop(pixels, tuple(map(int, resized)), tuple(crop), tuple(size))
    assert found.dtype == np.uint8
    exact = resize_all(pixels, *resized)[crop[0] : crop[0] + size[0], crop[1] : crop[1] + size[1]]
    # Two passes that round to whole numbers, a half each, with weights of 15 bits.
    assert found.shape == exact.shape
    assert np.abs(found - exact).max() <= 1.1


def test_every_corner_of_a_large_picture_is_in_its_place() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    for resized in ((481, 641), (833, 1111), (959, 1279), (960, 1280), (101, 135)):
        size = (min(resized[0], 96), min(resized[1], 96))
        whole = np.asarray(Image.fromarray(pixels).resize(resized[::-1], Image.Resampling.BILINEAR)).astype(int)
        for y in {0, (resized[0] - size[0]) // 3, resized[0] - size[0]}:
            for x in {0, (resized[1] - size[1]) // 3, resized[1] - size[1]}:
                part = resize_crop(pixels, resized, (y, x), size)
                assert np.abs(part - whole[y : y + size[0], x : x + size[1]]).max() <= 1
