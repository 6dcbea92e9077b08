"""COCO's run-length encoding of an instance straight from its mask probabilities and box.

The encoding looks at the pixels of the box's own window only; a full-size picture of each instance, which is
what makes mask evaluation slow, is never drawn.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle_api

Array = NDArray[Any]


def encode_instance(
    probabilities: Array, box: Sequence[float] | Array, height: int, width: int, threshold: float = 0.5
) -> dict[str, Any]:
    """Compressed RLE, `{"size": [height, width], "counts": str}`, of one instance.

    `probabilities` [M, M] lie inside `box` (xyxy, pixels of the height x width image) and are sampled bilinearly at
    pixel centres, zero outside the box; a pixel belongs to the instance from `threshold` on. Same pixels as
    `detectron2.layers.mask_ops._do_paste_mask`; same bytes as encoding that picture with pycocotools.
    """
    window, y0, x0 = paste_window(probabilities, box, height, width, threshold)
    starts, ends = _runs(window, y0, x0, height)
    counts = np.empty(2 * len(starts) + 1, np.int64)
    edges = np.stack([starts, ends], 1).ravel()
    counts[0] = edges[0] if len(edges) else height * width
    counts[1:-1] = np.diff(edges)
    if len(edges):
        counts[-1] = height * width - edges[-1]
        if counts[-1] == 0:  # the instance ends with the picture: there is no last run of background
            counts = counts[:-1]
    rle = rle_api.frPyObjects({"size": [height, width], "counts": counts.tolist()}, height, width)
    return {"size": [height, width], "counts": rle["counts"].decode("ascii")}


def paste_window(
    probabilities: Array, box: Sequence[float] | Array, height: int, width: int, threshold: float
) -> tuple[Array, int, int]:
    """Where the instance is inside its own window: bool [columns, rows], and the window's top and left pixel."""
    x1, y1, x2, y2 = (np.float32(value) for value in box)
    size = probabilities.shape[0]
    if not (x2 > x1 and y2 > y1):
        return np.zeros((0, 0), bool), 0, 0
    columns, left = _sample_points(x1, x2, size, width, threshold)
    rows, top = _sample_points(y1, y2, size, height, threshold)
    padded = np.pad(np.asarray(probabilities, np.float32), 1)
    # Transposed on the way, because COCO's runs go down the columns.
    picture = _interpolate(_interpolate(padded, rows).T, columns)
    return picture >= np.float32(threshold), top, left


def _sample_points(low: np.float32, high: np.float32, size: int, limit: int, threshold: float) -> tuple[Array, int]:
    """Positions [n] on the mask's grid of the pixels that the box can touch, and the first such pixel.

    Outside the box a mask fades to zero within half a cell, where it is below 0.5; lower thresholds see that rim.
    In float32 and in the order of Detectron2 and grid_sample, so that pixels at the threshold fall alike.
    """
    margin = 1.0 if threshold >= 0.5 else 1.0 + float(high - low) / (2 * size)
    first = min(max(math.floor(float(low) - margin), 0), limit)
    last = max(min(math.ceil(float(high) + margin), limit), first)
    grid = (np.arange(first, last, dtype=np.float32) + np.float32(0.5) - low) / (high - low) * np.float32(2)
    grid -= np.float32(1)
    return ((grid + np.float32(1)) * np.float32(size) - np.float32(1)) / np.float32(2), first


def _interpolate(padded: Array, positions: Array) -> Array:
    """Linear interpolation of the rows of `padded` (one row of zeros on each side) at positions of the inner rows."""
    below = np.clip(np.floor(positions), -1, padded.shape[0] - 3).astype(np.int64)
    share = np.clip(positions - below, 0, 1).astype(np.float32)[:, None]
    return padded[below + 1] * (np.float32(1) - share) + padded[below + 2] * share


def _runs(window: Array, y0: int, x0: int, height: int) -> tuple[Array, Array]:
    """First and one-past-last position, in the column-major full picture, of each run of the instance."""
    columns, rows = window.shape
    padded = np.zeros((columns, rows + 2), np.int8)
    padded[:, 1:-1] = window
    step = np.diff(padded, axis=1)
    column, row = np.nonzero(step == 1)
    starts = (column + x0) * height + row + y0
    column, row = np.nonzero(step == -1)
    ends = (column + x0) * height + row + y0
    # A run that reaches the bottom goes on in the next column when that begins with the instance.
    joined = ends[:-1] == starts[1:]
    return starts[np.r_[True, ~joined][: len(starts)]], ends[np.r_[~joined, True][: len(ends)]]
