"""Pooling: the separable computation against torchvision's, and the choice of levels."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.ops import MultiScaleRoIAlign, roi_align, roi_pool

from mrbench.config.schema import PoolerConfig
from mrbench.modeling.pooler import Pooler
from mrbench.modeling.separable import separable_roi_align

STRIDES = [4, 8, 16, 32]


def regions(count: int, images: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(count)
    corner = torch.rand(count, 2, generator=g) * 140 - 10  # some reach over the border, some lie beyond it
    side = torch.exp(torch.rand(count, 2, generator=g) * 6)
    image = torch.randint(0, images, (count,), generator=g).sort().values
    return torch.cat([corner, corner + side], 1), image


@pytest.mark.parametrize("aligned", [True, False])
def test_separable_roi_align_equals_torchvisions_with_gradients(aligned: bool) -> None:
    g = torch.Generator().manual_seed(0)
    feature = torch.randn(3, 5, 32, 24, generator=g, requires_grad=True)
    boxes, image = regions(60, 3)
    theirs = roi_align(feature, torch.cat([image[:, None].float(), boxes], 1), 7, 0.25, 2, aligned)
    ours = separable_roi_align([feature], boxes, image, torch.zeros_like(image), 7, [4], 2, aligned)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)
    weights = torch.randn(theirs.shape, generator=g)
    (wanted,) = torch.autograd.grad(theirs, feature, weights)
    (got,) = torch.autograd.grad(ours, feature, weights)
    torch.testing.assert_close(got, wanted, rtol=0, atol=2e-5)


def test_separable_roi_align_passes_the_gradient_check() -> None:
    features = [torch.randn(2, 2, s, s, dtype=torch.float64, requires_grad=True) for s in (6, 3)]
    boxes = torch.tensor([[3.0, 2, 15, 21], [0, 0, 24, 9], [5, 5, 6, 7]], dtype=torch.float64)
    image, level = torch.tensor([0, 1, 1]), torch.tensor([0, 1, 0])

    def pooled(*levels: Tensor) -> Tensor:
        return separable_roi_align(list(levels), boxes, image, level, 3, [4, 8], 2, True)

    assert torch.autograd.gradcheck(pooled, features)


@pytest.mark.parametrize("method", ["torchvision", "separable"])
def test_pooling_of_double_features_passes_the_gradient_check(method: str) -> None:
    features = [torch.randn(2, 2, s, s, dtype=torch.float64, requires_grad=True) for s in (8, 4)]
    boxes, image = torch.tensor([[3.0, 2, 15, 21], [0, 0, 32, 29]]), torch.tensor([0, 1])
    pooler = Pooler(PoolerConfig(method=method, sampling_ratio=2, canonical_size=50), 3, [4, 8])
    assert len(pooler.levels_of(boxes).unique()) == 2
    assert torch.autograd.gradcheck(lambda *levels: pooler(list(levels), boxes, image), features)


@pytest.mark.parametrize("method", ["torchvision", "separable"])
def test_pooling_over_levels_equals_torchvisions(method: str) -> None:
    g = torch.Generator().manual_seed(1)
    features = [torch.randn(2, 4, 128 // s, 128 // s, generator=g) for s in STRIDES]
    boxes, image = regions(80, 2)
    reference = MultiScaleRoIAlign(list("0123"), 7, 2, canonical_scale=112, canonical_level=4)
    named = {str(i): f for i, f in enumerate(features)}
    theirs = reference(named, [boxes[image == 0], boxes[image == 1]], [(128, 128)] * 2)
    config = PoolerConfig(method=method, sampling_ratio=2, aligned=False, canonical_size=112)
    pooler = Pooler(config, 7, STRIDES)
    assert len(pooler.levels_of(boxes).unique()) == 4
    torch.testing.assert_close(pooler(features, boxes, image), theirs, rtol=0, atol=2e-5)
    if method == "torchvision":  # as on a GPU: every region on every level
        everywhere = pooler._everywhere(features, boxes, image, pooler.levels_of(boxes))
        torch.testing.assert_close(everywhere, theirs, rtol=0, atol=2e-5)


def test_roi_pool_takes_the_maximum() -> None:
    feature = torch.randn(1, 3, 16, 16)
    boxes = torch.tensor([[0.0, 0, 40, 40]])
    pooler = Pooler(PoolerConfig(kind="roi_pool"), 7, [4])
    wanted = roi_pool(feature, torch.tensor([[0.0, 0, 0, 40, 40]]), 7, 0.25)
    assert torch.equal(pooler([feature], boxes, torch.tensor([0])), wanted)


def test_levels_follow_the_papers_equation() -> None:
    pooler = Pooler(PoolerConfig(), 7, STRIDES)
    sides = [1.0, 111.9, 112.1, 223.0, 224.1, 447.9, 449.0, 5000.0]
    boxes = torch.tensor([[0.0, 0.0, s, s] for s in sides])
    wanted = [min(max(math.floor(4 + math.log2(s / 224)), 2), 5) - 2 for s in sides]
    assert pooler.levels_of(boxes).tolist() == wanted


@pytest.mark.parametrize("changes", [{}, {"kind": "roi_pool"}, {"method": "separable", "sampling_ratio": 2}])
def test_no_region_gives_an_empty_map_that_hangs_on_the_features(changes: dict[str, Any]) -> None:
    feature = torch.randn(2, 3, 8, 8, requires_grad=True)
    pooler = Pooler(PoolerConfig(**changes), 7, [4])
    out = pooler([feature], torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    assert out.shape == (0, 3, 7, 7)
    out.sum().backward()
    assert feature.grad is not None
    assert not feature.grad.any()


@pytest.mark.parametrize("changes", [{}, {"kind": "roi_pool"}, {"method": "separable", "sampling_ratio": 2}])
def test_low_precision_features_are_pooled_at_full_precision(changes: dict[str, Any]) -> None:
    feature = torch.randn(1, 3, 64, 64).bfloat16()
    boxes, image = torch.tensor([[100.3, 120.7, 231.9, 250.1]]), torch.tensor([0])
    pooler = Pooler(PoolerConfig(**changes), 7, [4])
    low = pooler([feature], boxes, image)
    assert low.dtype == torch.bfloat16
    assert torch.equal(low, pooler([feature.float()], boxes, image).bfloat16())
