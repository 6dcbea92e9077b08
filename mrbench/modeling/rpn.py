"""The region proposal network (Ren et al. 2015) over a feature pyramid (Lin et al. 2017, section 4.1)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mrbench.config.schema import RPNConfig
from mrbench.modeling import boxes as box_ops
from mrbench.modeling import init, sampling
from mrbench.modeling.anchors import AnchorGrid, sizes_of_levels
from mrbench.modeling.losses import LossTerm, smooth_l1
from mrbench.modeling.matcher import match
from mrbench.modeling.widen import at_least_float32

DELTA_WEIGHTS = (1.0, 1.0, 1.0, 1.0)
# Boxes. Of more, torchvision on a GPU takes one group after another, and the host waits for the device at each.
SUPPRESSED_AT_ONCE = 25_000


@dataclass
class Proposals:
    """Regions that may hold an object, best first; a fixed number an image, the rest unused."""

    boxes: Tensor  # float32 [B, P, 4] in the network's pixels, inside the picture
    scores: Tensor  # float32 [B, P]: objectness before the sigmoid
    valid: Tensor  # bool [B, P]


@dataclass
class RPNOutput:
    """Predictions for all anchors of all levels, level after level."""

    anchors: Tensor  # float32 [N, 4]
    objectness: Tensor  # float32 [B, N], before the sigmoid
    deltas: Tensor  # float32 [B, N, 4]
    per_level: list[int]  # anchors of each level; they add up to N


class RPNHead(nn.Module):
    """3x3 convolutions and two 1x1 predictors, the same for every level."""

    def __init__(self, channels: int, convs: int, anchors: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(convs))
        self.objectness = nn.Conv2d(channels, anchors, 1)
        self.deltas = nn.Conv2d(channels, anchors * 4, 1)
        for layer in (*self.convs, self.objectness, self.deltas):
            init.normal(layer, std=0.01)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[B, C, H, W] -> objectness [B, H*W*A] and deltas [B, H*W*A, 4], float32 at least."""
        for conv in self.convs:
            x = F.relu(conv(x), inplace=True)
        objectness = self.objectness(x).permute(0, 2, 3, 1).flatten(1)
        deltas = self.deltas(x).permute(0, 2, 3, 1).reshape(len(x), -1, 4)
        return at_least_float32(objectness), at_least_float32(deltas)


class RPN(nn.Module):
    """Predicts, proposes and is trained."""

    def __init__(self, config: RPNConfig, channels: int, strides: list[int]) -> None:
        super().__init__()
        self.config = config
        sizes = sizes_of_levels(list(config.anchor_sizes), len(strides))
        self.anchors = AnchorGrid(
            sizes, list(config.anchor_ratios), strides, config.anchor_rounding, config.anchor_offset
        )
        self.head = RPNHead(channels, config.convs, self.anchors.per_position)

    def forward(self, features: list[Tensor]) -> RPNOutput:
        shapes = [(f.shape[-2], f.shape[-1]) for f in features]
        objectness, deltas = zip(*(self.head(f) for f in features), strict=True)
        anchors = self.anchors(shapes, features[0].device)
        return RPNOutput(anchors, torch.cat(objectness, 1), torch.cat(deltas, 1), [o.shape[1] for o in objectness])

    @torch.no_grad()
    def propose(self, output: RPNOutput, sizes: Tensor) -> Proposals:
        """The best of every level, decoded, clipped to pictures of `sizes` [B, 2], suppressed level by level, and
        the best of these over all levels (Detectron2, proposal_utils.py, `find_top_rpn_proposals`)."""
        c = self.config
        before, after = (c.pre_nms_train, c.post_nms_train) if self.training else (c.pre_nms_test, c.post_nms_test)
        batch, device = len(sizes), output.objectness.device
        picked, scores, levels, start = [], [], [], 0
        for level, count in enumerate(output.per_level):
            best, index = output.objectness[:, start : start + count].topk(min(before, count))
            scores.append(best)
            picked.append(index + start)
            levels.append(torch.full((best.shape[1],), level, device=device))
            start += count
        score, chosen, level_of = torch.cat(scores, 1), torch.cat(picked, 1), torch.cat(levels)
        deltas = output.deltas.gather(1, chosen[:, :, None].expand(-1, -1, 4))
        boxes = box_ops.decode(output.anchors[chosen], deltas, DELTA_WEIGHTS)
        boxes = box_ops.clip(boxes, sizes)
        alive = box_ops.has_area(boxes) & torch.isfinite(score)
        boxes = torch.where(alive[:, :, None], boxes, 0.0)
        score = torch.where(alive, score, -torch.inf)

        groups = torch.arange(batch, device=device)[:, None] * len(output.per_level) + level_of
        kept = torch.zeros_like(alive)
        together = max(SUPPRESSED_AT_ONCE // boxes.shape[1], 1)
        for first in range(0, batch, together):
            part = slice(first, first + together)
            keep = box_ops.suppress(
                boxes[part].flatten(0, 1), score[part].flatten(), groups[part].flatten(), c.nms_threshold
            )
            kept[part].view(-1)[keep] = True
        score = torch.where(kept, score, -torch.inf)
        score, index = score.topk(min(after, score.shape[1]))
        valid = score > -torch.inf
        boxes = boxes.gather(1, index[:, :, None].expand(-1, -1, 4))
        return Proposals(torch.where(valid[:, :, None], boxes, 0.0), score, valid)

    @torch.no_grad()
    def label_anchors(self, anchors: Tensor, truth: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """For ground-truth `boxes` [B, G, 4], real where `truth` [B, G]: labels (1, 0, -1) and matches [B, N]."""
        overlaps = box_ops.iou(boxes, anchors)
        found = match(overlaps, truth, self.config.background_iou, self.config.foreground_iou, keep_best=True)
        return found.label, found.index

    def count_samples(self, seeds: Tensor) -> dict[str, Tensor]:
        """The counts of the losses of pictures with `seeds` [B]: the samples asked for, not found."""
        count = torch.full((), float(self.config.samples * len(seeds)), device=seeds.device)
        return {"rpn_objectness": count, "rpn_box": count}

    def losses(
        self, output: RPNOutput, truth: Tensor, boxes: Tensor, seeds: Tensor, sizes: Tensor
    ) -> dict[str, LossTerm]:
        """Binary cross entropy and smooth L1 over the sampled anchors; both are divided by the number of samples
        asked for, not found (Detectron2, modeling/proposal_generator/rpn.py, `losses`)."""
        c = self.config
        labels, matched = self.label_anchors(output.anchors, truth, boxes)
        if c.border is not None:
            labels = torch.where(inside(output.anchors, sizes, c.border), labels, -1)
        numbers = torch.arange(labels.shape[1], device=labels.device)
        lot = sampling.lots(seeds, sampling.ANCHORS, numbers)
        slots = sampling.choose(labels, lot, c.samples, c.positive_fraction)

        logits = output.objectness.gather(1, slots.index)
        each = F.binary_cross_entropy_with_logits(logits, slots.foreground.to(logits.dtype), reduction="none")
        objectness = torch.where(slots.used, each, 0.0).sum()

        # Foreground comes first in the slots, so the box loss needs to look at no others.
        most = min(int(c.samples * c.positive_fraction), slots.index.shape[1])
        index, foreground = slots.index[:, :most], slots.foreground[:, :most]
        wide = index[:, :, None].expand(-1, -1, 4)
        target = boxes.gather(1, matched.gather(1, index)[:, :, None].expand(-1, -1, 4))
        target = box_ops.encode(output.anchors[index], target, DELTA_WEIGHTS)
        each = smooth_l1(output.deltas.gather(1, wide), target, c.smooth_l1_beta)
        box = torch.where(foreground[:, :, None], each, 0.0).sum()

        counts = self.count_samples(seeds)
        return {
            "rpn_objectness": LossTerm(objectness, counts["rpn_objectness"]),
            "rpn_box": LossTerm(box, counts["rpn_box"]),
        }


def inside(anchors: Tensor, sizes: Tensor, border: float) -> Tensor:
    """Whether anchors [N, 4] reach over the borders of pictures of `sizes` [B, 2] by less than `border` pixels, at
    the left and top by no more than it -> bool [B, N] (Detectron2, structures/boxes.py, `inside_box`).

    As in its RPN.BOUNDARY_THRESH the others lose their label after the matching; Detectron takes them out before, so
    that a ground truth whose best anchor is outside has another.
    """
    height, width = sizes.to(anchors.dtype)[:, :, None].unbind(1)
    x1, y1, x2, y2 = anchors.unbind(-1)
    return (x1 >= -border) & (y1 >= -border) & (x2 < width + border) & (y2 < height + border)
