"""The mask branch: a small fully convolutional network on every region (He et al. 2017, section 3, figure 4 right)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mrbench.config.schema import MaskHeadConfig
from mrbench.modeling import init
from mrbench.modeling.box_head import conv_stack
from mrbench.modeling.losses import LossTerm
from mrbench.modeling.widen import at_least_float32


class MaskHead(nn.Module):
    """Convolutions, a 2x2 deconvolution, and a 1x1 predictor with one channel a class.

    Only the channel of the region's class is ever used - the ground truth's in training, the predicted one at
    inference - so only that channel is computed.
    """

    def __init__(self, config: MaskHeadConfig, in_channels: int, num_classes: int, group_size: int | None) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.class_agnostic = config.class_agnostic
        self.convs = conv_stack(in_channels, config.channels, config.convs, config.norm, group_size)
        channels = config.channels if config.convs else in_channels
        self.upsample = nn.ConvTranspose2d(channels, config.channels, 2, stride=2)
        self.predictor = nn.Conv2d(config.channels, 1 if config.class_agnostic else num_classes, 1)
        init.msra(self.upsample)
        init.normal(self.predictor, std=0.001)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """[R, C, size, size] and classes int64 [R] -> logits [R, 2 size, 2 size], float32 at least.
        Background gets any."""
        x = F.relu(self.upsample(self.convs(x)), inplace=True)
        index = torch.zeros_like(labels) if self.class_agnostic else labels.clamp(max=self.num_classes - 1)
        weight = self.predictor.weight.flatten(1)[index].to(x.dtype)
        assert self.predictor.bias is not None
        # pixels by channels, so that the gradient of x comes back channels-last as the pooler puts out
        logits = torch.bmm(x.flatten(2).transpose(1, 2), weight[:, :, None])[:, :, 0]
        return (at_least_float32(logits) + self.predictor.bias[index][:, None]).view(-1, *x.shape[-2:])


def mask_loss(logits: Tensor, target: Tensor, foreground: Tensor) -> LossTerm:
    """Binary cross entropy of every pixel of every foreground region.

    logits, target [R, M, M]; foreground bool [R].
    """
    each = F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype), reduction="none")
    total = torch.where(foreground[:, None, None], each, 0.0).sum()
    return LossTerm(total, foreground.sum().to(logits.dtype) * float(logits.shape[-2] * logits.shape[-1]))
