"""ResNet and ResNeXt bodies (He et al. 2016, Xie et al. 2017) from torchvision's blocks; width, stem and norm vary."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from mrbench.modeling import init
from mrbench.modeling.body import Body, norm_of_stage
from mrbench.modeling.deformable import DeformableConv2d
from mrbench.modeling.non_local import NonLocal
from mrbench.modeling.norm import make_norm

BLOCKS: dict[int, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    10: (BasicBlock, (1, 1, 1, 1)),
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


class ResNet(Body):
    """Stages C2..C5 at strides 4, 8, 16, 32. Parameter names are torchvision's, without `fc`.

    freeze_at: 0 nothing, 1 the stem, 2 the stem and C2, ... keep their initial weights; batch norms in there become
    frozen ones (Detectron2, modeling/backbone/resnet.py, `ResNet.freeze`).
    groups, width_per_group: of the 3x3 convolutions of a bottleneck; 32 and 8 in ResNeXt 32x8d. The width is that of
    the second stage in a network with a stem of 64 channels, and shrinks with the stem.
    dilated_c5: C5 at stride 16; all of its blocks have dilation 2 (Detectron2's RES5_DILATION; torchvision's
    replace_stride_with_dilation leaves the first block at 1).
    deformable: stages, of 3, 4, 5, whose bottlenecks have a deformable 3x3 convolution.
    non_local: one non-local block before each of the last blocks of the fourth stage, so many of them.
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
        groups: int = 1,
        width_per_group: int = 64,
        dilated_c5: bool = False,
        deformable: Sequence[int] = (),
        non_local: int = 0,
    ) -> None:
        super().__init__()
        self.conv1: nn.Conv2d
        self.pool: nn.Module
        norm_of_stem = norm_of_stage(norm, 0, freeze_at)
        if stem == "7x7":
            self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
            self.bn1 = make_norm(norm_of_stem, width, group_size)
            self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        else:
            self.conv1 = nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False)
            self.bn1 = make_norm(norm_of_stem, width, group_size)
            self.conv2 = nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False)
            self.bn2 = make_norm(norm_of_stem, width, group_size)
        self.stem = stem

        block, counts = BLOCKS[depth]
        self.out_channels = [width * 2**i * block.expansion for i in range(4)]
        self.strides = [4, 8, 16, 16 if dilated_c5 else 32]
        self.stages = [f"layer{i + 1}" for i in range(4)]
        inplanes = width
        for i, count in enumerate(counts):
            planes, blocks = width * 2**i, nn.Sequential()
            norm_here = norm_of_stage(norm, i + 1, freeze_at)
            dilation = 2 if dilated_c5 and i == 3 else 1
            for j in range(count):
                if i == 2 and j >= count - non_local:
                    # under a name of its own, so that the blocks keep the numbers that files of weights give them
                    blocks.add_module(f"non_local{j}", NonLocal(inplanes, norm_here, group_size))
                stride = 2 if i > 0 and j == 0 and dilation == 1 else 1
                made = _block(
                    block, inplanes, planes, stride, norm_here, group_size, groups, width_per_group, dilation
                )
                if block is Bottleneck and stride_in_1x1:
                    made.conv1.stride, made.conv2.stride = made.conv2.stride, made.conv1.stride
                if i + 2 in deformable:
                    made.conv2 = DeformableConv2d(made.conv2)
                blocks.add_module(str(j), made)
                inplanes = planes * block.expansion
            self.add_module(f"layer{i + 1}", blocks)

        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                init.msra(module)
        for module in self.modules():
            if isinstance(module, NonLocal | DeformableConv2d):
                module.begin()
        frozen = [m for name, m in self.named_children() if not name.startswith("layer")] if freeze_at else []
        frozen += [self.get_submodule(f"layer{i}") for i in range(1, freeze_at)]
        for module in frozen:
            module.requires_grad_(False)

    def stem_features(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, width, H / 4, W / 4]."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return self.pool(x) if self.stem == "7x7" else F.relu(self.bn2(self.conv2(x)), inplace=True)


def _block(
    block: type[BasicBlock] | type[Bottleneck],
    inplanes: int,
    planes: int,
    stride: int,
    norm: str,
    group_size: int | None,
    groups: int,
    width_per_group: int,
    dilation: int,
) -> Any:
    out = planes * block.expansion
    downsample = None
    if stride != 1 or inplanes != out:
        downsample = nn.Sequential(
            nn.Conv2d(inplanes, out, 1, stride=stride, bias=False), make_norm(norm, out, group_size)
        )
    return block(
        inplanes,
        planes,
        stride,
        downsample,
        groups=groups,
        base_width=width_per_group,
        dilation=dilation,
        norm_layer=lambda channels: make_norm(norm, channels, group_size),
    )
