"""The feature pyramid (Lin et al. 2017): P2..P5, and P6 for the RPN."""

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from mrbench.modeling import init
from mrbench.modeling.norm import norm_factory


class FPN(FeaturePyramidNetwork):
    """torchvision's pyramid on plain lists, begun as Detectron2's (modeling/backbone/fpn.py).

    last_level "pool" adds P6, every second pixel of P5.
    """

    def __init__(
        self, in_channels: list[int], channels: int, norm: str, group_size: int | None, last_level: str
    ) -> None:
        extra = LastLevelMaxPool() if last_level == "pool" else None
        super().__init__(in_channels, channels, extra, norm_factory(norm, group_size))
        self.channels = channels
        self.strides = [4 * 2**i for i in range(len(in_channels) + (extra is not None))]
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                init.xavier(module)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """C2..C5 -> P2..P5 (P6), each [B, channels, H / stride, W / stride]."""
        return list(super().forward({str(i): f for i, f in enumerate(features)}).values())


class AveragingFPN(FPN):
    """A level is joined with the one above it by their mean instead of their sum (Detectron2's fuse_type "avg")."""

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """C2..C5 -> P2..P5 (P6), each [B, channels, H / stride, W / stride]."""
        joined = [inner(f) for inner, f in zip(self.inner_blocks, features, strict=True)]
        for i in reversed(range(len(joined) - 1)):
            joined[i] = (joined[i] + F.interpolate(joined[i + 1], size=joined[i].shape[-2:])) / 2
        levels = [layer(x) for layer, x in zip(self.layer_blocks, joined, strict=True)]
        if self.extra_blocks is not None:
            levels, _ = self.extra_blocks(levels, features, [str(i) for i in range(len(levels))])
        return levels
