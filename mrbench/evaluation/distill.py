"""A model's confident detections as annotations to train on (data distillation, Radosavovic et al. 2018)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as rle_api

from mrbench.data.entries import Category, ImageInfo

SEEN = 2  # COCO's visibility of a keypoint in sight


def threshold_for(scores: Sequence[float], wanted: float) -> float:
    """The score from which on `wanted` of the detections with these scores are kept, to the nearest whole number.

    All of those of one score are kept or none of them. Where there are too few, the lowest score; 1 without any.
    """
    if not len(scores):
        return 1.0
    values, counts = np.unique(np.asarray(scores), return_counts=True)
    kept = counts[::-1].cumsum()[::-1]  # from each value on
    return float(values[np.abs(kept - wanted).argmin()])


def usable(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of COCO's results that can be annotations: whose box, and mask where they have one, is not empty."""
    return [
        item
        for item in results
        if min(item["bbox"][2:]) > 0 and ("segmentation" not in item or rle_api.area(item["segmentation"]) > 0)
    ]


def as_annotations(
    results: Sequence[dict[str, Any]],
    images: Sequence[ImageInfo],
    categories: Sequence[Category],
    threshold: float,
    info: dict[str, Any],
) -> dict[str, Any]:
    """The content of a COCO file of all `images`, with the results of `threshold` and more as annotations.

    An annotation has the score it was kept for. Keypoints are all in sight: a model does not tell which are hidden.
    """
    kept = [item for item in results if item["score"] >= threshold]
    return {
        "info": info,
        "images": [{"id": i.id, "file_name": i.file.name, "width": i.width, "height": i.height} for i in images],
        "annotations": [_annotation(number, item) for number, item in enumerate(kept, 1)],
        "categories": [
            {"id": c.id, "name": c.name, **({"keypoints": list(c.keypoints)} if c.keypoints else {})}
            for c in categories
        ],
    }


def _annotation(number: int, item: dict[str, Any]) -> dict[str, Any]:
    mask = item.get("segmentation")
    found = {
        **{key: item[key] for key in ("image_id", "category_id", "bbox", "score")},
        "id": number,
        "area": float(item["bbox"][2] * item["bbox"][3] if mask is None else rle_api.area(mask)),
        "iscrowd": 0,
    }
    if mask is not None:
        found["segmentation"] = mask
    if "keypoints" in item:
        points = np.array(item["keypoints"]).reshape(-1, 3)
        points[:, 2] = SEEN
        found |= {"keypoints": points.ravel().tolist(), "num_keypoints": len(points)}
    return found
