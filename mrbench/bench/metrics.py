"""What is timed in mode eval: COCO's metrics of stated detections, without detecting anything."""

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from mrbench.bench.workload import Prepared, Workload
from mrbench.config.schema import RunConfig
from mrbench.data.sources import open_split
from mrbench.engine.evaluate import kinds_of
from mrbench.errors import UserError
from mrbench.evaluation.coco import evaluate
from mrbench.evaluation.results import read_ground_truth

HEIGHT, WIDTH = 480, 640  # COCO's usual picture
CLASSES = 80


def prepare_metrics(config: RunConfig, workload: Workload) -> Prepared:
    """Box, mask and keypoint metrics, those that the model has branches for, of a batch of images.

    Raises UserError where the data set cannot be read, or has fewer images.
    """
    kinds = kinds_of(config.model)
    images, most = workload.case.batch, config.model.inference.detections_per_image
    if workload.inputs == "data":
        dataset = open_split(config.data, "val")
        truth = _first(read_ground_truth(dataset.ground_truth(), kinds), images)
    else:
        truth = synthetic_truth(images, workload.instances, config.model.keypoint_head.keypoints, config.seed)
    found = stated_detections(truth, most, kinds, config.seed)
    areas, limit = config.evaluation.areas, config.evaluation.max_detections
    last: dict[str, Any] = {}

    def step() -> None:
        last.update(evaluate(truth, found, kinds, areas, limit).metrics)

    def facts() -> dict[str, Any]:
        return {
            "instances_per_image": len(truth["annotations"]) / images,
            "detections_per_image": len(found) / images,
            "kinds": kinds,
            "box_ap": last.get("box/AP"),
        }

    return Prepared(step, 1, facts)


def _first(truth: dict[str, Any], images: int) -> dict[str, Any]:
    if len(truth["images"]) < images:
        raise UserError(
            f"The data set has {len(truth['images'])} images to evaluate on, not {images}", "Lower --batch."
        )
    kept = truth["images"][:images]
    ids = {image["id"] for image in kept}
    return {**truth, "images": kept, "annotations": [a for a in truth["annotations"] if a["image_id"] in ids]}


def synthetic_truth(images: int, instances: int, keypoints: int, seed: int) -> dict[str, Any]:
    """COCO annotations of `images` pictures with `instances` octagons each, in 80 categories."""
    random = np.random.default_rng(seed)
    annotations: list[dict[str, Any]] = []
    for image in range(1, images + 1):
        for _ in range(instances):
            w, h = np.exp(random.uniform(np.log(12), np.log((0.75 * WIDTH, 0.75 * HEIGHT))))
            x, y = random.uniform(0, WIDTH - w), random.uniform(0, HEIGHT - h)
            points = np.stack(
                [random.uniform(x, x + w, keypoints), random.uniform(y, y + h, keypoints), np.full(keypoints, 2)], 1
            )
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": int(random.integers(1, CLASSES + 1)),
                    "bbox": [x, y, w, h],
                    "area": 7 / 9 * w * h,  # an octagon that cuts a third of each side off at every corner
                    "iscrowd": 0,
                    "segmentation": [_octagon(x, y, w, h)],
                    "keypoints": points.ravel().tolist(),
                    "num_keypoints": keypoints,
                }
            )
    names = [f"keypoint {k}" for k in range(keypoints)]
    categories = [{"id": k, "name": f"class {k}", "keypoints": names} for k in range(1, CLASSES + 1)]
    pictures = [{"id": k, "width": WIDTH, "height": HEIGHT} for k in range(1, images + 1)]
    return {"images": pictures, "annotations": annotations, "categories": categories}


def _octagon(x: float, y: float, w: float, h: float) -> list[float]:
    across, down = (1 / 3, 2 / 3, 1, 1, 2 / 3, 1 / 3, 0, 0), (0, 0, 1 / 3, 2 / 3, 1, 1, 2 / 3, 1 / 3)
    return [value for a, d in zip(across, down, strict=True) for value in (x + a * w, y + d * h)]


def stated_detections(truth: dict[str, Any], number: int, kinds: list[str], seed: int) -> list[dict[str, Any]]:
    """COCO results: `number` an image, its instances in turn with boxes that are off by some percent of their sides,
    half of them of another category."""
    random = np.random.default_rng(seed + 1)
    of_image: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in truth["images"]}
    for annotation in truth["annotations"]:
        of_image[annotation["image_id"]].append(annotation)
    categories = [category["id"] for category in truth["categories"]]
    found = []
    for image in truth["images"]:
        instances = [a for a in of_image[image["id"]] if not a.get("iscrowd")]
        for k in range(number if instances else 0):
            annotation = instances[k % len(instances)]
            x, y, w, h = np.array(annotation["bbox"]) * 1.0
            dx, dy, dw, dh = random.normal(0, 0.08, 4)
            x, y, w, h = x + dx * w, y + dy * h, w * np.exp(dw), h * np.exp(dh)
            other = random.random() < 0.5
            entry: dict[str, Any] = {
                "image_id": image["id"],
                "category_id": categories[random.integers(len(categories))] if other else annotation["category_id"],
                "bbox": [float(x), float(y), float(w), float(h)],
                "score": float(random.random()),
            }
            if "mask" in kinds:
                [rle] = coco_mask.frPyObjects([_octagon(x, y, w, h)], image["height"], image["width"])
                entry["segmentation"] = {"size": rle["size"], "counts": rle["counts"].decode()}
            if "keypoint" in kinds:
                entry["keypoints"] = list(annotation["keypoints"])
            found.append(entry)
    return found
