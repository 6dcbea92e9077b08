"""From the keypoint branch's maps to positions in the picture."""

import torch
from torch import Tensor

CUBIC = -0.75  # of the interpolating kernel (Keys 1981), as torch's bicubic upsampling has it
LARGEST = 1 << 25  # values of upsampled maps that are laid out at once, about 128 MiB


@torch.no_grad()
def heatmaps_to_keypoints(maps: Tensor, boxes: Tensor) -> Tensor:
    """The most likely position of each keypoint: float32 [R, K, 3] of x, y and score.

    maps: logits [R, K, M, M] inside `boxes` float32 [R, 4], xyxy. A map is upsampled (bicubic) to the box's size in
    whole pixels, at least one; the keypoint is at the centre of the greatest pixel. The score is the pixel's
    probability with the softmax's sum taken over the map's M x M cells, so that it does not depend on the box's
    size. As Detectron2's structures/keypoints.py, `heatmaps_to_keypoints`, for many regions at once: upsampling is
    a matrix product an axis, for regions of about the same size together. The host waits for the device once.
    """
    result = maps.new_zeros(*maps.shape[:2], 3, dtype=torch.float32)
    if not len(maps):
        return result
    maps, boxes = maps.float(), boxes.float()
    extent = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1)  # (width, height)
    pixels = extent.ceil()
    sizes = pixels.long().tolist()
    by_size = sorted(range(len(sizes)), key=lambda i: sizes[i][0] * sizes[i][1])
    for group in _groups(by_size, sizes, maps.shape[1]):
        index = torch.tensor(group, device=maps.device)
        widest, highest = (max(sizes[i][axis] for i in group) for axis in (0, 1))
        with torch.autocast(maps.device.type, enabled=False):
            result[index] = _decode(maps[index], boxes[index], extent[index], pixels[index], widest, highest)
    return result


def _groups(order: list[int], sizes: list[list[int]], keypoints: int) -> list[list[int]]:
    """Cuts `order` so that a group's maps, all as wide and high as its widest and highest, stay below `LARGEST`."""
    groups: list[list[int]] = []
    width = height = 0
    for i in order:
        width, height = max(width, sizes[i][0]), max(height, sizes[i][1])
        if groups and (len(groups[-1]) + 1) * width * height * keypoints <= LARGEST:
            groups[-1].append(i)
        else:
            groups.append([i])
            width, height = sizes[i]
    return groups


def _decode(maps: Tensor, boxes: Tensor, extent: Tensor, pixels: Tensor, widest: int, highest: int) -> Tensor:
    """`heatmaps_to_keypoints` of regions whose maps fit `highest` x `widest` pixels."""
    side = maps.shape[-1]
    across, down = _cubic(pixels[:, 0], widest, side), _cubic(pixels[:, 1], highest, side)
    large = torch.matmul(torch.matmul(down[:, None], maps), across[:, None].transpose(-1, -2))
    beyond = torch.arange(widest, device=maps.device) >= pixels[:, :1]
    below = torch.arange(highest, device=maps.device) >= pixels[:, 1:]
    large.masked_fill_((below[:, :, None] | beyond[:, None])[:, None], float("-inf"))
    greatest, place = large.flatten(2).max(-1)
    cell = torch.stack([place % widest, place // widest], -1).float()
    xy = (cell + 0.5) * (extent / pixels)[:, None] + boxes[:, None, :2]
    score = (greatest - maps.flatten(2).logsumexp(-1)).exp()
    return torch.cat([xy, score[..., None]], -1)


def _cubic(sizes: Tensor, largest: int, side: int) -> Tensor:
    """Bicubic upsampling of `side` values to `sizes` [R] as matrices [R, largest, side]; rows beyond a size are any.

    As `torch.nn.functional.interpolate` without aligned corners: values beyond the border repeat it.
    """
    at = (torch.arange(largest, device=sizes.device) + 0.5) * (side / sizes)[:, None] - 0.5
    before = at.floor()
    matrix = at.new_zeros(*at.shape, side)
    for step in range(-1, 3):
        weight = _kernel((at - before - step).abs())
        column = (before + step).clamp(0, side - 1).long()
        matrix.scatter_add_(2, column[..., None], weight[..., None])
    return matrix


def _kernel(distance: Tensor) -> Tensor:
    near = ((CUBIC + 2) * distance - (CUBIC + 3)) * distance * distance + 1
    far = ((CUBIC * distance - 5 * CUBIC) * distance + 8 * CUBIC) * distance - 4 * CUBIC
    return torch.where(distance <= 1, near, far)
