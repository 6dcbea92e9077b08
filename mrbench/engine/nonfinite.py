"""Stopping a run whose loss is not finite, with the iteration, the loss and the images named."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mrbench.engine.failures import NonFiniteLoss


@dataclass
class LossGuard:
    """Keeps the losses since the last look on the device, so that looking is one transfer for many iterations.

    Look with `check` at least before anything is logged or saved; what has been looked at is forgotten.
    """

    _seen: list[tuple[int, dict[str, Tensor], list[int]]] = field(default_factory=list)

    def add(self, iteration: int, losses: Mapping[str, Tensor], image_ids: list[int]) -> None:
        """Remember the losses of an iteration and the images that they come from. Does not wait for the device."""
        self._seen.append((iteration, dict(losses), image_ids))

    def check(self) -> None:
        """Raises NonFiniteLoss for the first iteration since the last call whose losses are not all finite."""
        if not self._seen:
            return
        seen, self._seen = self._seen, []
        values = torch.stack([loss for _, losses, _ in seen for loss in losses.values()]).tolist()
        if all(map(is_finite, values)):
            return
        names = ((iteration, name, ids) for iteration, losses, ids in seen for name in losses)
        bad = [(where, value) for where, value in zip(names, values, strict=True) if not is_finite(value)]
        first = bad[0][0][0]
        # The total is named only where no single loss is at fault.
        bad = [entry for entry in bad if entry[0][0] == first]
        (iteration, name, ids), value = next((entry for entry in bad if entry[0][1] != "loss"), bad[0])
        raise NonFiniteLoss(iteration, name, value, ids)


def is_finite(value: float) -> bool:
    """True for a number that is neither infinite nor NaN."""
    return value - value == 0.0


def check_weights(model: nn.Module, iteration: int, image_ids: list[int]) -> None:
    """Raises NonFiniteLoss (loss "weights") where an update spoilt the weights that a checkpoint would save.

    A loss can be finite and its gradient not; the next loss would show it, but only after the checkpoint.
    """
    sums = torch.stack([parameter.detach().float().sum() for parameter in model.parameters()])
    if not bool(torch.isfinite(sums).all()):
        raise NonFiniteLoss(iteration, "weights", float("nan"), image_ids)
