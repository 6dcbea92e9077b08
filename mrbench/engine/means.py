"""The losses' means over the iterations between two lines of the log."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class Means:
    """Running sums of the losses on the device, for the means that a log line shows.

    They are part of a checkpoint: a line that is logged after a resume has the same means as without it.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._names: list[str] = []
        self._sums: Tensor | None = None
        self._count = 0

    def add(self, losses: Mapping[str, Tensor]) -> None:
        values = torch.stack(list(losses.values()))
        self._names = list(losses)
        self._sums = values if self._sums is None else self._sums + values
        self._count += 1

    def now(self) -> dict[str, float]:
        """The means since the last `take`."""
        assert self._sums is not None
        return dict(zip(self._names, (self._sums / self._count).tolist(), strict=True))

    def take(self) -> dict[str, float]:
        """The means since the last call."""
        means = self.now()
        self._sums, self._count = None, 0
        return means

    def state_dict(self) -> dict[str, Any]:
        return {"names": self._names, "sums": self._sums, "count": self._count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        sums = state["sums"]
        self._names, self._count = state["names"], state["count"]
        self._sums = None if sums is None else sums.to(self._device)
