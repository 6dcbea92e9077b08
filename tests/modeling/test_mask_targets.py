"""Mask targets from summed-area tables against a slow, plain reference."""

from collections.abc import Callable

import torch
from torch import Tensor

from mrbench.data.batch import MaskWindows
from mrbench.modeling.mask_targets import coverage_targets


def covered(mask: Tensor, box: Tensor, size: int) -> Tensor:
    """Share of every bin that is mask, pixel by pixel."""
    h, w = mask.shape
    x1, y1, x2, y2 = box.double().tolist()
    share = torch.zeros(size, size, dtype=torch.float64)
    for i in range(size):
        top, bottom = y1 + (y2 - y1) * i / size, y1 + (y2 - y1) * (i + 1) / size
        for j in range(size):
            left, right = x1 + (x2 - x1) * j / size, x1 + (x2 - x1) * (j + 1) / size
            rows = torch.arange(h).double()
            columns = torch.arange(w).double()
            high = ((rows + 1).clamp(max=bottom) - rows.clamp(min=top)).clamp(min=0)
            wide = ((columns + 1).clamp(max=right) - columns.clamp(min=left)).clamp(min=0)
            share[i, j] = (high[:, None] * wide[None] * mask).sum() / ((bottom - top) * (right - left))
    return share


def test_targets_equal_the_exact_coverage(make_windows: Callable[..., MaskWindows]) -> None:
    g = torch.Generator().manual_seed(0)
    masks: list[list[Tensor]] = [[], []]
    for n in (2, 1):
        for _ in range(n):
            mask = torch.zeros(40, 50, dtype=torch.bool)
            mask[8:30, 5:41] = torch.rand(22, 36, generator=g) < 0.6
            masks[0 if len(masks[0]) < 2 else 1].append(mask)
    windows = make_windows(masks, 4)
    image, instance = torch.tensor([0, 0, 1, 1, 0]), torch.tensor([0, 1, 0, 0, 1])
    boxes = torch.tensor(
        [[6.3, 9.1, 38.7, 29.9], [0, 0, 50, 40], [10.5, 10.25, 17.0, 15.0], [-3.0, -4, 60, 55], [20, 20, 22.5, 22]]
    )
    ours = coverage_targets(windows, boxes, image, instance, 7)
    for r in range(len(boxes)):
        share = covered(masks[image[r]][instance[r]], boxes[r], 7)
        clear = (share - 0.5).abs() > 1e-9
        assert clear.float().mean() > 0.8
        assert torch.equal(ours[r].bool()[clear], (share >= 0.5)[clear])


def test_whole_pixels_come_back_as_they_are(make_windows: Callable[..., MaskWindows]) -> None:
    mask = torch.rand(14, 14, generator=torch.Generator().manual_seed(1)) < 0.5
    windows = make_windows([[mask]], 1)
    zero = torch.zeros(1, dtype=torch.int64)
    assert torch.equal(coverage_targets(windows, torch.tensor([[0.0, 0, 14, 14]]), zero, zero, 14)[0], mask.float())


def test_padding_and_empty_boxes_have_no_mask(make_windows: Callable[..., MaskWindows]) -> None:
    zero = torch.zeros(1, dtype=torch.int64)
    nothing = make_windows([[]], 1)
    assert not coverage_targets(nothing, torch.tensor([[0.0, 0, 9, 9]]), zero, zero, 14).any()
    something = make_windows([[torch.ones(5, 5, dtype=torch.bool)]], 2)
    assert not coverage_targets(something, torch.tensor([[2.0, 2, 2, 2]]), zero, zero, 14).any()
    assert not coverage_targets(something, torch.tensor([[0.0, 0, 4, 4]]), zero, zero + 1, 14).any()
