"""A model's detections on a data set, as COCO results, spread over the processes of a job."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed

from mrbench.data.batch import Batch
from mrbench.data.coco import CocoDataset
from mrbench.evaluation.rle import encode_instance
from mrbench.modeling.detector import Detections, MaskRCNN


def detect_dataset(
    model: MaskRCNN,
    dataset: CocoDataset,
    loader: Iterable[Batch],
    device: torch.device | str = "cpu",
    autocast_context: Callable[[], AbstractContextManager[Any]] = nullcontext,
    progress: Callable[[int], None] | None = None,
    mask_threshold: float = 0.5,
) -> list[dict[str, Any]]:
    """COCO results of the images that `loader` gives, in order of image id and falling score.

    `autocast_context` makes the context in which the model runs; `progress` is called with the number of images
    done. The model is left in the mode (train or eval) it came in. Call `gather` on what each process returns.
    """
    training = model.training
    model.eval()
    results: list[dict[str, Any]] = []
    done = 0
    categories = [category.id for category in dataset.categories]
    try:
        for batch in loader:
            with torch.inference_mode(), autocast_context():
                detections = model.detect(batch.to(torch.device(device), non_blocking=True))
            sizes = batch.original_sizes.tolist()
            for image_id, (height, width), found in zip(batch.image_ids, sizes, detections, strict=True):
                results.extend(coco_results(found, image_id, height, width, categories, mask_threshold))
            done += len(detections)
            if progress is not None:
                progress(done)
    finally:
        model.train(training)
    return in_order(results)


def coco_results(
    found: Detections,
    image_id: int,
    height: int,
    width: int,
    categories: Sequence[int],
    mask_threshold: float = 0.5,
) -> list[dict[str, Any]]:
    """One image's detections as the COCO server takes them: bbox xywh in pixels, segmentation as compressed RLE,
    keypoints as x, y, score of each."""
    boxes = found.boxes.float().cpu().numpy()
    scores = found.scores.float().cpu().numpy().astype(np.float64)
    labels = found.labels.cpu().tolist()
    masks = None if found.masks is None else found.masks.float().cpu().numpy()
    keypoints = None if found.keypoints is None else _on_pixels(found.keypoints)
    corner_and_size = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1).astype(np.float64)
    results = []
    for index, label in enumerate(labels):
        result: dict[str, Any] = {
            "image_id": image_id,
            "category_id": categories[label],
            "bbox": np.round(corner_and_size[index], 3).tolist(),
            "score": round(float(scores[index]), 7),
        }
        if masks is not None:
            result["segmentation"] = encode_instance(masks[index], boxes[index], height, width, mask_threshold)
        if keypoints is not None:
            result["keypoints"] = np.round(keypoints[index], 3).ravel().tolist()
        results.append(result)
    return results


def _on_pixels(keypoints: torch.Tensor) -> NDArray[np.float64]:
    """Keypoints [N, K, 3] as COCO numbers them, by the pixel they lie on, whose centre is half a pixel further."""
    return keypoints.cpu().numpy().astype(np.float64) - [0.5, 0.5, 0.0]


def in_order(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sorted by image id and falling score, so that the number of processes does not show."""
    return sorted(results, key=lambda item: (item["image_id"], -item["score"]))


def gather(results: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """The results of all processes on process 0, in order; None on the others. Without processes: the results."""
    if not distributed.is_available() or not distributed.is_initialized() or distributed.get_world_size() == 1:
        return in_order(results)
    rank = distributed.get_rank()
    parts: list[Any] | None = [None] * distributed.get_world_size() if rank == 0 else None
    distributed.gather_object(results, parts, dst=0)
    return None if parts is None else in_order([item for part in parts for item in part])
