"""Box arithmetic: coding, overlap, clipping, suppression. Boxes are float32 xyxy in continuous pixels."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import batched_nms, nms

from mrbench.modeling.widen import at_least_float32

# exp() of a width or height delta is held below this: the longest box from a 16 pixel one (Detectron, Detectron2).
MAX_LOG_SCALE = math.log(1000.0 / 16)


def encode(references: Tensor, targets: Tensor, weights: Sequence[float]) -> Tensor:
    """Deltas [..., 4] (dx, dy, dw, dh) that take `references` to `targets` (Girshick et al. 2014, appendix C).

    Where a box has no area the deltas mean nothing and are finite.
    """
    wx, wy, ww, wh = weights
    rw, rh, rx, ry = _centred(references)
    tw, th, tx, ty = _centred(targets)
    rw, rh, tw, th = (side.clamp(min=1e-6) for side in (rw, rh, tw, th))
    return torch.stack(
        [wx * (tx - rx) / rw, wy * (ty - ry) / rh, ww * torch.log(tw / rw), wh * torch.log(th / rh)], -1
    )


def decode(references: Tensor, deltas: Tensor, weights: Sequence[float]) -> Tensor:
    """The boxes [..., 4] that `encode` would have coded so; the two broadcast against each other."""
    wx, wy, ww, wh = weights
    rw, rh, rx, ry = _centred(references)
    dx, dy, dw, dh = at_least_float32(deltas).unbind(-1)
    x = dx / wx * rw + rx
    y = dy / wy * rh + ry
    half_w = 0.5 * torch.exp((dw / ww).clamp(max=MAX_LOG_SCALE)) * rw
    half_h = 0.5 * torch.exp((dh / wh).clamp(max=MAX_LOG_SCALE)) * rh
    return torch.stack([x - half_w, y - half_h, x + half_w, y + half_h], -1)


def _centred(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x1, y1, x2, y2 = boxes.unbind(-1)
    w, h = x2 - x1, y2 - y1
    return w, h, x1 + 0.5 * w, y1 + 0.5 * h


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of [B, N, 4] and [B, M, 4] (or [M, 4]) -> [B, N, M]; 0 where the boxes do not meet."""
    b = b.expand(a.shape[0], -1, -1)
    low = torch.maximum(a[:, :, None, :2], b[:, None, :, :2])
    high = torch.minimum(a[:, :, None, 2:], b[:, None, :, 2:])
    w, h = (high - low).clamp_(min=0).unbind(-1)
    meet = w * h
    union = _area(a)[:, :, None] + _area(b)[:, None] - meet
    return torch.where(meet > 0, meet / union, 0.0)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def clip(boxes: Tensor, sizes: Tensor) -> Tensor:
    """Boxes [N, ..., 4] held inside pictures of `sizes` [N, 2] (height, width)."""
    height, width = sizes.to(boxes.dtype).reshape(-1, *([1] * (boxes.dim() - 2)), 2).unbind(-1)
    x1, y1, x2, y2 = boxes.clamp(min=0).unbind(-1)
    return torch.stack(
        [
            torch.minimum(x1, width),
            torch.minimum(y1, height),
            torch.minimum(x2, width),
            torch.minimum(y2, height),
        ],
        -1,
    )


def mirror(boxes: Tensor, sizes: Tensor) -> Tensor:
    """Boxes [N, 4] in pictures of `sizes` [N, 2] (height, width) after these are flipped left to right."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    width = sizes[:, 1].to(boxes.dtype)
    return torch.stack([width - x2, y1, width - x1, y2], -1)


def has_area(boxes: Tensor) -> Tensor:
    """Whether boxes [..., 4] are finite and wider and higher than nothing -> bool [...]."""
    positive = (boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1])
    return positive & torch.isfinite(boxes).all(-1)


def suppress(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> Tensor:
    """Greedy non-maximum suppression inside each group -> indices kept, by falling score.

    In double precision: all groups are compared in one go, each moved to its own place in the plane, and with many
    images and classes float32 would no longer hold the boxes' fractions there.
    """
    boxes, scores = boxes.double(), scores.double()
    if not boxes.is_cuda:
        members = groups.unique()
        # A CPU compares every pair in turn, so a loop over the groups pays once their pairs outweigh its overhead.
        if len(boxes) ** 2 > 15_000 * len(members):
            kept = []
            for group in members:
                index = torch.where(groups == group)[0]
                kept.append(index[nms(boxes[index], scores[index], threshold)])
            keep = torch.cat(kept)
            return keep[scores[keep].argsort(descending=True, stable=True)]
    return batched_nms(boxes, scores, groups, threshold)
