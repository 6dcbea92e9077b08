"""Which ground-truth box an anchor or proposal belongs to."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Match:
    """For each of N boxes of each of B images."""

    index: Tensor  # int64 [B, N]: the ground truth of highest overlap; 0 where there is none
    label: Tensor  # int64 [B, N]: 1 foreground, 0 background, -1 neither


def match(overlaps: Tensor, truth: Tensor, background_iou: float, foreground_iou: float, keep_best: bool) -> Match:
    """Match by overlap (Detectron2, modeling/matcher.py).

    overlaps: [B, G, N] of ground truths with boxes; truth: bool [B, G], False in the padding, which never matches.
    Below `background_iou` a box is background, from `foreground_iou` on foreground, between them neither.
    keep_best: each ground truth also makes foreground of the boxes that overlap it most, however little that is
    (Ren et al. 2015, section 3.1.2). Unlike Detectron2, a ground truth that meets no box makes none.
    """
    overlaps = torch.where(truth[:, :, None], overlaps, -1.0)
    best, index = overlaps.max(1)
    label = (best >= foreground_iou).long()
    label = torch.where((best >= background_iou) & (best < foreground_iou), -1, label)
    if keep_best:
        highest = overlaps.amax(2, keepdim=True)
        is_best = ((overlaps == highest) & (highest > 0)).any(1)
        label = torch.where(is_best, 1, label)
    return Match(index, label)
