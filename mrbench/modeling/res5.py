"""The C4 network: the body's fifth stage runs on every region, for boxes and masks (He et al. 2017, figure 4)."""

import torch
from torch import Tensor, nn

from mrbench.config.schema import BoxHeadConfig
from mrbench.data.batch import Batch
from mrbench.modeling.box_head import BoxHead
from mrbench.modeling.detector import MaskRCNN
from mrbench.modeling.losses import LossTerm
from mrbench.modeling.roi_samples import RoISamples


class AveragedBoxHead(BoxHead):
    """A box head on the mean of each region; without fully connected layers, only the two predictors."""

    def __init__(self, config: BoxHeadConfig, in_channels: int, num_classes: int, group_size: int | None) -> None:
        super().__init__(config, in_channels, 1, num_classes, group_size)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[R, C, H, W] -> class logits [R, K + 1] and deltas [R, K or 1, 4], both float32."""
        return super().forward(x.mean((2, 3), keepdim=True))


class Res5MaskRCNN(MaskRCNN):
    """Mask R-CNN whose box and mask branches stand on `res5` of the pooled region, half its side, which they share
    (Detectron2, modeling/roi_heads/roi_heads.py, `Res5ROIHeads`). In training it runs once for both.

    A keypoint branch pools from the map itself, as anywhere else.
    """

    def __init__(self, res5: nn.Module, **parts) -> None:  # type: ignore[no-untyped-def]
        """parts: what `MaskRCNN` takes; the mask pooler is the box pooler, or None."""
        super().__init__(**parts)
        self.res5 = res5

    @property
    def mask_side(self) -> int:
        return 2 * ((self.box_pooler.size + 1) // 2)

    def _box_regions(self, features: list[Tensor], boxes: Tensor, image: Tensor) -> Tensor:
        regions: Tensor = self.res5(super()._box_regions(features, boxes, image))
        return regions

    def _mask_regions(self, features: list[Tensor], boxes: Tensor, image: Tensor) -> Tensor:
        return self._box_regions(features, boxes, image)

    def _head_losses(self, features: list[Tensor], samples: RoISamples, batch: Batch) -> dict[str, LossTerm]:
        compact = self._compacts(samples.boxes)
        rois = samples.flat(samples.used if compact else None)
        regions = self._box_regions(features, rois.boxes, rois.image)
        losses = self._box_losses_on(regions, rois)
        if self.mask_head is not None:
            if compact:
                index = rois.foreground.nonzero()[:, 0]
            else:  # the places that foreground can be in, whatever is in them
                places = torch.arange(samples.used.numel(), device=regions.device).view_as(samples.used)
                index = places[:, : self._most_foreground].flatten()
            losses["mask"] = self._mask_loss_on(regions[index], self._mask_rois(samples), batch)
        return losses
