"""A small COCO folder that tests may damage."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from mrbench.config.schema import DataConfig, RunConfig


@dataclass
class CocoFolder:
    """Five pictures of 40 x 60 pixels (height x width); the val split is the train split."""

    root: Path
    content: dict[str, Any] = field(default_factory=dict)

    def write(self) -> DataConfig:
        folder = self.root / "annotations"
        folder.mkdir(exist_ok=True)
        for split in ("train", "val"):
            (folder / f"instances_{split}.json").write_text(json.dumps(self.content))
        return self.data

    @property
    def data(self) -> DataConfig:
        return DataConfig(kind="coco_folder", root=str(self.root))

    def config(self, **augmentation: Any) -> RunConfig:
        config = RunConfig(data=self.data)
        config.runtime.num_workers = 0
        config.schedule.iterations = 6
        config.schedule.images_per_batch = 4
        for name, value in augmentation.items():
            setattr(config.augmentation, name, value)
        return config


def rectangle_rle(height: int, width: int, box: tuple[int, int, int, int]) -> dict[str, Any]:
    """Compressed RLE of a filled rectangle, box xyxy."""
    mask = np.zeros((height, width), dtype=np.uint8, order="F")
    mask[box[1] : box[3], box[0] : box[2]] = 1
    rle = coco_mask.encode(mask)
    return {"size": rle["size"], "counts": rle["counts"].decode()}


@pytest.fixture
def folder(tmp_path: Path) -> CocoFolder:
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        (tmp_path / "images" / split).mkdir(parents=True)
    for i in range(1, 6):
        pixels = Image.fromarray(random.integers(0, 256, (40, 60, 3), dtype=np.uint8))
        for split in ("train", "val"):
            pixels.save(tmp_path / "images" / split / f"{i}.png")
    images = [{"id": 10 * i, "file_name": f"{i}.png", "width": 60, "height": 40} for i in range(1, 6)]
    # Column by column: 10 columns of 40 outside, then in 5 columns the rows 4 to 19, the rest outside.
    runs = [404, 16, 24, 16, 24, 16, 24, 16, 24, 16, 20 + 45 * 40]
    annotations = [
        _annotation(1, 10, 3, [5, 5, 20, 10], [[5, 5, 25, 5, 25, 15, 5, 15]]),
        _annotation(2, 10, 9, [30, 10, 10, 20], rectangle_rle(40, 60, (30, 10, 40, 30))),
        _annotation(3, 20, 7, [10, 4, 5, 16], {"size": [40, 60], "counts": runs}),
        _annotation(4, 20, 3, [0, 0, 30, 30], rectangle_rle(40, 60, (0, 0, 30, 30)), iscrowd=1),
        _annotation(5, 30, 9, [3, 3, 30, 30], [[3, 3, 33, 3, 33, 33], [3, 10, 3, 33, 20, 33]]),
        _annotation(6, 50, 3, [0, 0, 60, 40], rectangle_rle(40, 60, (0, 0, 60, 40)), iscrowd=1),
    ]
    categories = [{"id": i, "name": n} for i, n in ((9, "nine"), (3, "three"), (7, "seven"))]
    made = CocoFolder(tmp_path, {"images": images, "annotations": annotations, "categories": categories})
    made.write()
    return made


def _annotation(
    identity: int, image: int, category: int, box: list[float], segmentation: Any, iscrowd: int = 0
) -> dict[str, Any]:
    return {
        "id": identity,
        "image_id": image,
        "category_id": category,
        "bbox": box,
        "area": box[2] * box[3],
        "iscrowd": iscrowd,
        "segmentation": segmentation,
    }
