"""Small networks and painted pictures for the tests of the network."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from mrbench.config.composer import compose
from mrbench.config.schema import ModelConfig
from mrbench.data.batch import Batch, MaskWindows

COLOURS = torch.tensor([[255, 30, 30], [30, 255, 30], [30, 30, 255], [200, 200, 30]], dtype=torch.uint8)


def windows_of(masks: Sequence[Sequence[Tensor]], places: int) -> MaskWindows:
    """Summed-area tables of bool masks [H, W], a list an image, padded to `places` instances."""
    offset = torch.zeros(len(masks), places, dtype=torch.int64)
    size, origin = torch.zeros(len(masks), places, 2).long(), torch.zeros(len(masks), places, 2).long()
    tables: list[Tensor] = []
    for b, of_image in enumerate(masks):
        for g, mask in enumerate(of_image):
            y, x = torch.where(mask)
            window = mask[y.min() : y.max() + 1, x.min() : x.max() + 1]
            table = torch.zeros(window.shape[0] + 1, window.shape[1] + 1, dtype=torch.int32)
            table[1:, 1:] = window.int().cumsum(0).cumsum(1)
            offset[b, g] = sum(t.numel() for t in tables)
            size[b, g] = torch.tensor(window.shape)
            origin[b, g] = torch.stack([y.min(), x.min()])
            tables.append(table.flatten())
    return MaskWindows(torch.cat(tables or [torch.zeros(0, dtype=torch.int32)]), offset, size, origin)


def batch_of(
    images: Tensor,
    boxes: Sequence[Tensor],
    labels: Sequence[Tensor],
    masks: Sequence[Sequence[Tensor]],
    places: int = 0,
) -> Batch:
    """A batch of unpadded pictures [B, 3, H, W] from per-image lists; `places` is the least padding of instances."""
    b, _, h, w = images.shape
    places = max([places, 1, *map(len, boxes)])
    padded, label = torch.zeros(b, places, 4), torch.full((b, places), -1)
    for i, (box, lab) in enumerate(zip(boxes, labels, strict=True)):
        padded[i, : len(box)], label[i, : len(lab)] = box, lab
    size = torch.tensor([[h, w]]).repeat(b, 1)
    seeds = torch.tensor([2**61 + 12345 * i for i in range(b)])
    return Batch(images, size, size.clone(), padded, label, windows_of(masks, places), seeds, list(range(b)), 0)


def painted(count: int = 2, side: int = 128, instances: int = 4, places: int = 0, seed: int = 0) -> Batch:
    """Squares and discs in the colour of their class on dark noise."""
    g = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 60, (count, 3, side, side), generator=g, dtype=torch.uint8)
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    boxes, labels, masks = [], [], []
    for b in range(count):
        of_image = []
        for i in range(instances):
            r = int(torch.randint(8, side // 4, (1,), generator=g))
            cy, cx = torch.randint(r, side - r, (2,), generator=g).tolist()
            far = (y - cy).abs().maximum((x - cx).abs()) if i % 2 else ((y - cy) ** 2 + (x - cx) ** 2).sqrt()
            of_image.append(far < r)
        label = torch.randint(0, 4, (instances,), generator=g)
        for mask, k in zip(of_image, label.tolist(), strict=True):
            images[b, :, mask] = COLOURS[k][:, None]
        corners = [torch.where(m) for m in of_image]
        boxes.append(
            torch.tensor([[c.min(), r.min(), c.max() + 1, r.max() + 1] for r, c in corners]).float().reshape(-1, 4)
        )
        labels.append(label)
        masks.append(of_image)
    return batch_of(images, boxes, labels, masks, places)


@pytest.fixture
def make_batch() -> Callable[..., Batch]:
    return batch_of


@pytest.fixture
def paint() -> Callable[..., Batch]:
    return painted


@pytest.fixture
def make_windows() -> Callable[..., MaskWindows]:
    return windows_of


@pytest.fixture
def small() -> Callable[..., ModelConfig]:
    """The small model with a quarter of its width, and changes in Hydra's grammar."""
    narrow = [
        "model=mask_rcnn_small",
        "model.backbone.width=8",
        "model.neck.channels=16",
        "model.box_head.fc_channels=32",
    ]
    narrow += ["model.mask_head.channels=16", "model.box_head.conv_channels=16"]
    return lambda *changes: compose([*narrow, *changes]).model
