"""What a COCO `segmentation` may be: polygons or run-length encoding, checked when a data set is opened."""

import math
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from mrbench.data.broken import Broken

Segmentation = list[list[float]] | dict[str, Any]  # polygons [x, y, x, y, ...], or {"size": [h, w], "counts": str}


def check_segmentation(segmentation: Any, height: int, width: int) -> Segmentation | None:
    """The segmentation in one of two forms. Raises Broken.

    Uncompressed run-length encoding becomes compressed. An absent or empty segmentation is None: a data set for
    detection alone has none. `height`, `width`: of the image, pixels.
    """
    if segmentation is None or segmentation == []:
        return None
    if isinstance(segmentation, list):
        _check_polygons(segmentation)
        return segmentation
    if isinstance(segmentation, dict):
        return _check_rle(segmentation, height, width)
    raise Broken("segmentation-form", f"segmentation is neither a list of polygons nor RLE: {segmentation!r:.40}")


def _check_polygons(polygons: list[Any]) -> None:
    for polygon in polygons:
        if not isinstance(polygon, list):
            raise Broken("segmentation-form", f"a polygon is not a list of numbers: {polygon!r:.40}")
        if len(polygon) < 6:
            raise Broken("polygon-points", f"polygon with {len(polygon)} numbers (3 points, 6 numbers, are the least)")
        if len(polygon) % 2:
            raise Broken("polygon-odd", f"polygon with an odd number of numbers ({len(polygon)})")
        try:
            total = math.fsum(polygon)
        except (TypeError, ValueError, OverflowError):
            raise Broken("polygon-number", "polygon with something that is not a finite number") from None
        if not math.isfinite(total):
            raise Broken("polygon-number", "polygon with NaN or infinity")


def _check_rle(rle: dict[str, Any], height: int, width: int) -> Segmentation:
    counts, size = rle.get("counts"), rle.get("size")
    if size != [height, width]:
        raise Broken("rle-size", f"RLE of the wrong size: {size}, but the image is {[height, width]} (height, width)")
    if isinstance(counts, list):
        if not all(isinstance(c, int) and c >= 0 for c in counts):
            raise Broken("rle-counts", "RLE counts are not whole numbers from 0")
        lengths = np.asarray(counts, dtype=np.int64)
    elif isinstance(counts, str):
        try:
            lengths = run_lengths(counts)
        except ValueError as error:
            raise Broken("rle-counts", str(error)) from None
    else:
        raise Broken("rle-counts", "RLE without counts")
    if len(lengths) == 0 or lengths.min() < 0 or lengths.sum() != height * width:
        raise Broken(
            "rle-counts",
            f"RLE of the wrong size: its runs hold {lengths.sum()} pixels, the image has {height * width}",
        )
    if isinstance(counts, list):
        counts = coco_mask.frPyObjects({"size": size, "counts": counts}, height, width)["counts"].decode()
    return {"size": size, "counts": counts}


def run_lengths(counts: str) -> np.ndarray:
    """Lengths int64 of the runs, outside and inside by turns, of COCO's compressed RLE string.

    Written after `rleFrString` of the COCO API's maskApi.c, which does not check its input: five bits a character
    with a continuation bit, and each run after the third as the difference to the one before the last.
    Raises ValueError where the string is not such an encoding.
    """
    try:
        code = np.frombuffer(counts.encode("ascii"), dtype=np.uint8).astype(np.int64) - 48
    except UnicodeEncodeError:
        raise ValueError("RLE counts with characters outside the encoding") from None
    if len(code) == 0 or code.min() < 0 or code.max() > 63 or code[-1] & 32:
        raise ValueError("RLE counts are broken or cut off")
    last = (code & 32) == 0
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    digits = ends - starts + 1
    if digits.max() > 7:
        raise ValueError("RLE counts are broken: a run is longer than any image")
    place = np.arange(len(code)) - np.repeat(starts, digits)
    values = np.add.reduceat((code & 31) << (5 * place), starts)
    values -= np.where(code[ends] & 16, 1 << (5 * digits), 0)  # the sign bit of the last digit
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values
