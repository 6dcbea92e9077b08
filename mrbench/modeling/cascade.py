"""Cascade R-CNN (Cai & Vasconcelos 2018): box heads in a row, each on the boxes of the one before."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mrbench.config.schema import RoIConfig
from mrbench.modeling import boxes as box_ops
from mrbench.modeling.box_head import BoxHead, box_losses
from mrbench.modeling.losses import LossTerm
from mrbench.modeling.roi_samples import RoIs, rematch

Pool = Callable[[Tensor, Tensor], Tensor]


class CascadeHead(nn.Module):
    """As Detectron2's modeling/roi_heads/cascade_rcnn.py, over all images at once.

    stages: class-agnostic heads. ious: the overlap from which on a box is foreground to each; the first is that by
    which the regions were sampled. Deltas grow smaller from stage to stage, so their weights grow: stage n's are n
    times `roi.box_weights`, (10, 10, 5, 5), (20, 20, 10, 10), (30, 30, 15, 15).

    The mask branch trains on the regions that the first stage was given, and looks at the boxes of the last when it
    is tested (Detectron2 again; Cai & Vasconcelos 2021 also try others).
    """

    def __init__(self, stages: Sequence[BoxHead], ious: Sequence[float], roi: RoIConfig) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.num_classes = stages[0].num_classes
        self.ious = list(ious)
        self.weights = [[number * w for w in roi.box_weights] for number in range(1, len(self.ious) + 1)]
        self.smooth_l1_beta = roi.smooth_l1_beta

    def forward(self, pool: Pool, boxes: Tensor, image: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of regions `boxes` [R, 4] of images `image` [R] with `sizes` [B, 2]: the logarithm of the stages' mean
        probabilities [R, K + 1], whose softmax they are; the last stage's deltas [R, 1, 4]; and the boxes [R, 4] to
        which these apply. `pool` gives the features of boxes and images."""
        probabilities = []
        moved = boxes
        for stage, weights in zip(self.stages, self.weights, strict=True):
            boxes = moved
            logits, deltas = stage(pool(boxes, image))
            probabilities.append(logits.softmax(1))
            moved = self._moved(boxes, deltas[:, 0], weights, sizes[image])
        return torch.stack(probabilities).mean(0).log(), deltas, boxes

    def losses(
        self, pool: Pool, rois: RoIs, boxes: Tensor, labels: Tensor, sizes: Tensor, compact: bool
    ) -> dict[str, LossTerm]:
        """box_class_1, box_regression_1, and so on for every stage, each over the boxes that it was given.

        rois: those of the first stage. boxes [B, G, 4], labels [B, G]: the ground truth, padded with label -1; sizes
        [B, 2] of the images. compact: boxes that have left their picture go at once, not only out of the losses.
        """
        terms: dict[str, LossTerm] = {}
        moved = rois.boxes
        for number, (stage, iou, weights) in enumerate(zip(self.stages, self.ious, self.weights, strict=True), 1):
            if number > 1:
                rois = rematch(moved, rois, boxes, labels, iou, self.num_classes)
                rois = rois.only(rois.used) if compact else rois
            # The original averages the stages' losses and learns faster in the heads; here losses are added up, and
            # what reaches the features is averaged.
            pooled = _ScaledGradient.apply(pool(rois.boxes, rois.image), 1 / len(self.stages))
            logits, deltas = stage(pooled)
            delta, target = deltas[:, 0], box_ops.encode(rois.boxes, rois.truth, weights)
            of_stage = box_losses(logits, delta, rois.labels, target, rois.used, rois.foreground, self.smooth_l1_beta)
            terms |= {f"{name}_{number}": term for name, term in of_stage.items()}
            moved = self._moved(rois.boxes, delta.detach(), weights, sizes[rois.image])
        return terms

    @staticmethod
    def _moved(boxes: Tensor, deltas: Tensor, weights: Sequence[float], sizes: Tensor) -> Tensor:
        """boxes, deltas [R, 4], sizes [R, 2] -> boxes [R, 4] inside their pictures, zero where not finite."""
        moved = box_ops.clip(box_ops.decode(boxes, deltas, weights), sizes)
        return torch.where(torch.isfinite(moved).all(1, keepdim=True), moved, 0.0)


class _ScaledGradient(torch.autograd.Function):
    """The same values, with `scale` times their gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.scale, None
