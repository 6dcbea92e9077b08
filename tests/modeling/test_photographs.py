"""Architectures learn two photographs of COCO by heart."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from mrbench.config.compose import compose
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
ARCHITECTURES = {
    "cascade": ("model.box_head.cascade=[0.5,0.6,0.7]", "model.box_head.class_agnostic=true"),
    "mlp": ("model.mask_head.kind=mlp",),
    "softmax": ("model.mask_head.loss=softmax",),
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
