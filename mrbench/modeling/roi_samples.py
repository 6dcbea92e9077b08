"""Which proposals the box and mask branches are trained on."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from mrbench.config.schema import RoIConfig
from mrbench.modeling import boxes as box_ops
from mrbench.modeling import sampling
from mrbench.modeling.matcher import match
from mrbench.modeling.rpn import Proposals


@dataclass
class RoIs:
    """Regions of all images in one list."""

    boxes: Tensor  # float32 [R, 4] in the network's pixels
    image: Tensor  # int64 [R]
    labels: Tensor  # int64 [R] in 0..K-1, or K for the background
    instance: Tensor  # int64 [R]: the matched ground truth
    truth: Tensor  # float32 [R, 4]: its box
    foreground: Tensor  # bool [R]
    used: Tensor  # bool [R]

    def only(self, keep: Tensor) -> "RoIs":
        """Those where `keep` bool [R] says so."""
        index = keep.nonzero()[:, 0]
        return RoIs(*(getattr(self, f.name)[index] for f in fields(self)))


@dataclass
class RoISamples:
    """S regions an image: foreground first, then background, then unused places. Fields as of `RoIs`, [B, S, ...]."""

    boxes: Tensor
    labels: Tensor
    instance: Tensor
    truth: Tensor
    foreground: Tensor
    used: Tensor

    def flat(self, keep: Tensor | None, first: int | None = None) -> RoIs:
        """The first `first` places of every image, all of them or those where `keep` [B, S] says so."""
        batch, slots = self.used.shape
        image = torch.arange(batch, device=self.used.device)[:, None].expand(batch, slots)
        parts = [self.boxes, image, self.labels, self.instance, self.truth, self.foreground, self.used]
        parts = [part[:, :first].flatten(0, 1) for part in parts]
        if keep is not None:
            index = keep[:, :first].flatten().nonzero()[:, 0]
            parts = [part[index] for part in parts]
        return RoIs(*parts)


@torch.no_grad()
def sample_rois(
    proposals: Proposals, boxes: Tensor, labels: Tensor, seeds: Tensor, num_classes: int, config: RoIConfig
) -> RoISamples:
    """Label the proposals, and the ground truth itself, by overlap and choose `config.samples` an image (Girshick
    2015, section 2.3; Detectron2, roi_heads.py, `label_and_sample_proposals`).

    boxes float32 [B, G, 4] and labels int64 [B, G] are the ground truth, padded with label -1.
    """
    real = labels >= 0
    candidates = torch.cat([proposals.boxes, boxes], 1)
    valid = torch.cat([proposals.valid, real], 1)
    found = match(box_ops.iou(boxes, candidates), real, config.foreground_iou, config.foreground_iou, keep_best=False)
    kind = torch.where(valid, found.label, -1)

    device = boxes.device
    numbers = torch.cat(
        [
            torch.arange(proposals.boxes.shape[1], device=device),
            torch.arange(boxes.shape[1], device=device) + sampling.GROUND_TRUTH,
        ]
    )
    lot = sampling.lots(seeds, sampling.ROIS, numbers)
    slots = sampling.choose(kind, lot, config.samples, config.positive_fraction)

    instance = found.index.gather(1, slots.index)
    label = torch.where(slots.foreground, labels.gather(1, instance), num_classes)
    return RoISamples(
        candidates.gather(1, slots.index[:, :, None].expand(-1, -1, 4)),
        label,
        instance,
        boxes.gather(1, instance[:, :, None].expand(-1, -1, 4)),
        slots.foreground,
        slots.used,
    )


@torch.no_grad()
def rematch(moved: Tensor, rois: RoIs, boxes: Tensor, labels: Tensor, iou: float, num_classes: int) -> RoIs:
    """The regions at their new places `moved` [R, 4], labelled anew by overlap: foreground from `iou` on.

    boxes float32 [B, G, 4] and labels int64 [B, G] are the ground truth, padded with label -1. Boxes without area
    are no longer used (Detectron2, cascade_rcnn.py, `_match_and_label_boxes`, `_create_proposals_from_boxes`).
    """
    used = rois.used & box_ops.has_area(moved)
    truths = boxes[rois.image]
    found = match(box_ops.iou(truths, moved[:, None]), labels[rois.image] >= 0, iou, iou, keep_best=False)
    instance = found.index[:, 0]
    foreground = used & (found.label[:, 0] == 1)
    label = torch.where(foreground, labels[rois.image, instance], num_classes)
    return RoIs(moved, rois.image, label, instance, boxes[rois.image, instance], foreground, used)
