"""The mask branch of fully connected layers, which the convolutions are compared with (He et al. 2017, table 2e)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mrbench.config.schema import MaskHeadConfig
from mrbench.modeling import init
from mrbench.modeling.mask_head import MaskBranch
from mrbench.modeling.mask_losses import mask_meaning
from mrbench.modeling.widen import at_least_float32


class VectorPredictor(nn.Linear):
    """A fully connected layer with a row for every pixel of every class, of which a region may ask for one class."""

    def __init__(self, features: int, channels: int, size: int) -> None:
        super().__init__(features, channels * size * size)
        self.channels = channels
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """[R, features] -> [R, channels, size, size]."""
        return super().forward(x).view(-1, self.channels, self.size, self.size)

    def of_channel(self, x: Tensor, channel: Tensor) -> Tensor:
        """[R, features] and channels int64 [R] -> logits [R, size, size], float32.

        Regions of one class are taken together, and classes without a region cost nothing. How many there are of
        each the host has to know, so it waits for the device; a copy of the class's rows for every region instead
        would be 3 MB a region at 28x28, and all rows 80 times the work.
        """
        order = channel.argsort(stable=True)
        counts = torch.bincount(channel, minlength=self.channels).tolist()
        # unbind, not indexing: the gradients of the classes come together once, not each in a full-sized tensor
        weights = self.weight.view(self.channels, self.size**2, -1).unbind()
        biases = self.bias.view(self.channels, -1).unbind()
        parts = [
            F.linear(part, weight, bias)
            for part, weight, bias in zip(x[order].split(counts), weights, biases, strict=True)
            if len(part)
        ]
        if not parts:  # no region: no mask, but one that still hangs on the weights
            parts = [F.linear(x, weights[0], biases[0])]
        return at_least_float32(torch.cat(parts)[order.argsort()]).view(-1, self.size, self.size)


class MlpMaskHead(MaskBranch):
    """Hidden layers with ReLU on the flattened region, then M x M outputs a class, M being twice the region's side."""

    def __init__(self, config: MaskHeadConfig, in_channels: int, size: int, num_classes: int) -> None:
        super().__init__(mask_meaning(config.loss, num_classes, config.class_agnostic))
        features = in_channels * size * size
        self.fcs = nn.ModuleList()
        for _ in range(config.fcs):
            fc = nn.Linear(features, config.fc_channels)
            init.xavier(fc)
            self.fcs.append(fc)
            features = config.fc_channels
        self.predictor = VectorPredictor(features, self.masks.channels, 2 * size)
        init.normal(self.predictor, std=0.001)

    def trunk(self, x: Tensor) -> Tensor:
        """[R, C, size, size] -> [R, fc_channels]."""
        x = x.flatten(1)
        for fc in self.fcs:
            x = F.relu(fc(x), inplace=True)
        return x
