"""The optimiser of a run: SGD or AdamW over groups of parameters that share weight decay and learning rate."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from mrbench.config.schema_training import LrFactorsConfig, OptimizerConfig

PARTS = {"res5": "box_head"}  # the fifth stage, where boxes and masks stand on it (mrbench.modeling.res5)
NORM_LAYERS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm)


def parameter_groups(model: nn.Module, config: OptimizerConfig) -> list[dict[str, object]]:
    """Trainable parameters, grouped by weight decay and by what their learning rate is multiplied by (`lr_factor`);
    frozen ones are left out, shared ones taken once.

    Scales and shifts of normalisation layers get `weight_decay_norm`, other biases `weight_decay_bias`, the rest
    `weight_decay`: the rules of Detectron2's `get_default_optimizer_params` (solver/build.py), but for the shift of
    a normalisation layer when `weight_decay_bias` is set, which Detectron2 counts as a bias. `lr_factors` are those of
    the network's parts, and `lr_factor_bias` is every bias's besides, a normalisation layer's shift included, as with
    Detectron2's `bias_lr_factor`. The groups are in the order in which the model names their first parameter, so that
    an optimiser's state always fits.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    seen: set[nn.Parameter] = set()
    bias_decay = config.weight_decay if config.weight_decay_bias is None else config.weight_decay_bias
    for path, module in model.named_modules():
        of_part = part_factor(path, config.lr_factors)
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or parameter in seen:
                continue
            seen.add(parameter)
            if isinstance(module, NORM_LAYERS):
                decay = config.weight_decay_norm
            elif name == "bias":
                decay = bias_decay
            else:
                decay = config.weight_decay
            factor = of_part * (config.lr_factor_bias if name == "bias" else 1.0)
            groups.setdefault((decay, factor), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": decay, "lr_factor": factor}
        for (decay, factor), parameters in groups.items()
    ]


def part_factor(path: str, factors: LrFactorsConfig) -> float:
    """Of the module at `path` (as `backbone.layer1.0`) in the network."""
    part = path.partition(".")[0]
    return float(getattr(factors, PARTS.get(part, part), 1.0))


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group of `parameter_groups` its share of the run's learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_factor"]


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """An optimiser over the model's trainable parameters.

    The fused kernels update element by element, hence the same way every time, and take the loss scaler's verdict
    as a tensor, hence without waiting for the device.
    """
    groups = parameter_groups(model, config)
    if config.kind == "adamw":
        beta1, beta2 = config.betas
        return torch.optim.AdamW(groups, lr=config.lr, betas=(beta1, beta2), fused=True)
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, fused=True)


def update(optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, config: OptimizerConfig) -> None:
    """Move the parameters by their gradients, clipped where `config` says so. Steps whose gradients overflowed fp16
    are left out."""
    if config.clip_norm is not None or config.clip_value is not None:
        scaler.unscale_(optimizer)
    if config.clip_norm is not None:
        clip_gradients(optimizer, config.clip_norm)
    if config.clip_value is not None:
        clip_elements(optimizer, config.clip_value)
    scaler.step(optimizer)
    scaler.update()


def clip_gradients(optimizer: torch.optim.Optimizer, largest_norm: float) -> Tensor:
    """Scale all gradients together so that their joint L2 norm is at most `largest_norm`; returns the norm before.

    Stays on the device: the scale is a tensor, also when nothing is clipped.
    """
    return torch.nn.utils.clip_grad_norm_(_parameters(optimizer), largest_norm)


def clip_elements(optimizer: torch.optim.Optimizer, largest: float) -> None:
    """Bring every element of every gradient into -`largest` .. `largest`."""
    torch.nn.utils.clip_grad_value_(_parameters(optimizer), largest)


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
