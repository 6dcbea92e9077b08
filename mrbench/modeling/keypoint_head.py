"""The keypoint branch: a mask with a single one for every keypoint of a region (He et al. 2017, section 5)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mrbench.config.schema import KeypointHeadConfig
from mrbench.modeling import init
from mrbench.modeling.box_head import conv_stack
from mrbench.modeling.losses import LossTerm
from mrbench.modeling.widen import at_least_float32


class KeypointHead(nn.Module):
    """3x3 convolutions with ReLU, a 4x4 deconvolution of stride 2 with one channel a keypoint, and bilinear
    upsampling to four times the region's side (Detectron2, keypoint_head.py, `KRCNNConvDeconvUpsampleHead`)."""

    def __init__(self, config: KeypointHeadConfig, in_channels: int) -> None:
        super().__init__()
        self.convs = conv_stack(in_channels, config.channels, config.convs, "none", None)
        channels = config.channels if config.convs else in_channels
        self.predictor = nn.ConvTranspose2d(channels, config.keypoints, 4, stride=2, padding=1)
        init.msra(self.predictor)

    def forward(self, x: Tensor) -> Tensor:
        """[R, C, size, size] -> logits [R, K, 4 size, 4 size], float32."""
        x = at_least_float32(self.predictor(self.convs(x)))
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


@torch.no_grad()
def keypoint_targets(keypoints: Tensor, boxes: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Which of the size x size cells of its region each keypoint lies in, and whether it counts.

    keypoints float32 [R, K, 3] (x, y, visibility) and boxes float32 [R, 4], both in the network's pixels -> cells
    int64 [R, K], row by row, and bool [R, K]: annotated and inside. As Detectron2's structures/keypoints.py,
    `_keypoints_to_heatmap`: a keypoint on the region's far border is in its last cell.
    """
    low, high = boxes[:, None, :2], boxes[:, None, 2:]
    xy = keypoints[..., :2]
    cell = ((xy - low) * (size / (high - low))).floor()
    cell = torch.where(xy == high, size - 1, cell)
    # not a number in a region without area, which holds no keypoint
    valid = (keypoints[..., 2] > 0) & ((cell >= 0) & (cell < size)).all(-1)
    column, row = torch.where(valid[..., None], cell, 0.0).long().unbind(-1)
    return row * size + column, valid


def keypoint_loss(logits: Tensor, cells: Tensor, valid: Tensor) -> LossTerm:
    """Cross entropy over the positions of a region, summed over its keypoints that count, and counted by them
    (Detectron2, keypoint_head.py, `keypoint_rcnn_loss`, normalised by visible keypoints).

    logits [R, K, M, M]; cells int64 [R, K] in 0..M*M-1; valid bool [R, K].
    """
    each = F.cross_entropy(logits.flatten(0, 1).flatten(1), cells.flatten(), reduction="none")
    return LossTerm(torch.where(valid.flatten(), each, 0.0).sum(), valid.sum().to(logits.dtype))
