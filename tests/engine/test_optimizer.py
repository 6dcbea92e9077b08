"""Which parameter decays how, and what an update is."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from mrbench.config.schema import RunConfig
from mrbench.config.schema_training import LrFactorsConfig, OptimizerConfig
from mrbench.engine.optimizer import (
    build_optimizer,
    clip_elements,
    clip_gradients,
    parameter_groups,
    set_learning_rate,
)
from mrbench.errors import UserError
from mrbench.modeling.build import build_detector

DETECTRON2_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, nn.GroupNorm, nn.LayerNorm)


def detectron2_decay(model: nn.Module, base: float, norm: float, bias: float | None) -> dict[nn.Parameter, float]:
    """The rules of `get_default_optimizer_params` (detectron2/solver/build.py), for norms' own shifts the norm's."""
    decay = {}
    for module in model.modules():
        for name, value in module.named_parameters(recurse=False):
            if value.requires_grad and value not in decay:
                decay[value] = base
                if name == "bias" and bias is not None:
                    decay[value] = bias
                if isinstance(module, DETECTRON2_NORMS):
                    decay[value] = norm
    return decay


@pytest.mark.parametrize("norm", ["gn", "bn", "sync_bn", "frozen_bn"])
@pytest.mark.parametrize("bias", [None, 0.25])
def test_groups_follow_detectron2s_rules(tiny: Callable[..., RunConfig], norm: str, bias: float | None) -> None:
    model = build_detector(tiny(f"model.norm={norm}", "model.backbone.freeze_at=2").model, 4)
    config = OptimizerConfig(weight_decay=0.5, weight_decay_norm=0.125, weight_decay_bias=bias)
    found: dict[nn.Parameter, object] = {}
    for group in parameter_groups(model, config):
        parameters = group["params"]
        assert isinstance(parameters, list)
        found.update(dict.fromkeys(parameters, group["weight_decay"]))
    assert found == detectron2_decay(model, 0.5, 0.125, bias)
    frozen = [p for p in model.parameters() if not p.requires_grad]
    assert frozen
    assert not any(p in found for p in frozen)


def test_a_shared_parameter_is_updated_once() -> None:
    layer = nn.Linear(2, 2)
    groups = parameter_groups(nn.ModuleList([layer, layer]), OptimizerConfig())
    assert sum(len(group["params"]) for group in groups) == 2  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_updates_are_those_of_the_plain_optimiser(kind: str) -> None:
    config = OptimizerConfig(
        kind=kind, lr=0.05, betas=[0.8, 0.95], weight_decay=0.1, weight_decay_norm=0.1, momentum=0.7
    )
    ours, plain = nn.Linear(5, 3), nn.Linear(5, 3)
    plain.load_state_dict(ours.state_dict())
    reference: torch.optim.Optimizer
    if kind == "sgd":
        reference = torch.optim.SGD(plain.parameters(), 0.05, 0.7, weight_decay=0.1, foreach=False)
    else:
        reference = torch.optim.AdamW(plain.parameters(), 0.05, (0.8, 0.95), weight_decay=0.1, foreach=False)
    optimizer = build_optimizer(ours, config)
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    for _ in range(5):
        for layer, step in ((ours, optimizer), (plain, reference)):
            step.zero_grad()
            layer(x).square().sum().backward()
            step.step()
    torch.testing.assert_close(ours.weight, plain.weight, rtol=1e-5, atol=1e-6)


def test_clipping_bounds_the_norm_of_all_gradients_together() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.GroupNorm(1, 3))
    optimizer = build_optimizer(model, OptimizerConfig())
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 2.0)
    norm = clip_gradients(optimizer, 3.0)
    elements = sum(p.numel() for p in model.parameters())
    assert float(norm) == pytest.approx(2.0 * elements**0.5)
    joined = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert float(joined.norm()) == pytest.approx(3.0, rel=1e-4)
    clip_gradients(optimizer, 100.0)  # within the bound: nothing changes
    assert float(joined.norm()) == pytest.approx(3.0, rel=1e-4)


PARTS = {"backbone": 0.1, "neck": 0.5, "rpn": 2.0, "box_head": 3.0, "mask_head": 0.0}


@pytest.mark.parametrize("neck", ["fpn", "c4"])
def test_each_part_learns_at_its_own_rate_and_biases_at_a_multiple_of_it(
    tiny: Callable[..., RunConfig], neck: str
) -> None:
    single = ("neck.kind=c4", "box_head.kind=res5", "mask_head.kind=res5", "pooler.box_size=14", "box_head.fcs=0")
    changes = [f"model.{change}" for change in single] if neck == "c4" else []
    model = build_detector(tiny(*changes, "model.backbone.freeze_at=0").model, 4)
    config = OptimizerConfig(lr_factors=LrFactorsConfig(**PARTS), lr_factor_bias=2.0)
    optimizer = build_optimizer(model, config)
    set_learning_rate(optimizer, 0.25)
    found = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert len(found) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        part = name.partition(".")[0].replace("res5", "box_head")
        bias = 2.0 if name.endswith(".bias") else 1.0  # Detectron2's bias_lr_factor goes by the name, norms included
        assert found[parameter] == pytest.approx(0.25 * PARTS[part] * bias), name


def test_a_part_with_factor_0_stays_as_it_is(tiny: Callable[..., RunConfig]) -> None:
    config = tiny("optimizer.lr_factors.neck=0", "optimizer.weight_decay=0.5")
    model = build_detector(config.model, 4)
    optimizer = build_optimizer(model, config.optimizer)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    set_learning_rate(optimizer, 0.1)
    optimizer.step()
    changed = {name.partition(".")[0] for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {"backbone", "rpn", "box_head", "mask_head"}


def test_clipping_by_value_bounds_every_element() -> None:
    layer = nn.Linear(2, 2)
    optimizer = build_optimizer(layer, OptimizerConfig())
    layer.weight.grad = torch.tensor([[-3.0, 0.5], [0.2, 7.0]])
    layer.bias.grad = torch.tensor([1.0, -1.0])
    clip_elements(optimizer, 0.5)
    assert layer.weight.grad.flatten().tolist() == pytest.approx([-0.5, 0.5, 0.2, 0.5])
    assert layer.bias.grad.tolist() == [0.5, -0.5]


def test_only_one_kind_of_clipping_is_admitted(tiny: Callable[..., RunConfig]) -> None:
    with pytest.raises(UserError, match="clip_value"):
        tiny("optimizer.clip_norm=1", "optimizer.clip_value=1")
