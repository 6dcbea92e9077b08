"""RoIAlign as a weighted sum of feature rows, for all levels of a pyramid at once.

With a fixed number of points a bin the sampling grid is a tensor product: the pixels and weights of a bin are all
pairs of those of its two axes. Pooling is then one sparse matrix (a bin's few pixels) times the feature rows, which
torch computes as an embedding bag, and the gradient is the same with the matrix transposed. torchvision's backward
scatters instead: serially on a CPU, in no fixed order on a GPU. Here every sum has one order.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mrbench.modeling.widen import at_least_float32


class _WeightedRows(torch.autograd.Function):
    """rows [T, C], index int [N, K], weight [N, K] -> sum over K of weight * rows[index]: [N, C]."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(index, weight)
        ctx.length = len(rows)
        return F.embedding_bag(index, rows, mode="sum", per_sample_weights=weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        index, weight = ctx.saved_tensors
        row, order = index.flatten().sort(stable=True)
        begin = torch.searchsorted(row, torch.arange(ctx.length, dtype=row.dtype, device=row.device))
        source = torch.div(order, index.shape[1], rounding_mode="floor")
        total = F.embedding_bag(
            source, grad.contiguous(), begin, mode="sum", per_sample_weights=weight.flatten()[order]
        )
        return total, None, None


def separable_roi_align(
    features: list[Tensor],
    boxes: Tensor,
    image: Tensor,
    level: Tensor,
    size: int,
    strides: list[int],
    points: int,
    aligned: bool,
) -> Tensor:
    """torchvision.ops.roi_align, each region on its own level.

    features: [B, C, H, W] a level; boxes [R, 4] in pixels of images `image` [R]; level int64 [R] and `strides` of the
    levels; `points` samples a bin and axis, at least 1. Returns [R, C, size, size], channels-last in memory.
    """
    if points < 1:
        raise ValueError("separable RoIAlign needs a fixed number of sampling points")
    channels, dtype = features[0].shape[1], features[0].dtype
    # low precision would round the weights
    rows = at_least_float32(torch.cat([f.permute(0, 2, 3, 1).reshape(-1, channels) for f in features]))

    device = boxes.device
    lengths = torch.tensor([[f.shape[2], f.shape[3]] for f in features])
    counts = torch.tensor([f.shape[0] * f.shape[2] * f.shape[3] for f in features])
    table = torch.cat([lengths, (counts.cumsum(0) - counts)[:, None]], 1)
    height, width, start = table.to(device, non_blocking=True)[level].unbind(1)
    scale = torch.tensor([1 / s for s in strides], dtype=boxes.dtype).to(device, non_blocking=True)[level]
    scaled = boxes * scale[:, None]
    y, wy = _axis(scaled[:, 1], scaled[:, 3], size, points, height, aligned)  # [R, size, 2 * points]
    x, wx = _axis(scaled[:, 0], scaled[:, 2], size, points, width, aligned)
    y = (start + image * height * width)[:, None, None] + y * width[:, None, None]
    index = (y[:, :, None, :, None] + x[:, None, :, None, :]).to(torch.int32 if len(rows) < 2**31 else torch.int64)
    weight = wy[:, :, None, :, None] * wx[:, None, :, None, :]
    pixels = (2 * points) ** 2
    out = _WeightedRows.apply(rows, index.view(-1, pixels), weight.to(rows.dtype).view(-1, pixels))
    return out.view(-1, size, size, channels).permute(0, 3, 1, 2).to(dtype)


def _axis(low: Tensor, high: Tensor, bins: int, points: int, length: Tensor, aligned: bool) -> tuple[Tensor, Tensor]:
    """Of each of `bins` between `low` and `high` [R] on an axis of `length` [R] pixels: the pixels that its points
    lie between and their weights, both [R, bins, 2 * points]."""
    if aligned:
        low, high = low - 0.5, high - 0.5
        extent = high - low
    else:
        extent = (high - low).clamp(min=1.0)
    step = (torch.arange(bins * points, dtype=low.dtype, device=low.device) + 0.5) / (bins * points)
    at = low[:, None] + extent[:, None] * step
    last = length[:, None] - 1
    inside = (at >= -1) & (at <= length[:, None])
    at = torch.minimum(at.clamp(min=0), last.to(at.dtype))
    before = at.long()
    part = at - before
    pixel = torch.stack([before, torch.minimum(before + 1, last)], -1)
    weight = torch.stack([1 - part, part], -1) * inside[:, :, None] / points
    return pixel.view(-1, bins, 2 * points), weight.view(-1, bins, 2 * points)
