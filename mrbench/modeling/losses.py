"""What the parts of the network return as losses."""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor


class LossTerm(NamedTuple):
    """A loss before normalisation: sum / max(count, 1), where both may first be added up over processes."""

    sum: Tensor  # float32 scalar
    count: Tensor  # type: ignore[assignment]  # float32 scalar, without gradient


def smooth_l1(prediction: Tensor, target: Tensor, beta: float) -> Tensor:
    """Huber loss scaled to slope 1 (Girshick 2015), elementwise; beta 0 is L1."""
    if beta == 0:
        return (prediction - target).abs()
    return F.smooth_l1_loss(prediction, target, beta=beta, reduction="none")
