"""Random choice of anchors and RoIs that depends on the image's seed only.

A box's lot is an integer hash of (seed, which kind of box, its number), computed on the device: the same on every
device, for every split of the batch over processes, and for every padding of the ground truth.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_NEVER = 1 << 40
# Constants of the 32-bit mixer "lowbias32" (Chris Wellons, hash-prospector); the second less 2^32, so that no
# product of it and 32 bits leaves int64.
_FIRST, _SECOND = 0x7FEB352D, 0x846CA68B - (1 << 32)

ANCHORS, ROIS = 1, 2
GROUND_TRUTH = 1 << 31  # a ground truth's number among the RoIs begins here, whatever the number of proposals


@dataclass(frozen=True)
class Slots:
    """Up to S chosen boxes an image: foreground first, then background, then unused."""

    index: Tensor  # int64 [B, S] into the boxes
    foreground: Tensor  # bool [B, S]
    used: Tensor  # bool [B, S]


def lots(seeds: Tensor, stream: int, numbers: Tensor) -> Tensor:
    """Uniform 32-bit lots, int64 [B, N], for `seeds` [B] and box `numbers` [N]; no two of an image are equal."""
    low, high = seeds & _MASK, (seeds >> 32) & _MASK
    first = _mix(low ^ (stream * 0x9E3779B1 & _MASK))
    second = _mix(high ^ _mix(first ^ 0x5BD1E995))  # not the hash of `first`, which box 0 would meet again
    return _mix(_mix(numbers[None] ^ first[:, None]) ^ second[:, None])


def _mix(x: Tensor) -> Tensor:
    x = ((x ^ (x >> 16)) * _FIRST) & _MASK
    x = ((x ^ (x >> 15)) * _SECOND) & _MASK
    return x ^ (x >> 16)


def choose(labels: Tensor, lot: Tensor, samples: int, positive_fraction: float) -> Slots:
    """At most `samples` boxes an image: foreground (label 1) up to its fraction, the rest background (label 0).

    labels, lot: int64 [B, N]. Lowest lots win. Shapes depend on those of the input only.
    """
    n = labels.shape[1]
    slots = min(samples, n)
    most = min(int(samples * positive_fraction), n)
    lot_fg, fg = torch.where(labels == 1, lot, _NEVER).topk(most, largest=False)
    lot_bg, bg = torch.where(labels == 0, lot, _NEVER).topk(slots, largest=False)
    n_fg = (lot_fg < _NEVER).sum(1, keepdim=True)
    n_bg = (lot_bg < _NEVER).sum(1, keepdim=True)
    slot = torch.arange(slots, device=labels.device)[None]
    foreground = slot < n_fg
    place = torch.where(foreground, slot, most + slot - n_fg)
    return Slots(torch.cat([fg, bg], 1).gather(1, place), foreground, slot < n_fg + n_bg)
