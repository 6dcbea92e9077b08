"""A moving average of the weights, which is evaluated in their place."""

import copy

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from mrbench.modeling.build import Network


class WeightAverage:
    """After every update `decay` of itself and 1 - `decay` of the weights; it begins as the weights do (timm,
    utils/model_ema.py, `ModelEmaV2`).

    Frozen parameters and buffers are the model's own. Nothing in it waits for the device; an update that the loss
    scaler skips counts as one that changes nothing.
    """

    def __init__(self, model: Network, decay: float) -> None:
        self._source = model
        self._model = copy.deepcopy(model).requires_grad_(False)
        pairs = zip(self._model.parameters(), model.parameters(), strict=True)
        moving = [(average, weight) for average, weight in pairs if weight.requires_grad]
        self._averages = [average for average, _ in moving]
        self._weights = [weight for _, weight in moving]
        self._move = get_ema_multi_avg_fn(decay)

    @torch.no_grad()
    def update(self) -> None:
        """Call it once after every update of the model."""
        self._move(self._averages, self._weights, 0)

    @torch.no_grad()
    def model(self) -> Network:
        """The network with averaged weights, and the model's buffers as they are now."""
        for average, buffer in zip(self._model.buffers(), self._source.buffers(), strict=True):
            average.copy_(buffer)
        return self._model
