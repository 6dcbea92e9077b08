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


def pixels(counts: Sequence[str | bytes]) -> Array:
    """How many pixels each compressed RLE covers: int64 [N]; the image's size when it is sound, -1 for rubbish.

    pycocotools reads past the end of runs that are too short, so this is checked before. The code is that of
    `rleFrString` in cocoapi's maskApi.c: 5 bits a character, and from the 4th number on a difference from
    the number two before.
    """
    strings = [item.encode("latin-1", "replace") if isinstance(item, str) else item for item in counts]
    blocks = [strings[start : start + 2000] for start in range(0, len(strings), 2000)]
    return np.concatenate([np.zeros(0, np.int64), *map(_pixels_of_block, blocks)])


def _pixels_of_block(strings: list[bytes]) -> Array:
    lengths = np.array([len(item) for item in strings])
    data = np.frombuffer(b"".join(strings), np.uint8).astype(np.int64) - 48
    closing = (data & 0x20) == 0
    if (lengths == 0).any() or (data >> 6).any() or not closing[np.cumsum(lengths) - 1].all():
        return np.array([_pixels_of_one(item) for item in strings])
    ends = np.flatnonzero(closing)
    starts = np.r_[0, ends[:-1] + 1]
    place = np.minimum(np.arange(len(data)) - np.repeat(starts, ends - starts + 1), 11)
    values = np.add.reduceat((data & 0x1F) << (5 * place), starts)
    values -= np.where(data[ends] & 0x10, np.int64(1) << (5 * (place[ends] + 1)), 0)
    owner = np.repeat(np.arange(len(strings)), lengths)[ends]
    index = np.arange(len(values)) - np.searchsorted(owner, owner, "left")
    totals = np.zeros(len(strings), np.int64)
    for parity in (0, 1):
        chosen = np.flatnonzero(index % 2 == parity)
        # Numbers 0, 1 and 2 are plain; behind them each is a difference from its predecessor in this chain.
        plain = index[chosen] < 3 - parity
        sums = np.cumsum(values[chosen])
        restart = np.maximum.accumulate(np.where(plain, np.arange(len(chosen)), 0))
        runs = sums - (sums - values[chosen])[restart]
        np.add.at(totals, owner[chosen], runs)
        np.minimum.at(totals, owner[chosen], np.where(runs < 0, -(1 << 60), totals[owner[chosen]]))
    return np.where(totals < 0, -1, totals)


def _pixels_of_one(string: bytes) -> int:
    runs: list[int] = []
    value = place = 0
    for byte in string:
        code = byte - 48
        if not 0 <= code < 64:
            return -1
        value |= (code & 0x1F) << (5 * place)
        place += 1
        if not code & 0x20:
            value -= (1 << (5 * place)) if code & 0x10 else 0
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = place = 0
    return sum(runs) if runs and place == 0 and min(runs) >= 0 else -1
