"""How weights begin, as in Detectron2 (fvcore/nn/weight_init.py)."""

from torch import nn


def msra(layer: nn.Module) -> None:
    """He et al. 2015 over the outputs; for convolutions followed by ReLU (`c2_msra_fill`)."""
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")  # type: ignore[arg-type]
    _zero_bias(layer)


def xavier(layer: nn.Module) -> None:
    """Caffe2's XavierFill; for the pyramid and fully connected layers (`c2_xavier_fill`)."""
    nn.init.kaiming_uniform_(layer.weight, a=1)  # type: ignore[arg-type]
    _zero_bias(layer)


def normal(layer: nn.Module, std: float) -> None:
    nn.init.normal_(layer.weight, std=std)  # type: ignore[arg-type]
    _zero_bias(layer)


def _zero_bias(layer: nn.Module) -> None:
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
