"""Bilinear resizing with antialiasing, of the part of a picture that a crop keeps."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.functional import interpolate


class Span(NamedTuple):
    """Along one axis: what of the file's picture is resized, and which of the pixels that come out are kept."""

    first: int  # pixel of the (mirrored) picture that is read
    end: int
    skipped: int  # resized pixels before the first that is kept
    mirrored: bool  # counted from the far end, because the crop is nearer to it


def resize_crop(
    pixels: np.ndarray, resized: tuple[int, int], crop: tuple[int, int], size: tuple[int, int]
) -> np.ndarray:
    """uint8 [h, w, 3]: `size` of it from `crop` (y, x), when `pixels` uint8 [H, W, 3] are resized to `resized`.

    The algorithm is Pillow's BILINEAR (a triangle as wide as the reduction), computed by torch, which has it for
    vector units: both are within 1 of the exact value. The result may be a view with negative strides.
    """
    spans = [_span(*axis) for axis in zip(crop, size, pixels.shape[:2], resized, strict=True)]
    y, x = spans
    part = _mirror(pixels, y.mirrored, x.mirrored)[y.first : y.end, x.first : x.end]
    source = torch.from_numpy(part.copy()).permute(2, 0, 1)[None]
    # A hair more, because torch cuts the fraction of length * factor off, which rounding may put below a whole number.
    factors = [(to / original) * (1 + 1e-9) for to, original in zip(resized, pixels.shape[:2], strict=True)]
    result = interpolate(source, scale_factor=factors, mode="bilinear", antialias=True)
    kept = result[0, :, y.skipped : y.skipped + size[0], x.skipped : x.skipped + size[1]]
    return _mirror(kept.permute(1, 2, 0).numpy(), y.mirrored, x.mirrored)


def _span(crop: int, size: int, original: int, resized: int) -> Span:
    """What torch has to be given so that its resized pixels are those of the whole picture.

    torch cannot begin between two pixels, so the part begins where a border of the file's pixels is one of the
    resized pixels too; that is so every original / gcd(original, resized) pixels, and at both ends.
    """
    behind = resized - crop - size
    mirrored = behind < crop
    if mirrored:
        crop = behind
    meet = original // math.gcd(original, resized)
    reach = max(original / resized, 1.0)
    first = max(int(crop * original / resized - reach), 0) // meet * meet
    end = min(math.ceil((crop + size) * original / resized + reach), original)
    if resized > original and (end - first) * (resized - original) < original:
        # Not one pixel more would come out than goes in, and torch would take that for a copy.
        first, end = 0, original
    return Span(first, end, crop - first * resized // original, mirrored)


def _mirror(pixels: np.ndarray, vertically: bool, horizontally: bool) -> np.ndarray:
    return pixels[:: -1 if vertically else 1, :: -1 if horizontally else 1]
