"""Simple Copy-Paste (Ghiasi et al. 2021, section 3): some objects of one training picture are put onto another."""

from dataclasses import dataclass

import numpy as np

from mrbench.config.schema import AugmentationConfig
from mrbench.data.augmentation import Plan, plan_training
from mrbench.data.coco import CocoDataset
from mrbench.data.collate import Sample
from mrbench.data.masks import Window, tighten

# What is partly hidden stays in the ground truth where no side of its box moved by more than SHIFT pixels, or more
# than AREA square pixels of it are left: the defaults of MMDetection's `CopyPaste`. The paper names none.
SHIFT, AREA = 10, 300


@dataclass(frozen=True)
class Paste:
    """What is put onto a picture."""

    index: int  # of the picture it is taken from, in the data set
    plan: Plan  # what happens to that one: drawn like the plan of any training picture
    chosen: tuple[int, ...]  # which of its annotations, counted without the crowds


def plan_paste(
    config: AugmentationConfig, dataset: CocoDataset, images: np.ndarray, index: int, random: np.random.Generator
) -> Paste | None:
    """Draws what is put onto picture `index`; None where nothing is, as often as `config.copy_paste` says.

    Any other picture of `images` (places in the data set) is equally likely, and so is each number of its
    annotations from none to all; of the annotations none is preferred.
    """
    if random.random() >= config.copy_paste or len(images) < 2:
        return None
    others = images[images != index]
    other = int(others[random.integers(len(others))])
    image = dataset.images[other]
    plan = plan_training(config, image.height, image.width, random)
    available = int(dataset.trainable[other])
    number = int(random.integers(available + 1))
    chosen = np.sort(random.permutation(available)[:number])
    return Paste(other, plan, tuple(chosen.tolist()))


def canvas(size: tuple[int, int], pasted: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of a picture of `size` with one of size `pasted` on top, both in the upper left corner."""
    return max(size[0], pasted[0]), max(size[1], pasted[1])


def paste(target: Sample, source: Sample, background: np.ndarray) -> Sample:
    """`target` with all instances of `source` on it, which come last; both have a mask window for each instance.

    What lies under them is no longer part of the target's masks; boxes follow the masks that changed. `background`:
    the colour uint8 [3] of what neither picture covers. There is no blending, which the paper found to be as good.
    """
    (height, width), (below, beside) = target.pixels.shape[:2], source.pixels.shape[:2]
    size = canvas((height, width), (below, beside))
    pixels = np.empty((*size, 3), dtype=np.uint8)
    pixels[:] = background
    pixels[:height, :width] = target.pixels
    covered = np.zeros(size, dtype=bool)
    for window in source.windows:
        part = _under(covered, window)
        np.logical_or(part, window.bitmap, out=part)
    np.copyto(pixels[:below, :beside], source.pixels, where=covered[:below, :beside, None])
    seen = [_seen(window, covered) for window in target.windows]
    boxes = target.boxes.copy()
    keep = np.ones(len(boxes), dtype=bool)
    for i, (before, after) in enumerate(zip(target.windows, seen, strict=True)):
        if after is None:
            keep[i] = False
        elif after is not before:
            boxes[i] = after.box
            shift = np.abs(np.subtract(before.box, after.box)).max()
            keep[i] = shift <= SHIFT or int(after.bitmap.sum()) > AREA
    left = [window for window, kept in zip(seen, keep, strict=True) if kept and window is not None]
    of_masks = np.array([window.box for window in source.windows], dtype=np.float64).reshape(-1, 4)
    return Sample(
        target.image_id,
        pixels,
        target.plan,
        np.concatenate([boxes[keep], of_masks]),
        np.concatenate([target.labels[keep], source.labels]),
        left + source.windows,
        np.concatenate([target.keypoints[keep], source.keypoints]),
    )


def _under(covered: np.ndarray, window: Window) -> np.ndarray:
    left, top, right, bottom = window.box
    return covered[top:bottom, left:right]


def _seen(window: Window, covered: np.ndarray) -> Window | None:
    """The window itself where nothing covers it."""
    visible = window.bitmap & ~_under(covered, window)
    return window if np.array_equal(visible, window.bitmap) else tighten(Window(visible, window.y, window.x))
