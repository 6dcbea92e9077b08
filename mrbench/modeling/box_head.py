"""The box branch: what class a region is, and how its box should move (Girshick 2015)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mrbench.config.schema import BoxHeadConfig
from mrbench.modeling import init
from mrbench.modeling.losses import LossTerm, smooth_l1
from mrbench.modeling.norm import make_norm
from mrbench.modeling.widen import at_least_float32


def conv_stack(in_channels: int, channels: int, convs: int, norm: str, group_size: int | None) -> nn.Sequential:
    """3x3 convolutions with norm and ReLU; a bias only where there is no norm."""
    layers: list[nn.Module] = []
    for _ in range(convs):
        conv = nn.Conv2d(in_channels, channels, 3, padding=1, bias=norm == "none")
        init.msra(conv)
        layers += [conv, make_norm(norm, channels, group_size), nn.ReLU(inplace=True)]
        in_channels = channels
    return nn.Sequential(*layers)


class BoxHead(nn.Module):
    """Convolutions, fully connected layers, and two predictors; class K is the background.

    `{convs: 0, fcs: 2}` is the FPN paper's head, `{convs: 4, fcs: 1}` that of Wu & He 2018.
    """

    def __init__(
        self, config: BoxHeadConfig, in_channels: int, size: int, num_classes: int, group_size: int | None
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.class_agnostic = config.class_agnostic
        self.convs = conv_stack(in_channels, config.conv_channels, config.convs, config.norm, group_size)
        features = (config.conv_channels if config.convs else in_channels) * size * size
        self.fcs = nn.ModuleList()
        for _ in range(config.fcs):
            fc = nn.Linear(features, config.fc_channels)
            init.xavier(fc)
            self.fcs.append(fc)
            features = config.fc_channels
        self.classes = nn.Linear(features, num_classes + 1)
        self.deltas = nn.Linear(features, 4 if config.class_agnostic else 4 * num_classes)
        init.normal(self.classes, std=0.01)
        init.normal(self.deltas, std=0.001)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[R, C, size, size] -> class logits [R, K + 1] and deltas [R, K or 1, 4], float32 at least."""
        x = self.convs(x).flatten(1)
        for fc in self.fcs:
            x = F.relu(fc(x), inplace=True)
        classes, deltas = self.classes(x), self.deltas(x).view(len(x), -1, 4)
        return at_least_float32(classes), at_least_float32(deltas)

    def of_class(self, deltas: Tensor, labels: Tensor) -> Tensor:
        """Of deltas [R, K or 1, 4] those of each region's own class -> [R, 4]. Background gets any."""
        if self.class_agnostic:
            return deltas[:, 0]
        index = labels.clamp(max=self.num_classes - 1)
        return deltas.gather(1, index[:, None, None].expand(-1, 1, 4))[:, 0]


def box_losses(
    logits: Tensor, deltas: Tensor, labels: Tensor, target: Tensor, used: Tensor, foreground: Tensor, beta: float
) -> dict[str, LossTerm]:
    """Cross entropy over the used regions, and smooth L1 over the foreground, both divided by the used regions
    (Girshick 2015, section 2.3; Detectron2, fast_rcnn.py, `losses`).

    logits [R, K + 1]; deltas, target [R, 4]; labels int64 [R]; used, foreground bool [R].
    """
    count = used.sum().to(logits.dtype)
    each = F.cross_entropy(logits, labels, reduction="none")
    classes = torch.where(used, each, 0.0).sum()
    regression = torch.where(foreground[:, None], smooth_l1(deltas, target, beta), 0.0).sum()
    return {"box_class": LossTerm(classes, count), "box_regression": LossTerm(regression, count)}
