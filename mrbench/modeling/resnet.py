"""The ResNet body (He et al. 2016), assembled from torchvision's blocks so that width, stem and norm are free."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from mrbench.modeling import init
from mrbench.modeling.norm import make_norm

BLOCKS: dict[int, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    10: (BasicBlock, (1, 1, 1, 1)),
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
}


class ResNet(nn.Module):
    """Stages C2..C5 at strides 4, 8, 16, 32. Parameter names are torchvision's, without `fc`.

    freeze_at: 0 nothing, 1 the stem, 2 the stem and C2, ... keep their initial weights; batch norms in there become
    frozen ones (Detectron2, modeling/backbone/resnet.py, `ResNet.freeze`).
    stride_in_1x1: bottlenecks stride in their first 1x1 convolution (the original, MSRA's weights) instead of the
    3x3 (torchvision's).
    """

    def __init__(
        self,
        depth: int,
        width: int,
        stem: str,
        norm: str,
        group_size: int | None,
        freeze_at: int,
        stride_in_1x1: bool,
    ) -> None:
        super().__init__()

        def norm_of(stage: int) -> str:
            return "frozen_bn" if stage < freeze_at and norm in ("bn", "sync_bn") else norm

        self.conv1: nn.Conv2d
        self.pool: nn.Module
        if stem == "7x7":
            self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
            self.bn1 = make_norm(norm_of(0), width, group_size)
            self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        else:
            self.conv1 = nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False)
            self.bn1 = make_norm(norm_of(0), width, group_size)
            self.conv2 = nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False)
            self.bn2 = make_norm(norm_of(0), width, group_size)
        self.stem = stem

        block, counts = BLOCKS[depth]
        self.out_channels = [width * 2**i * block.expansion for i in range(4)]
        inplanes = width
        for i, count in enumerate(counts):
            planes, blocks = width * 2**i, []
            for j in range(count):
                stride = 2 if i > 0 and j == 0 else 1
                blocks.append(_block(block, inplanes, planes, stride, norm_of(i + 1), group_size, stride_in_1x1))
                inplanes = planes * block.expansion
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))

        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                init.msra(module)
        frozen = [m for name, m in self.named_children() if not name.startswith("layer")] if freeze_at else []
        frozen += [self.get_submodule(f"layer{i}") for i in range(1, freeze_at)]
        for module in frozen:
            module.requires_grad_(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """[B, 3, H, W] -> C2..C5."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = self.pool(x) if self.stem == "7x7" else F.relu(self.bn2(self.conv2(x)), inplace=True)
        features = []
        for i in range(1, 5):
            x = self.get_submodule(f"layer{i}")(x)
            features.append(x)
        return features


def _block(
    block: type[BasicBlock] | type[Bottleneck],
    inplanes: int,
    planes: int,
    stride: int,
    norm: str,
    group_size: int | None,
    stride_in_1x1: bool,
) -> nn.Module:
    out = planes * block.expansion
    downsample = None
    if stride != 1 or inplanes != out:
        downsample = nn.Sequential(
            nn.Conv2d(inplanes, out, 1, stride=stride, bias=False), make_norm(norm, out, group_size)
        )
    made: Any = block(
        inplanes, planes, stride, downsample, norm_layer=lambda channels: make_norm(norm, channels, group_size)
    )
    if block is Bottleneck and stride_in_1x1:
        made.conv1.stride, made.conv2.stride = made.conv2.stride, made.conv1.stride
    return made
