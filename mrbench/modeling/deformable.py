"""Deformable convolution (Dai et al. 2017): every tap of the kernel is moved by an offset read off the map itself."""

from torch import Tensor, nn
from torchvision.ops import deform_conv2d


class DeformableConv2d(nn.Conv2d):
    """A 3x3 convolution whose nine taps have offsets, the same for all channels; these begin at zero, so it begins as
    the plain convolution with its weights (Detectron2, modeling/backbone/resnet.py, `DeformBottleneckBlock`)."""

    def __init__(self, plain: nn.Conv2d) -> None:
        """With the shape of `plain`, 3x3 and without a bias."""
        of_taps = {"stride": plain.stride, "padding": plain.padding, "dilation": plain.dilation}
        super().__init__(plain.in_channels, plain.out_channels, 3, groups=plain.groups, bias=False, **of_taps)  # type: ignore[arg-type]
        self.offset = nn.Conv2d(plain.in_channels, 2 * 9, 3, **of_taps)  # type: ignore[arg-type]

    def begin(self) -> None:
        """Offsets of zero."""
        nn.init.zeros_(self.offset.weight)
        assert self.offset.bias is not None
        nn.init.zeros_(self.offset.bias)

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """What nn.Conv2d's forward calls with its parameters."""
        # in float32 at least: an offset in half precision would be whole cells off
        offset = self.offset(x).float() if x.dtype.itemsize < 4 else self.offset(x)
        moved = deform_conv2d(
            x.to(offset.dtype),
            offset,
            weight.to(offset.dtype),
            None if bias is None else bias.to(offset.dtype),
            self.stride,
            self.padding,
            self.dilation,
        )
        return moved.to(x.dtype)
