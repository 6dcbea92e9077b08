"""Non-local blocks: every position looks at all others (Wang et al. 2018)."""

import torch.nn.functional as F
from torch import Tensor, nn

from mrbench.modeling import init
from mrbench.modeling.norm import make_norm


class NonLocal(nn.Module):
    """The embedded Gaussian on one map, with half the channels inside and keys and values pooled 2x2 (sections 3.2 and
    3.3; figure 2). Begins as the identity, so that it can be put into a trained body (section 4.1).

    A norm that learns begins with a scale of zero; a frozen one could never leave it, so there the last convolution
    begins at zero and has none. Products are divided by the square root of their length, as the authors' code does
    (video-nonlocal-net, lib/models/nonlocal_helper.py, MODEL.NONLOCAL.USE_SCALE). The padding of a batch is looked at
    like the rest of the map.
    """

    def __init__(self, channels: int, norm: str, group_size: int | None) -> None:
        super().__init__()
        inner = max(channels // 2, 1)
        self.query = nn.Conv2d(channels, inner, 1)
        self.key = nn.Conv2d(channels, inner, 1)
        self.value = nn.Conv2d(channels, inner, 1)
        self.out = nn.Conv2d(inner, channels, 1)
        self.norm = make_norm("none" if norm == "frozen_bn" else norm, channels, group_size)

    def begin(self) -> None:
        """Initial weights (section 4.1: deviation 0.01)."""
        for layer in (self.query, self.key, self.value, self.out):
            init.normal(layer, std=0.01)
        last = self.out if isinstance(self.norm, nn.Identity) else self.norm
        nn.init.zeros_(last.weight)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> the same shape."""
        pooled = F.max_pool2d(x, 2, ceil_mode=True)
        query, key, value = self.query(x), self.key(pooled), self.value(pooled)
        rows = [part.flatten(2).transpose(1, 2) for part in (query, key, value)]  # [B, positions, C / 2]
        seen = F.scaled_dot_product_attention(*rows)
        return x + self.norm(self.out(seen.transpose(1, 2).reshape(query.shape)))
