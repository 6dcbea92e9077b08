"""The number format of what half precision would spoil: coordinates, losses, statistics."""

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """`x` in float32, or in float64 if it is that already: a model turned to double computes in it throughout."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
