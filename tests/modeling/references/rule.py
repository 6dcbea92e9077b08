"""Weights, pictures and ground truth that need not be stored: each follows from a name or a number.

Shared by the script that runs Detectron2 and by the tests, so it needs NumPy only.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

SIZES = ((122, 150), (157, 90))  # height and width of the two pictures, as the network sees them
ORIGINAL = ((183, 200), (120, 90))  # of the files that they stand for
CLASSES = 3
BRANCH_ENDS = tuple(f"{norm}.{part}" for norm in ("conv3.norm", "c_bn") for part in ("weight", "bias"))


def tensor(name: str, shape: Sequence[int], draw: int) -> np.ndarray:
    """float32 of `shape`: normal numbers from NumPy's legacy generator, whose stream never changes, begun with the
    CRC-32 of `draw` and the name; spread and centre by what the tensor is."""
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, dtype=np.int64)
    drawn = np.random.RandomState(zlib.crc32(f"{draw} {name}".encode())).standard_normal(shape)
    if len(shape) > 1:
        drawn *= np.sqrt(2 / np.prod(shape[1:]))
    elif name.endswith("running_var"):
        drawn = np.exp(0.2 * drawn)
    else:
        drawn = 0.2 * drawn + name.endswith("weight")
        if name.endswith(BRANCH_ENDS):  # a deep network of random weights is chaotic; this one is less so
            drawn *= 0.2
    return drawn.astype(np.float32)


def weights(shapes: Mapping[str, Sequence[int]], stored: Mapping[str, np.ndarray], draw: int) -> dict[str, np.ndarray]:
    """A state dict of tensors by the rule, but for those that are `stored`."""
    return {
        name: stored[name].astype(np.float32) if name in stored else tensor(name, shape, draw)
        for name, shape in shapes.items()
    }


@dataclass
class Example:
    """A picture with its ground truth, in the network's pixels."""

    picture: np.ndarray  # uint8 [H, W, 3] RGB
    boxes: np.ndarray  # float32 [G, 4] xyxy
    labels: np.ndarray  # int64 [G]
    masks: np.ndarray  # bool [G, H, W]
    keypoints: np.ndarray  # float32 [G, K, 3]: x, y, visibility


def example(number: int, instances: int = 5, keypoints: int = 5) -> Example:
    """Ellipses and rectangles of coloured noise on darker noise. Some keypoints lie outside their box, some are not
    annotated, and the last instance has none."""
    random = np.random.RandomState(number + 1)
    height, width = SIZES[number]
    picture = random.randint(0, 90, (height, width, 3))
    y, x = np.mgrid[:height, :width] + 0.5
    boxes, masks = [], []
    for instance in range(instances):
        half = random.uniform(10, 38, 2)
        centre = np.array([random.uniform(12, height - 12), random.uniform(12, width - 12)])
        away = np.abs(np.stack([y - centre[0], x - centre[1]], -1) / half)
        mask = (away**2).sum(-1) < 1 if instance % 2 else away.max(-1) < 1
        picture[mask] = random.randint(60, 250, 3) + random.randint(-60, 6, (mask.sum(), 3))
        rows, columns = np.nonzero(mask)
        boxes.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        masks.append(mask)
    box = np.array(boxes, dtype=np.float32)
    at = box[:, None, :2] + random.uniform(-0.05, 1.05, (instances, keypoints, 2)) * (box[:, 2:] - box[:, :2])[:, None]
    seen = random.choice(3, (instances, keypoints, 1), p=[0.2, 0.3, 0.5])
    seen[-1] = 0
    return Example(
        picture.clip(0, 255).astype(np.uint8),
        box,
        random.randint(0, CLASSES, instances),
        np.stack(masks),
        np.concatenate([at, seen], -1).astype(np.float32),
    )
