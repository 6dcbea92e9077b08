"""Frozen batch norms folded into the convolutions before them: weight times scale, and the shift as the bias.

One pass over the weights instead of two over the activations, and one more over their gradients. It is done anew in
every forward pass, so gradients reach the convolution's own weight, and weights may be loaded at any time. Where a
map is smaller than the weights, scale and shift go over the map instead, in one pass.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from mrbench.modeling.deformable import DeformableConv2d
from mrbench.modeling.norm import FrozenBatchNorm2d


class FoldedConv2d(nn.Conv2d):
    """A convolution that does the work of the frozen batch norm after it as well."""

    folded_norm: tuple[FrozenBatchNorm2d]  # in a tuple, so that it has one place in the network: its own

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> what the norm would put out."""
        scale, shift = self.folded_norm[0].scale_and_shift()
        if self._folds(x):
            return self._conv_forward(x, self.weight * scale[:, None, None, None], shift)
        out = self._conv_forward(x, self.weight, None)
        scale, shift = (value.to(out.dtype)[:, None, None] for value in (scale, shift))
        return torch.addcmul(shift, out, scale)

    def _folds(self, x: Tensor) -> bool:
        """Whether an output channel has more values than weights. Compiled code folds always: there the choice would
        be one more program for each size of picture."""
        values = x.shape[0] * x.shape[2] * x.shape[3] // (self.stride[0] * self.stride[1])
        return torch.compiler.is_compiling() or values > self.weight[0].numel()


class FoldedDeformableConv2d(FoldedConv2d, DeformableConv2d):
    """The same for a deformable convolution, whose offsets have no norm."""


FOLDED: dict[type[nn.Module], type[FoldedConv2d]] = {
    nn.Conv2d: FoldedConv2d,
    DeformableConv2d: FoldedDeformableConv2d,
}


def fold_frozen_norms(network: nn.Module) -> None:
    """Fold every frozen batch norm that comes right after a convolution among the parts of a module, in whose order
    all blocks in use run them. Parameters, buffers and their names stay as they are; only the arithmetic changes."""
    for module in network.modules():
        for conv, norm in pairwise(module.children()):
            if type(conv) in FOLDED and isinstance(norm, FrozenBatchNorm2d):
                assert isinstance(conv, nn.Conv2d)
                assert conv.bias is None
                conv.__class__ = FOLDED[type(conv)]
                conv.folded_norm = (norm,)  # type: ignore[assignment]
                norm.folded = True
