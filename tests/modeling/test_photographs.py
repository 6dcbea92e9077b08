"""Architectures learn two photographs of COCO by heart."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from mrbench.config.composer import compose
from mrbench.data.loader import train_loader
from mrbench.data.sources import open_split
from mrbench.modeling.build import build_detector
from mrbench.modeling.losses import LossTerm

NARROW = (
    "model=mask_rcnn_small",
    "model.backbone.width=16",
    "model.neck.channels=32",
    "model.box_head.fc_channels=64",
    "model.mask_head.channels=32",
    "model.mask_head.fc_channels=128",
)
TWO_PICTURES = (
    "data=coco_folder",
    "schedule.images_per_batch=2",
    "augmentation=short_edge",
    "augmentation.short_edge=[128]",
    "augmentation.max_size=192",
    "runtime.num_workers=0",
)
C4 = ("model.neck.kind=c4", "model.box_head.kind=res5", "model.box_head.fcs=0", "model.mask_head.kind=res5")
C4 += ("model.mask_head.convs=0", "model.pooler.box_size=14")
BOTTLENECKS = ("model.backbone.depth=50", "model.backbone.width=8")
KEYPOINTS = ("model.keypoint_head.enabled=true", "model.keypoint_head.convs=2", "model.keypoint_head.channels=32")
KEYPOINTS += ("data.train.annotations=annotations/person_keypoints_train.json",)
FEWER = ("seed=4", "model.roi.samples=32")  # pictures with 14 objects instead of 37, and fewer regions of each
ARCHITECTURES = {
    "cascade": ("model.box_head.cascade=[0.5,0.6,0.7]", "model.box_head.class_agnostic=true"),
    "mlp": ("model.mask_head.kind=mlp",),
    "softmax": ("model.mask_head.loss=softmax",),
    "c4": (*C4, *FEWER),
    "c5": ("model.neck.kind=c5",),
    "dilated c5": ("model.neck.kind=c5", *BOTTLENECKS, "model.backbone.dilated_c5=true", *FEWER),
    "non-local": ("model.backbone.non_local=1",),
    "keypoints": (*KEYPOINTS, "model.mask_head.enabled=false"),
    "keypoints and masks": KEYPOINTS,
    "deformable resnext": (
        *BOTTLENECKS,
        "model.backbone.groups=4",
        "model.backbone.width_per_group=16",
        "model.backbone.deformable=[5]",
        "model.roi.samples=32",
    ),
    "regnet": ("model.backbone.kind=regnet_x_4gf", "model.group_size=4", "model.roi.samples=32"),
}


def total(losses: dict[str, LossTerm]) -> Tensor:
    return torch.stack([term.sum / term.count.clamp(min=1) for term in losses.values()]).sum()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_loss_on_two_photographs_falls_below_a_tenth(name: str, shared: Path) -> None:
    config = compose([*NARROW, *TWO_PICTURES, *ARCHITECTURES[name], f"data.root={shared / 'data' / 'coco-mini'}"])
    dataset = open_split(config.data, "train")
    batch = next(train_loader(dataset, config))
    torch.manual_seed(0)
    net = build_detector(config.model, len(dataset.categories))
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    wanted = 0.1 * float(total(net(batch)).detach())
    for _ in range(300):
        loss = total(net(batch))
        if float(loss.detach()) < wanted:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < wanted
