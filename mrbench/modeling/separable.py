"""RoIAlign as two batched matrix products.

With a fixed number of points a bin, the sampling grid is a tensor product, and bilinear interpolation and the
average over a bin are separable: out = Wy F Wx^T exactly, with a backward of matrix products, where torchvision's on
a CPU is a serial scatter. Every region reads its whole level, so this is for small feature maps.
"""

import torch
from torch import Tensor


def separable_roi_align(
    feature: Tensor, boxes: Tensor, image: Tensor, size: int, scale: float, points: int, aligned: bool
) -> Tensor:
    """torchvision.ops.roi_align of `feature` [B, C, H, W] for boxes [R, 4] of images `image` [R] in any order.

    Returns [R, C, size, size]; `points` samples a bin and axis, at least 1.
    """
    if points < 1:
        raise ValueError("separable RoIAlign needs a fixed number of sampling points")
    batch, channels, height, width = feature.shape
    scaled = boxes * scale
    wy = _weights(scaled[:, 1], scaled[:, 3], size, points, height, aligned).to(feature.dtype)  # [R, size, H]
    wx = _weights(scaled[:, 0], scaled[:, 2], size, points, width, aligned).to(feature.dtype)
    rows = feature.permute(0, 2, 3, 1).reshape(batch, height, width * channels)
    # the regions of an image side by side, as many places for each image as the fullest needs
    slot, places = _places(image, batch)
    if slot is not None:
        wy = wy.new_zeros(batch * places, size, height).index_copy(0, slot, wy)
        wx = wx.new_zeros(batch * places, size, width).index_copy(0, slot, wx)
    out = torch.bmm(wy.view(batch, -1, height), rows)  # [B, places * size, W * C]
    across = wx[:, None].expand(-1, size, -1, -1).reshape(-1, size, width)
    out = torch.bmm(across, out.view(-1, width, channels)).view(-1, size, size, channels)
    return (out if slot is None else out[slot]).permute(0, 3, 1, 2)


def _places(image: Tensor, batch: int) -> tuple[Tensor | None, int]:
    """Where each region goes when every image has as many places, and how many; None where they already lie so."""
    count = torch.bincount(image, minlength=batch)
    most = int(count.max())
    order = image.argsort(stable=True)
    rank = torch.empty_like(image)
    rank[order] = torch.arange(len(image), device=image.device) - (count.cumsum(0) - count)[image[order]]
    slot = rank + image * most
    if len(image) == batch * most and torch.equal(slot, torch.arange(len(image), device=image.device)):
        return None, most
    return slot, most


def _weights(low: Tensor, high: Tensor, bins: int, points: int, size: int, aligned: bool) -> Tensor:
    """How much every pixel of an axis of `size` counts in each of `bins` between `low` and `high`: [R, bins, size]."""
    if aligned:
        low, high = low - 0.5, high - 0.5
        length = high - low
    else:
        length = (high - low).clamp(min=1.0)
    step = (torch.arange(bins * points, dtype=low.dtype, device=low.device) + 0.5) / (bins * points)
    at = low[:, None] + length[:, None] * step
    inside = ((at >= -1) & (at <= size)).to(low.dtype)
    at = at.clamp(0, size - 1)
    pixel = torch.arange(size, dtype=low.dtype, device=low.device)
    weight = (1 - (at[..., None] - pixel).abs_()).clamp_(min=0) * inside[..., None]
    return weight.view(len(low), bins, points, size).mean(2)
