"""Mask branches: what each computes and is trained on, by hand, and that each learns."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mrbench.config.schema import MaskHeadConfig, ModelConfig
from mrbench.data.batch import Batch
from mrbench.modeling.build import build_detector, build_mask_head
from mrbench.modeling.losses import LossTerm
from mrbench.modeling.mask_losses import BinaryMasks, MultinomialMasks
from mrbench.modeling.mlp_mask_head import MlpMaskHead, VectorPredictor

Small = Callable[..., ModelConfig]
VARIANTS = [(kind, loss) for kind in ("fcn", "mlp") for loss in ("sigmoid", "softmax")]


def total(losses: dict[str, LossTerm]) -> Tensor:
    return torch.stack([term.sum / term.count.clamp(min=1) for term in losses.values()]).sum()


@pytest.mark.parametrize("layers", [2, 3])
def test_the_mlp_is_that_of_table_2e(layers: int) -> None:
    """fc 1024-1024-80*28^2, and one more of 1024, on 256 channels of 14x14."""
    with torch.device("meta"):
        head = build_mask_head(MaskHeadConfig(kind="mlp", fcs=layers), 256, 14, 80, None)
    sizes = [(m.in_features, m.out_features) for m in head.modules() if isinstance(m, nn.Linear)]
    assert sizes == [(256 * 14 * 14, 1024), *[(1024, 1024)] * (layers - 1), (1024, 80 * 28 * 28)]


def test_one_class_of_the_mlp_equals_the_whole_layer_with_gradients() -> None:
    torch.manual_seed(0)
    layer = VectorPredictor(9, 5, 4).double()
    x = torch.randn(11, 9, dtype=torch.float64, requires_grad=True)
    channel = torch.tensor([3, 0, 0, 4, 3, 3, 1, 0, 4, 4, 0])  # none of class 2
    rows = F.linear(x, layer.weight, layer.bias)
    wanted = torch.stack([row.view(5, 4, 4)[k] for row, k in zip(rows, channel, strict=True)])
    ours = layer.of_channel(x, channel)
    torch.testing.assert_close(ours.double(), wanted, rtol=1e-6, atol=1e-6)
    weights = torch.randn(11, 4, 4, dtype=torch.float64)
    of = (x, layer.weight, layer.bias)
    theirs, gradients = torch.autograd.grad(wanted, of, weights), torch.autograd.grad(ours, of, weights.float())
    for gradient, other in zip(gradients, theirs, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "loss"), VARIANTS)
@pytest.mark.parametrize("agnostic", [False, True])
def test_no_region_still_hangs_on_every_weight(kind: str, loss: str, agnostic: bool) -> None:
    config = MaskHeadConfig(kind=kind, loss=loss, class_agnostic=agnostic, channels=8, fc_channels=8, convs=1)
    head = build_mask_head(config, 4, 7, 3, None)
    nothing = torch.zeros(0, dtype=torch.int64)
    logits = head(torch.zeros(0, 4, 7, 7), nothing)
    assert head.masks.probabilities(logits, nothing).shape == (0, 14, 14)
    term = head.masks.loss(logits, nothing, torch.zeros(0, 14, 14), nothing.bool())
    term.sum.backward()
    assert float(term.count) == 0
    assert all(p.grad is not None and not p.grad.any() for p in head.parameters())


def test_the_multinomial_loss_by_hand() -> None:
    """Two classes and the background; region 0 of class 1, region 1 background and so without a say."""
    logits = torch.tensor([[1.0, 2.0], [0.0, 3.0], [0.5, -1.0]]).view(1, 3, 1, 2).repeat(2, 1, 1, 1)
    target = torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]]])
    term = MultinomialMasks(2).loss(logits, torch.tensor([1, 2]), target, torch.tensor([True, False]))
    on_mask = -math.log(math.exp(0.0) / (math.exp(1.0) + math.exp(0.0) + math.exp(0.5)))
    beside = -math.log(math.exp(-1.0) / (math.exp(2.0) + math.exp(3.0) + math.exp(-1.0)))
    assert float(term.sum) == pytest.approx(on_mask + beside, rel=1e-6)
    assert float(term.count) == 2
    found = MultinomialMasks(2).probabilities(logits, torch.tensor([1, 0]))
    assert float(found[0, 0, 0]) == pytest.approx(math.exp(-on_mask), rel=1e-6)
    assert float(found[1, 0, 1]) == pytest.approx(math.exp(2.0) / (math.exp(2.0) + math.exp(3.0) + math.exp(-1.0)))


def test_two_channels_of_softmax_are_one_of_sigmoid() -> None:
    """Without classes both losses are the same function of the difference of the two logits."""
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 2, 5, 5, generator=g)
    target = (torch.rand(4, 5, 5, generator=g) < 0.5).float()
    labels, foreground = torch.tensor([0, 3, 1, 7]), torch.tensor([True, True, False, True])
    both, one = MultinomialMasks(1), BinaryMasks(1)
    difference = logits[:, 0] - logits[:, 1]
    ours, wanted = both.loss(logits, labels, target, foreground), one.loss(difference, labels, target, foreground)
    torch.testing.assert_close(ours.sum, wanted.sum)
    assert torch.equal(ours.count, wanted.count)
    torch.testing.assert_close(both.probabilities(logits, labels), one.probabilities(difference, labels))


@pytest.mark.parametrize(("kind", "loss"), [("mlp", "sigmoid"), ("fcn", "softmax"), ("mlp", "softmax")])
def test_a_tiny_batch_is_learnt_and_counted(kind: str, loss: str, small: Small, paint: Callable[..., Batch]) -> None:
    torch.manual_seed(0)
    changes = (f"model.mask_head.kind={kind}", f"model.mask_head.loss={loss}", "model.mask_head.fc_channels=64")
    net, batch = build_detector(small("model.backbone.width=16", *changes), 4), paint(instances=2)
    assert isinstance(net.mask_head, MlpMaskHead) == (kind == "mlp")
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    counts = net.count_samples(batch)
    begin = net(batch)
    assert {name: float(term.count) for name, term in begin.items()} == {k: float(v) for k, v in counts.items()}
    wanted = 0.1 * float(total(begin).detach())
    for _ in range(400):
        losses = total(net(batch))
        if float(losses.detach()) < wanted:
            break
        optimizer.zero_grad()
        losses.backward()
        optimizer.step()
    assert float(losses.detach()) < wanted
    found = net.eval().detect(batch)
    assert all(one.masks is not None and one.masks.shape[1:] == (28, 28) for one in found)
    assert all(one.masks[0].min() >= 0 and one.masks[0].max() > 0.5 for one in found if one.masks is not None)
