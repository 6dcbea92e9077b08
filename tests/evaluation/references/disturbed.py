"""Detections with every kind of error, made from ground truth: what a detector might have said."""

from typing import Any

import numpy as np
from pycocotools import mask as rle_api


def disturbed(truth: dict[str, Any], seed: int = 0) -> list[dict[str, Any]]:
    """COCO results with boxes and masks for COCO ground truth.

    Of every instance none to three detections: moved, of the right class or a wrong one; and some on nothing. No two
    have the same score.
    """
    generator = np.random.RandomState(seed)  # its stream never changes
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    categories = sorted({item["category_id"] for item in truth["annotations"]})
    found = []
    for annotation in truth["annotations"]:
        size = sizes[annotation["image_id"]]
        x, y, w, h = annotation["bbox"]
        for _ in range(int(generator.choice([0, 1, 2, 3], p=[0.2, 0.5, 0.2, 0.1]))):
            reach = generator.choice([0.02, 0.15, 0.35])
            box = [x + reach * w * generator.normal(), y + reach * h * generator.normal(), w, h]
            box[2:] = [side * np.exp(reach * generator.normal()) for side in (w, h)]
            own = generator.random_sample() < 0.8
            found.append(
                detection(
                    annotation["image_id"],
                    annotation["category_id"] if own else int(generator.choice(categories)),
                    box,
                    size,
                )
            )
    for image, size in sizes.items():
        for _ in range(generator.randint(3)):
            corner, side = generator.random_sample(2) * size[::-1], 4 + 0.2 * generator.random_sample(2) * size[::-1]
            found.append(detection(image, int(generator.choice(categories)), [*corner, *side], size))
    scores = generator.permutation(len(found))
    return [item | {"score": (int(score) + 1) / (len(found) + 1)} for item, score in zip(found, scores, strict=True)]


def detection(image: int, category: int, box: list[float], size: tuple[int, int]) -> dict[str, Any]:
    """Without a score; the mask is the ellipse in the box."""
    x, y, w, h = (float(value) for value in box)
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    outline = np.stack([x + w / 2 * (1 + np.cos(angle)), y + h / 2 * (1 + np.sin(angle))], 1)
    rle = rle_api.merge(rle_api.frPyObjects([outline.ravel().tolist()], *size))
    return {
        "image_id": image,
        "category_id": category,
        "bbox": [x, y, w, h],
        "segmentation": {"size": list(size), "counts": rle["counts"].decode("ascii")},
    }
