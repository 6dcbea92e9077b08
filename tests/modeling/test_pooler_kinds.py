"""RoIAlign, RoIWarp and RoIPool with both aggregations, against a reference that visits every point in turn."""

import math
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from mrbench.config.composer import compose
from mrbench.config.schema import PoolerConfig
from mrbench.errors import UserError
from mrbench.modeling.pooler import Pooler

SIZE, STRIDE = 3, 4
KINDS = [
    {"kind": kind, "aggregate": aggregate, "sampling_ratio": 2, "aligned": aligned, "method": method}
    for kind, aggregate, aligned, method in product(
        ("roi_align", "roi_warp"), ("avg", "max"), (True, False), ("torchvision", "separable")
    )
]
KINDS += [{"kind": "roi_warp"}, {"kind": "roi_warp", "aligned": False}, {"kind": "roi_pool"}]


def nearest(x: float) -> int:
    """C's round: halves away from zero."""
    return int(math.copysign(math.floor(abs(x) + 0.5), x))


def bilinear(feature: Tensor, y: float, x: float) -> Tensor:
    """Of [C, H, W] the value [C] at (y, x), cells' centres at whole numbers; beyond one cell outside it is 0."""
    h, w = feature.shape[1:]
    if not (-1 <= y <= h and -1 <= x <= w):
        return feature.new_zeros(feature.shape[0])
    y, x = min(max(y, 0), h - 1), min(max(x, 0), w - 1)
    total = feature.new_zeros(feature.shape[0])
    for row, column in product(range(int(y), min(int(y) + 2, h)), range(int(x), min(int(x) + 2, w))):
        total = total + feature[:, row, column] * (1 - abs(y - row)) * (1 - abs(x - column))
    return total


def one_region(feature: Tensor, box: list[float], config: PoolerConfig) -> Tensor:
    """feature [C, H, W], box in pixels -> [C, SIZE, SIZE]."""
    x1, y1, x2, y2 = (side / STRIDE for side in box)
    if config.kind != "roi_align":
        x1, y1, x2, y2 = (nearest(side) for side in (x1, y1, x2, y2))
        x2, y2 = max(x1, x2) + 1, max(y1, y2) + 1
    if config.kind == "roi_pool":
        return whole_cells(feature, int(x1), int(y1), int(x2), int(y2))
    if config.aligned:
        x1, y1, x2, y2 = x1 - 0.5, y1 - 0.5, x2 - 0.5, y2 - 0.5
    else:
        x2, y2 = max(x2, x1 + 1), max(y2, y1 + 1)
    high, wide = (y2 - y1) / SIZE, (x2 - x1) / SIZE
    rows, columns = (config.sampling_ratio or math.ceil(side) for side in (high, wide))
    bins = []
    for i, j in product(range(SIZE), range(SIZE)):
        points = [
            bilinear(feature, y1 + high * (i + (a + 0.5) / rows), x1 + wide * (j + (b + 0.5) / columns))
            for a, b in product(range(rows), range(columns))
        ]
        stacked = torch.stack(points)
        bins.append(stacked.mean(0) if config.aggregate == "avg" else stacked.amax(0))
    return torch.stack(bins, 1).view(-1, SIZE, SIZE)


def whole_cells(feature: Tensor, x1: int, y1: int, x2: int, y2: int) -> Tensor:
    bins = []
    for i, j in product(range(SIZE), range(SIZE)):
        top, bottom = y1 + (i * (y2 - y1)) // SIZE, y1 + -(-(i + 1) * (y2 - y1) // SIZE)
        left, right = x1 + (j * (x2 - x1)) // SIZE, x1 + -(-(j + 1) * (x2 - x1) // SIZE)
        cells = feature[:, max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)].flatten(1)
        bins.append(cells.amax(1) if cells.shape[1] else feature.new_zeros(feature.shape[0]))
    return torch.stack(bins, 1).view(-1, SIZE, SIZE)


def regions(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Boxes of a 48-pixel picture, some over its border and some smaller than a cell, and one beyond it."""
    g = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=g) * 50 - 8
    boxes = torch.cat([corner, corner + torch.exp(torch.rand(count, 2, generator=g) * 4)], 1)
    boxes[0] = torch.tensor([200.0, 210.0, 230.0, 260.0])
    boxes[1] = torch.tensor([-2.0, 2.0, 6.0, 10.0])  # halves of a cell at every corner
    return boxes, torch.randint(0, 2, (count,), generator=g)


@pytest.mark.parametrize("changes", KINDS, ids=lambda c: "-".join(map(str, c.values())))
def test_values_and_gradients_equal_the_reference(changes: dict[str, Any]) -> None:
    g = torch.Generator().manual_seed(3)
    feature = torch.randn(2, 3, 12, 12, generator=g, dtype=torch.float64, requires_grad=True)
    config = PoolerConfig(**changes)
    boxes, image = regions(24, 5)
    pooler = Pooler(config, SIZE, [STRIDE])
    ours = pooler([feature], boxes, image)
    wanted = torch.stack([one_region(feature[b], box.tolist(), config) for box, b in zip(boxes, image, strict=True)])
    tolerance = {"rtol": 0, "atol": 1e-5}  # the boxes, and what is made of them, are float32
    torch.testing.assert_close(ours, wanted, **tolerance)
    weights = torch.randn(ours.shape, generator=g, dtype=torch.float64)
    (theirs,) = torch.autograd.grad(wanted, feature, weights)
    (gradient,) = torch.autograd.grad(ours, feature, weights)
    torch.testing.assert_close(gradient, theirs, **tolerance)
    if config.method == "torchvision":  # as on a GPU: every region on every level
        levels = pooler.levels_of(boxes)
        everywhere = pooler._everywhere([feature], boxes, image, levels)
        assert torch.equal(everywhere, pooler._over_levels([feature], boxes, image, levels))


@pytest.mark.parametrize("changes", KINDS, ids=lambda c: "-".join(map(str, c.values())))
def test_the_gradient_check_passes(changes: dict[str, Any]) -> None:
    g = torch.Generator().manual_seed(4)
    levels = [torch.randn(2, 2, s, s, generator=g, dtype=torch.float64, requires_grad=True) for s in (8, 4)]
    boxes, image = regions(5, 6)
    boxes[2] = torch.tensor([1.0, 3.0, 29.0, 27.0])
    pooler = Pooler(PoolerConfig(**changes, canonical_size=40), SIZE, [4, 8])
    assert len(pooler.levels_of(boxes).unique()) == 2

    def pooled(*features: Tensor) -> Tensor:
        return pooler(list(features), boxes.double(), image)

    assert torch.autograd.gradcheck(pooled, levels)


@pytest.mark.parametrize("kind", ["roi_align", "roi_warp"])
@pytest.mark.parametrize("aggregate", ["avg", "max"])
def test_no_region_gives_an_empty_map_that_hangs_on_the_features(kind: str, aggregate: str) -> None:
    feature = torch.randn(2, 3, 8, 8, requires_grad=True)
    pooler = Pooler(PoolerConfig(kind=kind, aggregate=aggregate, sampling_ratio=2), 7, [4])
    out = pooler([feature], torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    assert out.shape == (0, 3, 7, 7)
    out.sum().backward()
    assert feature.grad is not None
    assert not feature.grad.any()


def test_the_greatest_of_no_fixed_number_of_points_is_refused() -> None:
    with pytest.raises(UserError, match="aggregate=max needs a fixed number"):
        compose(["model=mask_rcnn_r50_fpn", "model.pooler.aggregate=max"])
