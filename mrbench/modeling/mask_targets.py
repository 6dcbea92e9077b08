"""What the mask branch should say: the ground truth's mask inside a region, at the branch's resolution."""

import torch
from torch import Tensor

from mrbench.data.batch import MaskWindows


@torch.no_grad()
def coverage_targets(masks: MaskWindows, boxes: Tensor, image: Tensor, instance: Tensor, size: int) -> Tensor:
    """1 where at least half of a bin of the region is mask, else 0.

    boxes float32 [R, 4] in the network's pixels, of instance `instance` [R] of image `image` [R] -> float32
    [R, size, size]. A bin's coverage is exact: four look-ups in the mask's summed-area table, bilinear between
    pixels. Detectron2 samples points instead (structures/masks.py, `BitMasks.crop_and_resize`), where the mask loss of
    tests/modeling/test_parity_detectron2.py is 0.05 % greater, or fills polygons anew in each region's cells
    (`PolygonMasks`), where it is 1.6 % greater; torchvision keeps the average without a threshold.
    """
    table = masks.table if len(masks.table) else masks.table.new_zeros(1)  # a batch without any instance
    offset = masks.offset[image, instance]
    window = masks.size[image, instance]
    corner = masks.origin[image, instance].double()
    where = boxes.double()
    # double precision: a bin's area is the small difference of large sums
    y0, y1, fy = _edges(where[:, 1] - corner[:, 0], where[:, 3] - corner[:, 0], window[:, 0], size)
    x0, x1, fx = _edges(where[:, 0] - corner[:, 1], where[:, 2] - corner[:, 1], window[:, 1], size)
    pitch = (window[:, 1] + 1)[:, None, None]
    start = offset[:, None, None]

    def at(y: Tensor, x: Tensor) -> Tensor:
        return table[start + y[:, :, None] * pitch + x[:, None]].double()

    fy, fx = fy[:, :, None], fx[:, None]
    top = torch.lerp(at(y0, x0), at(y0, x1), fx.expand(-1, size + 1, -1))
    bottom = torch.lerp(at(y1, x0), at(y1, x1), fx.expand(-1, size + 1, -1))
    total = torch.lerp(top, bottom, fy.expand(-1, -1, size + 1))
    area = total.diff(dim=1).diff(dim=2)
    bin_area = ((where[:, 2] - where[:, 0]) * (where[:, 3] - where[:, 1]) / size**2)[:, None, None]
    return ((area >= 0.5 * bin_area) & (bin_area > 0)).float()


def _edges(low: Tensor, high: Tensor, length: Tensor, bins: int) -> tuple[Tensor, Tensor, Tensor]:
    """The bins' borders on one axis of a window of `length` pixels: table entries before and after, and the
    fraction between them, each [R, bins + 1]. Outside the window there is no mask, so the borders stop there."""
    step = torch.arange(bins + 1, dtype=low.dtype, device=low.device) / bins
    at = low[:, None] + (high - low)[:, None] * step
    at = torch.minimum(at.clamp(min=0), length[:, None].to(at.dtype))
    before = at.floor()
    after = torch.minimum(before.long() + 1, length[:, None])
    return before.long(), after, at - before
