"""From regions of interest to feature maps of fixed size, over the levels of a pyramid (He et al. 2017, section 3)."""

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align, roi_pool

from mrbench.config.schema import PoolerConfig
from mrbench.modeling.separable import separable_roi_align
from mrbench.modeling.widen import at_least_float32


class Pooler(nn.Module):
    """Each region is cut from one level, chosen by its area (Lin et al. 2017, equation 1).

    `strides` are those of the levels handed in, P2 first; `size` the side of the result.
    """

    def __init__(self, config: PoolerConfig, size: int, strides: list[int]) -> None:
        super().__init__()
        self.config = config
        self.size = size
        self.strides = strides

    def levels_of(self, boxes: Tensor) -> Tensor:
        """[R, 4] -> index of the level of each, 0 for P2 (Detectron2, modeling/poolers.py)."""
        side = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).clamp(min=0).sqrt()
        level = torch.floor(self.config.canonical_level + torch.log2(side / self.config.canonical_size + 1e-8))
        return level.long().sub(2).clamp(0, len(self.strides) - 1)

    def forward(self, features: list[Tensor], boxes: Tensor, image: Tensor) -> Tensor:
        """features: P2.. [B, C, H, W]; boxes float32 [R, 4] in pixels; image int64 [R] -> [R, C, size, size]."""
        features = features[: len(self.strides)]
        c, levels = self.config, self.levels_of(boxes)
        if c.kind == "roi_align" and c.method == "separable":
            return separable_roi_align(
                features, boxes, image, levels, self.size, self.strides, c.sampling_ratio, c.aligned
            )
        if boxes.is_cuda:
            return self._everywhere(features, boxes, image, levels)
        parts, order = [], []
        for i, feature in enumerate(features):
            index = torch.where(levels == i)[0]
            if len(index):
                parts.append(self._pool(feature, boxes[index], image[index], self.strides[i]))
                order.append(index)
        if not parts:  # no region: an empty map that still hangs on the features
            return features[0].new_zeros(0, features[0].shape[1], self.size, self.size) + 0 * features[0].sum()
        if len(parts) == 1:
            return parts[0]
        return torch.cat(parts)[torch.cat(order).argsort()]

    def _everywhere(self, features: list[Tensor], boxes: Tensor, image: Tensor, levels: Tensor) -> Tensor:
        """Pools every region on every level, away from the picture where it does not belong, where the kernel is
        quick to put out zeros. Choosing the regions of a level instead would make the host wait for the device."""
        total: Tensor | None = None
        for i, feature in enumerate(features):
            here = torch.where((levels == i)[:, None], boxes, -1e4)
            part = self._pool(feature, here, image, self.strides[i])
            total = part if total is None else total + part
        assert total is not None
        return total

    def _pool(self, feature: Tensor, boxes: Tensor, image: Tensor, stride: int) -> Tensor:
        # in float32 at least: coordinates in half precision would be whole pixels off
        c, wide = self.config, at_least_float32(feature)
        rois = torch.cat([image[:, None].to(wide.dtype), boxes.to(wide.dtype)], 1)
        if c.kind == "roi_pool":
            return roi_pool(wide, rois, self.size, 1 / stride).to(feature.dtype)
        # torchvision's "as many points as the bin has pixels" is any value below one
        points = c.sampling_ratio or -1
        return roi_align(wide, rois, self.size, 1 / stride, points, c.aligned).to(feature.dtype)
