"""Masks of fixed size into the picture they belong to."""

import torch
import torch.nn.functional as F
from torch import Tensor

# Sampling points of one chunk: bounds the memory of the sampling grid to 16 bytes times this.
CHUNK_POINTS = 1 << 24


@torch.no_grad()
def paste_masks(probabilities: Tensor, boxes: Tensor, height: int, width: int, threshold: float = 0.5) -> Tensor:
    """probabilities float [N, M, M] inside `boxes` [N, 4] -> bool [N, height, width], True from `threshold` on.

    A pixel takes the value bilinearly interpolated at its centre, with zero outside the mask (Detectron2,
    layers/mask_ops.py, `paste_masks_in_image`).
    """
    n = len(probabilities)
    pasted = torch.zeros(n, height, width, dtype=torch.bool, device=probabilities.device)
    if n == 0 or height == 0 or width == 0:
        return pasted
    if probabilities.is_cuda:
        chunk = max(1, CHUNK_POINTS // (height * width))
        for start in range(0, n, chunk):
            part = slice(start, start + chunk)
            pasted[part] = _sample(probabilities[part], boxes[part], 0, 0, height, width) >= threshold
        return pasted
    # On a CPU the work is in the pixels, and outside the box there is nothing to see.
    low = (boxes[:, :2].floor() - 1).clamp(min=0).long().tolist()
    high = (boxes[:, 2:].ceil() + 1).long().tolist()
    for i, ((x0, y0), (x1, y1)) in enumerate(zip(low, high, strict=True)):
        x1, y1 = min(x1, width), min(y1, height)
        if x1 > x0 and y1 > y0:
            window = _sample(probabilities[i : i + 1], boxes[i : i + 1], x0, y0, y1 - y0, x1 - x0)
            pasted[i, y0:y1, x0:x1] = window[0] >= threshold
    return pasted


def _sample(probabilities: Tensor, boxes: Tensor, x0: int, y0: int, height: int, width: int) -> Tensor:
    """Values [n, height, width] of the window of the picture that begins at (x0, y0)."""
    x1, y1, x2, y2 = boxes.float()[:, :, None].unbind(1)
    y = torch.arange(y0, y0 + height, device=boxes.device, dtype=torch.float32) + 0.5
    x = torch.arange(x0, x0 + width, device=boxes.device, dtype=torch.float32) + 0.5
    y = (y - y1) / (y2 - y1) * 2 - 1
    x = (x - x1) / (x2 - x1) * 2 - 1
    n = len(boxes)
    grid = torch.stack([x[:, None].expand(n, height, width), y[:, :, None].expand(n, height, width)], dim=3)
    grid = torch.nan_to_num(grid, nan=-2.0, posinf=2.0, neginf=-2.0)  # a box without area shows nothing
    return F.grid_sample(probabilities.float()[:, None], grid, align_corners=False)[:, 0]
