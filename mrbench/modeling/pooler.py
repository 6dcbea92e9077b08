"""From regions of interest to feature maps of fixed size, over the levels of a pyramid (He et al. 2017, section 3)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align, roi_pool

from mrbench.config.schema import PoolerConfig
from mrbench.modeling.quantise import quantise
from mrbench.modeling.separable import separable_roi_align
from mrbench.modeling.widen import at_least_float32


class Pooler(nn.Module):
    """Each region is cut from one level, chosen by its area (Lin et al. 2017, equation 1).

    roi_align: bilinear at regular points of every bin, averaged, or the greatest of them (table 2c of He et al. 2017).
    roi_warp: the same in a region of whole cells (Dai et al. 2016). roi_pool: the greatest cell of every bin, bins
    being of whole cells as well (Girshick 2015). `strides` are those of the levels handed in, P2 first; `size` the
    side of the result.
    """

    def __init__(self, config: PoolerConfig, size: int, strides: list[int]) -> None:
        super().__init__()
        self.config = config
        self.size = size
        self.strides = strides
        # The greatest point: every point is pooled as a bin of its own, then the greatest of each bin's is taken.
        self.takes_greatest = config.aggregate == "max" and config.kind != "roi_pool"
        self.grid = size * config.sampling_ratio if self.takes_greatest else size
        self.points = 1 if self.takes_greatest else config.sampling_ratio

    def levels_of(self, boxes: Tensor) -> Tensor:
        """[R, 4] -> index of the level of each, 0 for P2 (Detectron2, modeling/poolers.py)."""
        side = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).clamp(min=0).sqrt()
        level = torch.floor(self.config.canonical_level + torch.log2(side / self.config.canonical_size + 1e-8))
        return level.long().sub(2).clamp(0, len(self.strides) - 1)

    def forward(self, features: list[Tensor], boxes: Tensor, image: Tensor) -> Tensor:
        """features: P2.. [B, C, H, W]; boxes float32 [R, 4] in pixels; image int64 [R] -> [R, C, size, size]."""
        features = features[: len(self.strides)]
        c, levels = self.config, self.levels_of(boxes)
        if c.inclusive:
            boxes = torch.cat([boxes[:, :2], boxes[:, 2:] - 1], 1)
        if c.kind == "roi_warp":
            strides = torch.tensor(self.strides, dtype=boxes.dtype).to(boxes.device, non_blocking=True)
            boxes = quantise(boxes, strides[levels][:, None])
        pooled = self._over_levels(features, boxes, image, levels)
        return F.max_pool2d(pooled, c.sampling_ratio) if self.takes_greatest else pooled

    def _over_levels(self, features: list[Tensor], boxes: Tensor, image: Tensor, levels: Tensor) -> Tensor:
        """Each region from its own level: [R, C, grid, grid]."""
        c = self.config
        if c.kind != "roi_pool" and c.method == "separable":
            return separable_roi_align(features, boxes, image, levels, self.grid, self.strides, self.points, c.aligned)
        if boxes.is_cuda:
            return self._everywhere(features, boxes, image, levels)
        parts, order = [], []
        for i, feature in enumerate(features):
            # Where a level has no region, what is pooled from it is empty, but every level hangs on the losses.
            index = torch.where(levels == i)[0]
            parts.append(self._pool(feature, boxes[index], image[index], self.strides[i]))
            order.append(index)
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
        # in float32 at least, whatever the features: coordinates in half precision would be whole pixels off
        wide = at_least_float32(feature)
        rois = torch.cat([image[:, None].to(boxes.dtype), boxes], 1).to(wide.dtype)
        if self.config.kind == "roi_pool":
            return roi_pool(wide, rois, self.grid, 1 / stride).to(feature.dtype)
        # torchvision's "as many points as the bin has pixels" is any value below one
        return roi_align(wide, rois, self.grid, 1 / stride, self.points or -1, self.config.aligned).to(feature.dtype)
