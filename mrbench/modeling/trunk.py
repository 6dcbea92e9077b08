"""What every network begins with: pictures made even, the body, and the neck that the RPN and the heads look at."""

import torch
from torch import Tensor, nn

from mrbench.data.batch import Batch
from mrbench.modeling.body import Body
from mrbench.modeling.fpn import FPN
from mrbench.modeling.single_map import SingleMap


class Trunk(nn.Module):
    """`pixel_mean` and `pixel_std` are those of red, green and blue, 0..255."""

    def __init__(self, backbone: Body, neck: FPN | SingleMap, pixel_mean: list[float], pixel_std: list[float]) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.pixel_mean: Tensor
        self.pixel_std: Tensor
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(3, 1, 1), persistent=False)

    def features(self, batch: Batch) -> list[Tensor]:
        """What the neck makes of a batch: the pyramid, P2 first, or a single map."""
        return self.neck(self.backbone(self.normalise(batch.images, batch.sizes)))

    def normalise(self, images: Tensor, sizes: Tensor) -> Tensor:
        """uint8 RGB [B, 3, H, W] -> float32 with mean and deviation taken out, zero in the padding."""
        x = images.to(self.pixel_mean.dtype).sub_(self.pixel_mean).div_(self.pixel_std)
        y = torch.arange(x.shape[2], device=x.device) < sizes[:, :1]
        across = torch.arange(x.shape[3], device=x.device) < sizes[:, 1:]
        return x.mul_((y[:, :, None] & across[:, None])[:, None])
