"""RegNet bodies (Radosavovic et al. 2020), assembled from torchvision's blocks."""

from dataclasses import dataclass

from torch import Tensor, nn
from torchvision.models.regnet import AnyStage, ResBottleneckBlock, SimpleStemIN

from mrbench.modeling import init
from mrbench.modeling.body import Body, norm_of_stage
from mrbench.modeling.norm import make_norm

STEM = 32  # channels


@dataclass(frozen=True)
class Design:
    """Blocks and groups of each stage; a group has `group_width` channels. `se`: squeeze and excitation."""

    depths: tuple[int, int, int, int]
    groups: tuple[int, int, int, int]
    group_width: int
    se: float | None


# What the rules of Detectron2 (modeling/backbone/regnet.py, `generate_regnet_parameters` and
# `adjust_block_compatibility`) make of its new baselines: X of depth 23, w_a 38.65, w_0 96, w_m 2.43, group width 40;
# Y of depth 22, w_a 31.41, w_0 96, w_m 2.24, group width 64. They are those of the paper (table 8 and its release).
# torchvision's BlockParams.from_init_params would round two widths up instead: 120 for 80, and 256 for 192.
DESIGNS = {
    "regnet_x_4gf": Design((2, 5, 14, 2), (2, 6, 14, 34), 40, None),  # 80, 240, 560, 1360 channels
    "regnet_y_4gf": Design((2, 6, 12, 2), (2, 3, 8, 17), 64, 0.25),  # 128, 192, 512, 1088
}


class RegNet(Body):
    """Stages C2..C5 at strides 4, 8, 16, 32. Parameter names are torchvision's, without `fc`.

    width: 64 is the published network; another makes stem and groups as much wider or narrower.
    freeze_at: 0 nothing, 1 the stem, 2 the stem and C2, ... keep their initial weights.
    """

    def __init__(self, kind: str, width: int, norm: str, group_size: int | None, freeze_at: int) -> None:
        super().__init__()
        design = DESIGNS[kind]
        group_width = max(1, design.group_width * width // 64)
        channels = STEM * width // 64
        self.stem = SimpleStemIN(3, channels, _norm(norm, 0, freeze_at, group_size), nn.ReLU)
        self.trunk_output = nn.Sequential()
        self.stages, self.out_channels, self.strides = [], [], [4, 8, 16, 32]
        for i, (depth, groups) in enumerate(zip(design.depths, design.groups, strict=True), 1):
            out = groups * group_width
            stage = AnyStage(
                channels,
                out,
                stride=2,
                depth=depth,
                block_constructor=ResBottleneckBlock,
                norm_layer=_norm(norm, i, freeze_at, group_size),
                activation_layer=nn.ReLU,
                group_width=group_width,
                bottleneck_multiplier=1.0,
                se_ratio=design.se,
                stage_index=i,
            )
            self.trunk_output.add_module(f"block{i}", stage)
            self.stages.append(f"trunk_output.block{i}")
            self.out_channels.append(out)
            channels = out

        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                init.msra(module)
        for name in ["stem", *self.stages][:freeze_at]:
            self.get_submodule(name).requires_grad_(False)

    def stem_features(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, 32, H / 2, W / 2]."""
        features: Tensor = self.stem(x)
        return features


def _norm(kind: str, stage: int, freeze_at: int, group_size: int | None):  # type: ignore[no-untyped-def]
    own = norm_of_stage(kind, stage, freeze_at)
    return lambda channels: make_norm(own, channels, group_size)
