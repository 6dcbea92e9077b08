"""From scored regions to detections: threshold, suppression class by class, the best of every image."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mrbench.config.schema import InferenceConfig
from mrbench.modeling import boxes as box_ops


@dataclass
class Detections:
    """What was found in one image, by falling score."""

    boxes: Tensor  # float32 [N, 4] xyxy in the pixels of the image file
    scores: Tensor  # float32 [N]
    labels: Tensor  # int64 [N] in 0..K-1
    masks: Tensor | None  # float32 [N, M, M]: probabilities inside the box; None without a mask branch
    keypoints: Tensor | None = None  # float32 [N, K, 3]: x, y in the file's pixels, and score; None without a branch

    def __len__(self) -> int:
        return len(self.scores)


@dataclass
class Found:
    """Scored boxes of all images in one list; as detections image by image, by falling score in each."""

    boxes: Tensor  # float32 [R, 4] in the network's pixels
    scores: Tensor  # float32 [R]
    labels: Tensor  # int64 [R]
    image: Tensor  # int64 [R]


def candidates(
    scores: Tensor,
    deltas: Tensor,
    rois: Tensor,
    image: Tensor,
    sizes: Tensor,
    weights: Sequence[float],
    config: InferenceConfig,
) -> Found:
    """Boxes of the regions and classes that score above the threshold, in no order.

    scores [R, K] and deltas [R, K or 1, 4] of regions `rois` [R, 4] of images `image` [R] with `sizes` [B, 2].
    """
    region, label = torch.nonzero(scores > config.score_threshold, as_tuple=True)
    score, image = scores[region, label], image[region]
    delta = deltas[region, label if deltas.shape[1] > 1 else torch.zeros_like(label)]
    box = box_ops.clip(box_ops.decode(rois[region], delta, weights), sizes[image])
    finite = torch.isfinite(box).all(1)
    return Found(torch.where(finite[:, None], box, 0.0), torch.where(finite, score, 0.0), label, image)


def best(found: Found, batch: int, classes: int, config: InferenceConfig) -> Found:
    """What suppression class by class leaves of the candidates in `batch` images, and of it the best of every image.

    After `candidates` as Detectron2's fast_rcnn.py, `fast_rcnn_inference_single_image`, for all images at once.
    """
    keep = box_ops.suppress(found.boxes, found.scores, found.image * classes + found.labels, config.nms_threshold)
    keep = keep[found.image[keep].argsort(stable=True)]  # by falling score within every image
    box, score, label, image = found.boxes[keep], found.scores[keep], found.labels[keep], found.image[keep]
    count = torch.zeros(batch, dtype=torch.int64, device=image.device).index_add_(0, image, torch.ones_like(image))
    rank = torch.arange(len(image), device=image.device) - (count.cumsum(0) - count)[image]
    kept = ((rank < config.detections_per_image) & (score > 0)).nonzero()[:, 0]  # once, where the host waits for it
    return Found(box[kept], score[kept], label[kept], image[kept])


def rescale(boxes: Tensor, sizes: Tensor, new_sizes: Tensor) -> Tensor:
    """Boxes [R, 4] of pictures of `sizes` [R, 2], in the same pictures at `new_sizes` [R, 2], clipped."""
    ratio = new_sizes.to(boxes.dtype) / sizes.to(boxes.dtype)
    return box_ops.clip(boxes * ratio.flip(1).repeat(1, 2), new_sizes)


def keypoints_to_original(keypoints: Tensor, sizes: Tensor, original_sizes: Tensor) -> Tensor:
    """Keypoints [R, K, 3] (x, y, score) of pictures of `sizes` [R, 2] in the pixels of files of `original_sizes`."""
    ratio = original_sizes.to(keypoints.dtype) / sizes.to(keypoints.dtype)
    return torch.cat([keypoints[..., :2] * ratio.flip(1)[:, None], keypoints[..., 2:]], -1)
