"""Pictures and their instances, one by one, into a padded batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mrbench.data.augmentation import Plan
from mrbench.data.batch import Batch, MaskWindows
from mrbench.data.masks import Window, summed_area_table

MULTIPLE = 32  # of which a batch's height and width are multiples for a pyramid: the stride of its body


@dataclass
class Sample:
    """One picture and its instances, before padding."""

    image_id: int
    pixels: np.ndarray  # uint8 [h, w, 3]
    plan: Plan
    boxes: np.ndarray  # float64 [n, 4]
    labels: np.ndarray  # int64 [n]
    windows: list[Window]  # n of them, or none where masks are not wanted
    keypoints: np.ndarray  # float64 [n, K, 3]; K is 0 where they are not wanted
    proposals: np.ndarray | None = None  # float32 [P, 5], as of `Batch`; P is the same for all


def padded_size(sizes: Sequence[tuple[int, int]], neck: str) -> tuple[int, int]:
    """(height, width) of a batch of pictures of these sizes for a network with this kind of neck.

    Only the levels of a pyramid must fit onto each other; for a single map a picture is not made larger than the
    largest of its batch (Detectron2, modeling/backbone/backbone.py, `size_divisibility`; Detectron, utils/blob.py,
    `get_max_shape`).
    """
    multiple = MULTIPLE if neck == "fpn" else 1
    height, width = (-(-max(side) // multiple) * multiple for side in zip(*sizes, strict=True))
    return height, width


def collate(
    samples: list[Sample],
    size: tuple[int, int],
    instances: int,
    masks: bool,
    keypoints: int,
    seeds: list[int],
    iteration: int,
) -> Batch:
    """A batch of `size` (height, width) with room for `instances` an image and, where not 0, `keypoints` in each."""
    images = torch.zeros((len(samples), 3, *size), dtype=torch.uint8)
    boxes = np.zeros((len(samples), instances, 4), dtype=np.float32)
    labels = np.full((len(samples), instances), -1, dtype=np.int64)
    points = np.zeros((len(samples), instances, keypoints, 3), dtype=np.float32)
    for i, sample in enumerate(samples):
        height, width = sample.pixels.shape[:2]
        # Through numpy: torch does not take the negative strides of a flipped picture.
        images[i].numpy()[:, :height, :width] = sample.pixels.transpose(2, 0, 1)
        boxes[i, : len(sample.boxes)] = sample.boxes
        labels[i, : len(sample.labels)] = sample.labels
        points[i, : len(sample.keypoints)] = sample.keypoints
    return Batch(
        images=images,
        sizes=torch.tensor([s.pixels.shape[:2] for s in samples]),
        original_sizes=torch.tensor([s.plan.original for s in samples]),
        boxes=torch.from_numpy(boxes),
        labels=torch.from_numpy(labels),
        masks=_pack_windows([s.windows for s in samples], instances) if masks else None,
        seeds=torch.tensor(seeds),
        image_ids=[s.image_id for s in samples],
        iteration=iteration,
        keypoints=torch.from_numpy(points) if keypoints else None,
        proposals=_stacked([sample.proposals for sample in samples if sample.proposals is not None]),
    )


def _stacked(proposals: list[np.ndarray]) -> torch.Tensor | None:
    return torch.from_numpy(np.stack(proposals)) if proposals else None


def _pack_windows(windows: list[list[Window]], instances: int) -> MaskWindows:
    offset = np.zeros((len(windows), instances), dtype=np.int64)
    size = np.zeros((len(windows), instances, 2), dtype=np.int64)
    origin = np.zeros((len(windows), instances, 2), dtype=np.int64)
    tables = sum((w.bitmap.shape[0] + 1) * (w.bitmap.shape[1] + 1) for row in windows for w in row)
    # A padding instance has a table too, of the one zero that every table begins with.
    table = np.zeros(max(tables, 1), dtype=np.int32)
    end = 0
    for i, row in enumerate(windows):
        for j, window in enumerate(row):
            height, width = window.bitmap.shape
            offset[i, j], size[i, j], origin[i, j] = end, (height, width), (window.y, window.x)
            begin, end = end, end + (height + 1) * (width + 1)
            summed_area_table(window.bitmap, table[begin:end].reshape(height + 1, width + 1))
    return MaskWindows(*(torch.from_numpy(a) for a in (table, offset, size, origin)))
