"""COCO's keypoints: what an annotation may say of them, and where they lie in the network's picture."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mrbench.data.augmentation import Plan
from mrbench.data.broken import Broken

Keypoints = tuple[float, ...]  # x, y, visibility, x, y, visibility, ...; 0 not annotated, 1 hidden, 2 in sight


def check_keypoints(keypoints: Any, names: Sequence[str]) -> Keypoints | None:
    """The keypoints. Raises Broken.

    An absent or empty list is None, and so is anything of a category that names no keypoints. `names`: of the
    category's keypoints, in their order.
    """
    if not names or keypoints is None or keypoints == []:
        return None
    if not isinstance(keypoints, list):
        raise Broken("keypoints-form", f"keypoints are not a list of numbers: {keypoints!r:.40}")
    if len(keypoints) != 3 * len(names):
        raise Broken(
            "keypoints-length",
            f"keypoints with {len(keypoints)} numbers, but its category names {len(names)}, "
            f"which makes {3 * len(names)} (x, y, visibility)",
        )
    try:
        finite = math.isfinite(math.fsum(keypoints))
    except (TypeError, ValueError, OverflowError):
        finite = False
    if not finite:
        raise Broken("keypoints-form", "keypoints with something that is not a finite number")
    strange = [v for v in keypoints[2::3] if v not in (0, 1, 2)]
    if strange:
        raise Broken("keypoints-visibility", f"a keypoint's visibility is {strange[0]!r}, not 0, 1 or 2")
    return tuple(keypoints)


def count_visible(keypoints: Keypoints | None) -> int:
    """How many are annotated, hidden ones included: what COCO calls num_keypoints."""
    return 0 if keypoints is None else sum(v > 0 for v in keypoints[2::3])


def mirror_order(names: Sequence[str]) -> list[int]:
    """For each keypoint the one that takes its place in a mirrored picture: left_* and right_* exchange theirs."""
    place = {name: i for i, name in enumerate(names)}
    return [place.get(_mirrored(name), i) for i, name in enumerate(names)]


def _mirrored(name: str) -> str:
    for side, other in (("left_", "right_"), ("right_", "left_")):
        if name.startswith(side):
            return other + name.removeprefix(side)
    return name


def place_keypoints(annotated: Sequence[Keypoints | None], names: Sequence[str], plan: Plan) -> np.ndarray:
    """Of N instances float64 [N, K, 3]: x and y in the network's picture, visibility; zeros for what is not there.

    `names`: of the keypoints, in their order; without any, K is 0. COCO numbers the pixel that a keypoint lies on, so
    its centre is half a pixel further (as Detectron2, data/datasets/coco.py, `load_coco_json`). Keypoints outside
    what the crop left are not annotated any more (detection_utils.py, `transform_keypoint_annotations`).
    """
    found = np.zeros((len(annotated), len(names), 3))
    for i, keypoints in enumerate(annotated):
        if names and keypoints is not None:
            found[i] = np.reshape(keypoints, (-1, 3))
    xy = plan.points(found[..., :2] + 0.5)
    height, width = plan.size
    inside = ((xy >= 0) & (xy <= [width, height])).all(axis=-1)
    seen = inside & (found[..., 2] > 0)
    placed = np.where(seen[..., None], np.concatenate([xy, found[..., 2:]], axis=-1), 0.0)
    return placed[:, mirror_order(names)] if plan.flip else placed
