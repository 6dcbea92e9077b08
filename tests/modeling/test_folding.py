"""Frozen batch norm in the convolution's weights: the same function, gradients and names as a layer of its own."""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import ops
from torchvision.models.regnet import ResBottleneckBlock
from torchvision.models.resnet import BasicBlock, Bottleneck

from mrbench.config.composer import compose
from mrbench.config.schema import BackboneConfig, ModelConfig
from mrbench.data.batch import Batch
from mrbench.modeling.box_head import conv_stack
from mrbench.modeling.build import build_backbone, build_detector
from mrbench.modeling.deformable import DeformableConv2d
from mrbench.modeling.folding import FoldedConv2d, fold_frozen_norms
from mrbench.modeling.fpn import FPN
from mrbench.modeling.norm import FrozenBatchNorm2d, make_norm


def frozen(channels: int) -> nn.Module:
    return make_norm("frozen_bn", channels)


def down(channels: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, out, 1, stride=2, bias=False), frozen(out))


def deformable() -> nn.Module:
    block = Bottleneck(8, 2, norm_layer=frozen)
    block.conv2 = DeformableConv2d(block.conv2)
    return block


BLOCKS: dict[str, Callable[[], nn.Module]] = {
    "bottleneck": lambda: Bottleneck(8, 4, 2, down(8, 16), norm_layer=frozen),
    "basic block": lambda: BasicBlock(8, 16, 2, down(8, 16), norm_layer=frozen),
    "resnext": lambda: Bottleneck(8, 2, groups=4, base_width=64, norm_layer=frozen),
    "regnet": lambda: ResBottleneckBlock(8, 16, 2, frozen, nn.ReLU, 4, 1.0, 0.25),
    "deformable": deformable,
    "conv stack": lambda: conv_stack(8, 16, 2, "frozen_bn", None),
    "7x7 stem": lambda: build_backbone(BackboneConfig(depth=10, width=8, freeze_at=0), None),
    "3x3 stem, non-local": lambda: build_backbone(
        BackboneConfig(depth=10, width=8, stem="3x3", freeze_at=0, non_local=1), None
    ),
    "pyramid": lambda: nn.Sequential(
        build_backbone(BackboneConfig(depth=10, width=8, freeze_at=0), None),
        FPN([8, 16, 32, 64], 8, "frozen_bn", None, "pool"),
    ),
}
WHOLE = ("7x7 stem", "3x3 stem, non-local", "pyramid")


def with_statistics(module: nn.Module) -> nn.Module:
    """Random weights and statistics, so that no scale is 1 and no shift 0."""
    g = torch.Generator().manual_seed(0)
    for name, value in [*module.named_parameters(), *module.named_buffers()]:
        low = 0.5 if name.endswith(("running_var", "bn.weight")) else -1.0
        with torch.no_grad():
            drawn = torch.empty(value.shape).uniform_(low, 1.5, generator=g)
            if isinstance(value, nn.Parameter) and value.dim() == 4:
                drawn *= value[0].numel() ** -0.5
            value.copy_(drawn)
    return module


def unfolded(network: nn.Module) -> nn.Module:
    """The same network as torchvision runs it: plain convolutions, and torchvision's frozen batch norms."""
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.__class__ = ops.FrozenBatchNorm2d
        elif isinstance(module, FoldedConv2d):
            module.__class__ = DeformableConv2d if isinstance(module, DeformableConv2d) else nn.Conv2d
    return network


def run(module: nn.Module, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """What comes out, and the gradients of the input and of every parameter."""
    x = x.clone().requires_grad_()
    out = module(x)
    out = out if isinstance(out, list) else [out]
    loss = sum(part.square().sum() for part in out)
    return out, list(torch.autograd.grad(loss, [x, *module.parameters()]))


@pytest.mark.parametrize("side", [32, 4])  # larger and smaller maps than weights
@pytest.mark.parametrize("dtype,share", [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("name", BLOCKS)
def test_a_fold_gives_the_outputs_and_gradients_of_torchvisions_layers(
    name: str, dtype: torch.dtype, share: float, side: int
) -> None:
    torch.manual_seed(0)
    if dtype == torch.float32 and name in WHOLE:
        share *= 10  # ten layers' rounding
    module = with_statistics(BLOCKS[name]()).to(dtype)
    plain = unfolded(module)
    fold_frozen_norms(module)
    norms = [m for m in module.modules() if isinstance(m, FrozenBatchNorm2d)]
    assert norms
    assert all(norm.folded for norm in norms)
    side *= 4 if name in WHOLE else 1
    x = torch.randn(2, 3 if name in WHOLE else 8, side, side, dtype=dtype)
    for ours, wanted in zip(run(module, x), run(plain, x), strict=True):
        largest = max(float(b.detach().norm()) for b in wanted)
        for a, b in zip(ours, wanted, strict=True):
            # the gradient of an attention's key bias is zero but for rounding
            within = share * (float(b.detach().norm()) + 1e-3 * largest)
            assert float((a - b).detach().norm()) <= within


@pytest.mark.parametrize("kind", ["fpn", "c4", "regnet_x_4gf"])
def test_a_network_keeps_its_names_and_learns_as_without_the_fold(
    kind: str, small: Callable[..., ModelConfig], paint: Callable[..., Batch]
) -> None:
    changes = {
        "fpn": ["model.backbone.freeze_at=2"],
        "c4": ["model.neck.kind=c4", "model.box_head.kind=res5", "model.box_head.fcs=0", "model.mask_head.kind=res5",
               "model.mask_head.convs=0", "model.pooler.box_size=14"],
        "regnet_x_4gf": ["model.backbone.kind=regnet_x_4gf"],
    }[kind]  # fmt: skip
    torch.manual_seed(0)
    network, batch = build_detector(small("model.norm=frozen_bn", *changes), 4), paint()
    plain = unfolded(network)
    assert any(isinstance(m, FoldedConv2d) for m in network.modules())
    assert not any(isinstance(m, FrozenBatchNorm2d) and not m.folded for m in network.modules())
    assert list(network.state_dict()) == list(plain.state_dict())
    assert [(n, p.shape) for n, p in network.named_parameters()] == [(n, p.shape) for n, p in plain.named_parameters()]
    losses = [net(batch) for net in (network, plain)]
    for name, term in losses[0].items():
        torch.testing.assert_close(term.sum, losses[1][name].sum, rtol=1e-4, atol=1e-5)
    for terms in losses:
        sum(term.sum / term.count.clamp(min=1) for term in terms.values()).backward()  # type: ignore[union-attr]
    for (name, a), b in zip(network.named_parameters(), plain.parameters(), strict=True):
        assert a.requires_grad == b.requires_grad, name
        if b.grad is not None:
            assert a.grad is not None, name
            assert float((a.grad - b.grad).norm()) <= 1e-3 * float(b.grad.norm()) + 1e-6, name


def test_statistics_loaded_after_the_fold_and_copies_have_their_own() -> None:
    torch.manual_seed(0)
    body = build_detector(compose(["model=mask_rcnn_small", "model.norm=frozen_bn"]).model, 4).backbone
    copied, x = copy.deepcopy(body), torch.randn(1, 3, 64, 64)
    state = {name: value.clone() for name, value in with_statistics(copy.deepcopy(body)).state_dict().items()}
    body.load_state_dict(state)
    plain = unfolded(body)
    torch.testing.assert_close(body(x), plain(x), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(copied(x)[0], body(x)[0], atol=1e-2)
    copied.load_state_dict(state)
    torch.testing.assert_close(copied(x), plain(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("side", [16, 2])
def test_a_fold_works_in_half_precision_channels_last_and_on_no_region(side: int) -> None:
    torch.manual_seed(0)
    block = with_statistics(BLOCKS["bottleneck"]())
    fold_frozen_norms(block)
    plain, x = unfolded(block), torch.randn(2, 8, side, side)
    with torch.autocast("cpu", torch.bfloat16):
        low = block(x)
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), plain(x), rtol=0.05, atol=0.05)
    last = block.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    assert last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last, plain(x), rtol=1e-4, atol=1e-4)
    assert block(x[:0]).shape == (0, 16, side // 2, side // 2)


@pytest.mark.parametrize("images,side,folds", [(1, 9, True), (1, 8, False), (2, 8, True)])
def test_scale_and_shift_go_over_the_weights_or_over_the_map_whichever_is_smaller(
    images: int, side: int, folds: bool
) -> None:
    """72 weights an output channel; maps of 81, 64 and 2 x 64 values. The two ways differ in their last bits."""
    network = nn.Sequential(nn.Conv2d(8, 4, 3, padding=1, bias=False), frozen(4))
    fold_frozen_norms(with_statistics(network))
    conv, norm = network
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, FrozenBatchNorm2d)
    x, (scale, shift) = torch.randn(images, 8, side, side), norm.scale_and_shift()
    on_weights = F.conv2d(x, conv.weight * scale[:, None, None, None], shift, padding=1)
    on_map = torch.addcmul(shift[:, None, None], F.conv2d(x, conv.weight, padding=1), scale[:, None, None])
    assert not torch.equal(on_weights, on_map)
    assert torch.equal(network(x), on_weights if folds else on_map)
