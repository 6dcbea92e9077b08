"""From an annotation's segmentation to its bitmap in the network's picture, only as large as the instance.

Polygons are moved to the network's pixels first and rasterised last; run-length encodings are decoded and sampled
at the pixels that are needed. Both equal rasterising the whole resized picture, cropping and flipping it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from pycocotools import mask as coco_mask

from mrbench.data.augmentation import Plan
from mrbench.data.segmentation import Segmentation


class Window(NamedTuple):
    """A mask's smallest bitmap: no row or column at its border is empty."""

    bitmap: np.ndarray  # uint8 [h, w] of 0 and 1
    y: int  # of its first pixel in the network's picture
    x: int

    @property
    def box(self) -> tuple[int, int, int, int]:
        """xyxy"""
        height, width = self.bitmap.shape
        return self.x, self.y, self.x + width, self.y + height


def place_mask(segmentation: Segmentation, plan: Plan) -> Window | None:
    """The instance in the network's picture; None where not one pixel of it is left."""
    if isinstance(segmentation, dict):
        window = _sample_rle(segmentation, plan)
    else:
        window = _rasterise([np.asarray(p, dtype=np.float64).reshape(-1, 2) for p in segmentation], plan)
    return None if window is None else tighten(window)


def tighten(window: Window) -> Window | None:
    """The window without empty rows and columns at its border; None where it is all empty."""
    rows = np.flatnonzero(window.bitmap.any(axis=1))
    columns = np.flatnonzero(window.bitmap.any(axis=0))
    if len(rows) == 0:
        return None
    bitmap = window.bitmap[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return Window(bitmap, window.y + int(rows[0]), window.x + int(columns[0]))


def summed_area_table(bitmap: np.ndarray, out: np.ndarray) -> None:
    """Writes the summed-area table of a bitmap [h, w] into `out`, int32 [h + 1, w + 1]."""
    out[0] = 0
    out[1:, 0] = 0
    # torch's running sums take half the time of numpy's.
    columns = torch.cumsum(torch.from_numpy(bitmap), dim=0, dtype=torch.int32)
    torch.cumsum(columns, dim=1, out=torch.from_numpy(out[1:, 1:]))


def _rasterise(polygons: Sequence[np.ndarray], plan: Plan) -> Window | None:
    polygons = [plan.points(p) for p in polygons]
    corners = np.concatenate(polygons)
    low = np.maximum(np.floor(corners.min(axis=0)), 0).astype(int)
    high = np.minimum(np.ceil(corners.max(axis=0)), [plan.size[1], plan.size[0]]).astype(int)
    width, height = (high - low).tolist()
    if width <= 0 or height <= 0:
        return None
    shifted = [_fifths(p, low).ravel().tolist() for p in polygons]
    rles = coco_mask.frPyObjects(shifted, height, width)
    bitmap = coco_mask.decode(rles[0] if len(rles) == 1 else coco_mask.merge(rles))
    return Window(bitmap, int(low[1]), int(low[0]))


def _fifths(points: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Points relative to `origin`, such that the COCO API rounds them as it would those of the whole picture.

    `rleFrPoly` works in fifths of a pixel and rounds by adding a half and cutting off, which goes the other way
    below zero: there a point is given a fifth less, which cutting off gives back.
    """
    fifths = np.floor(points * 5 + 0.5) - origin * 5
    return (fifths - (fifths < 0)) / 5


def _sample_rle(rle: dict, plan: Plan) -> Window | None:
    x, y, w, h = coco_mask.toBbox(rle)
    if w == 0 or h == 0:
        return None
    left, top, right, bottom = plan.boxes(np.array([[x, y, x + w, y + h]]))[0]
    # One pixel more on each side: the nearest pixel may be one that the scaled box does not quite reach.
    columns = np.arange(max(int(left) - 1, 0), min(int(right) + 2, plan.size[1]))
    rows = np.arange(max(int(top) - 1, 0), min(int(bottom) + 2, plan.size[0]))
    if len(columns) == 0 or len(rows) == 0:
        return None
    kept = plan.size[1] - 1 - columns if plan.flip else columns
    # The nearest pixel's number is the floor of (i + 1/2) * original / resized, in whole numbers because that often is
    # exactly between two pixels.
    from_y = (2 * (rows + plan.crop[0]) + 1) * plan.original[0] // (2 * plan.resized[0])
    from_x = (2 * (kept + plan.crop[1]) + 1) * plan.original[1] // (2 * plan.resized[1])
    full = coco_mask.decode(rle)
    # The COCO API lays masks out column by column.
    bitmap = full.T[from_x[:, None], from_y[None, :]].T
    return Window(bitmap, int(rows[0]), int(columns[0]))
