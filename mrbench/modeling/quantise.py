"""Regions in whole pixels of a feature map, as RoIPool and RoIWarp take them."""

import torch
from torch import Tensor


def quantise(boxes: Tensor, stride: Tensor | float) -> Tensor:
    """Boxes [R, 4] in pixels -> the borders, in pixels, of the cells of a map of `stride` that they cover.

    RoIPool's rounding (Girshick 2015; Caffe's roi_pooling_layer.cpp): both corners go to the nearest cell, halves
    away from zero, and the cells of both belong to the region, so it is never smaller than one. RoIWarp (Dai et al.
    2016, MNC's roi_warping_layer) begins the same way. `stride` is one number, or one a region as [R, 1].
    """
    corners = boxes / stride
    whole = corners.trunc()
    rest = corners - whole
    cells = whole + (rest >= 0.5).to(boxes.dtype) - (rest <= -0.5).to(boxes.dtype)
    first, last = cells[:, :2], cells[:, 2:]
    return torch.cat([first, torch.maximum(first, last) + 1], 1) * stride
