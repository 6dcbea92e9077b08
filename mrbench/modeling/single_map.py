"""The neck that is none: RPN and heads on the body's last map (He et al. 2017, C4 and C5)."""

from torch import Tensor, nn


class SingleMap(nn.Module):
    """Of the body's maps the last, with its `channels` and its stride in `strides`."""

    def __init__(self, in_channels: list[int], strides: list[int]) -> None:
        super().__init__()
        self.channels = in_channels[-1]
        self.strides = strides[-1:]

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """C2.. -> [the last], [B, channels, H / stride, W / stride]."""
        return features[-1:]
