"""A model's detections on a data set, as COCO results, spread over the processes of a job."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mrbench.config.schema import RunConfig
from mrbench.data.batch import Batch, Views
from mrbench.data.coco import CocoDataset
from mrbench.data.loader import eval_loader, view_loader
from mrbench.evaluation.gather import gather
from mrbench.evaluation.rle import encode_instance
from mrbench.evaluation.tta import detect_views, mirrored_keypoints
from mrbench.modeling.detector import Detections, MaskRCNN

Autocast = Callable[[], AbstractContextManager[Any]]
Detect = Callable[[Any], list[Detections]]


def detect_as_configured(
    model: MaskRCNN,
    dataset: CocoDataset,
    config: RunConfig,
    device: torch.device,
    autocast_context: Autocast = nullcontext,
    progress: Callable[[int], None] | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> list[dict[str, Any]]:
    """`detect_dataset` of this process's part of the images, in one view each or, with `evaluation.tta`, in several.

    Raises UserError where views cannot be mirrored, and for pictures that do not decode.
    """
    tta, keypoints = config.evaluation.tta, config.model.keypoint_head
    threshold = config.model.inference.mask_threshold
    if not tta.enabled:
        plain = eval_loader(dataset, config, rank, world_size)
        return detect_dataset(model, dataset, plain, device, autocast_context, progress, threshold)
    mirror = mirrored_keypoints(dataset.categories, keypoints.keypoints) if keypoints.enabled and tta.flip else []
    views = view_loader(dataset, config, rank, world_size)
    detect: Detect = partial(detect_views, model, mirror=mirror, config=tta)
    return detect_dataset(model, dataset, views, device, autocast_context, progress, threshold, detect)


def detect_dataset(
    model: MaskRCNN,
    dataset: CocoDataset,
    loader: Iterable[Batch] | Iterable[Views],
    device: torch.device | str = "cpu",
    autocast_context: Autocast = nullcontext,
    progress: Callable[[int], None] | None = None,
    mask_threshold: float = 0.5,
    detect: Detect | None = None,
) -> list[dict[str, Any]]:
    """COCO results of the images that `loader` gives, in order of image id and falling score.

    `detect` makes detections of what the loader gives, by default `model.detect` does. `autocast_context` makes the
    context in which the model runs; `progress` is called with the number of images done. The model is left in the
    mode (train or eval) it came in. Call `gather_results` on what each process returns.
    """
    find: Detect = detect or model.detect
    training = model.training
    model.eval()
    results: list[dict[str, Any]] = []
    done = 0
    categories = [category.id for category in dataset.categories]
    try:
        for batch in loader:
            with torch.inference_mode(), autocast_context():
                detections = find(batch.to(torch.device(device), non_blocking=True))
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


def gather_results(results: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """The results of all processes on process 0, in order; None on the others. Without processes: the results."""
    of_all = gather(results)
    return None if of_all is None else in_order(of_all)
