"""The mask branch: a small fully convolutional network on every region (He et al. 2017, section 3, figure 4 right)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mrbench.config.schema import MaskHeadConfig
from mrbench.modeling import init
from mrbench.modeling.box_head import conv_stack
from mrbench.modeling.mask_losses import BinaryMasks, MaskPredictor, MultinomialMasks, mask_meaning
from mrbench.modeling.widen import at_least_float32


class PixelPredictor(nn.Conv2d):
    """A 1x1 convolution with one channel a class, of which a region may ask for one alone."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__(in_channels, channels, 1)

    def of_channel(self, x: Tensor, channel: Tensor) -> Tensor:
        """[R, C, M, M] and channels int64 [R] -> logits [R, M, M], float32 at least."""
        weight = self.weight.flatten(1)[channel].to(x.dtype)
        assert self.bias is not None
        # pixels by channels, so that the gradient of x comes back channels-last as the pooler puts out
        logits = torch.bmm(x.flatten(2).transpose(1, 2), weight[:, :, None])[:, :, 0]
        return (at_least_float32(logits) + self.bias[channel][:, None]).view(-1, *x.shape[-2:])


class MaskBranch(nn.Module):
    """A trunk and a last layer; `masks` says what the outputs mean, and gives their loss and probabilities."""

    predictor: MaskPredictor

    def __init__(self, masks: BinaryMasks | MultinomialMasks) -> None:
        super().__init__()
        self.masks = masks

    def trunk(self, x: Tensor) -> Tensor:
        """Of pooled features [R, C, size, size] what the predictor takes."""
        raise NotImplementedError

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """[R, C, size, size] and classes int64 [R] -> logits as of `masks`, float32, M = 2 size."""
        return self.masks.logits(self.predictor, self.trunk(x), labels)


class MaskHead(MaskBranch):
    """Convolutions, a 2x2 deconvolution, and a 1x1 predictor with one channel a class."""

    def __init__(self, config: MaskHeadConfig, in_channels: int, num_classes: int, group_size: int | None) -> None:
        super().__init__(mask_meaning(config.loss, num_classes, config.class_agnostic))
        self.convs = conv_stack(in_channels, config.channels, config.convs, config.norm, group_size)
        channels = config.channels if config.convs else in_channels
        self.upsample = nn.ConvTranspose2d(channels, config.channels, 2, stride=2)
        self.predictor = PixelPredictor(config.channels, self.masks.channels)
        init.msra(self.upsample)
        init.normal(self.predictor, std=0.001)

    def trunk(self, x: Tensor) -> Tensor:
        """[R, C, size, size] -> [R, channels, 2 size, 2 size]."""
        return F.relu(self.upsample(self.convs(x)), inplace=True)
