"""What a split holds, counted: pictures, instances, crowds, classes and sizes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mrbench.data.coco import CocoDataset
from mrbench.data.entries import ImageInfo


@dataclass(frozen=True)
class SplitSummary:
    images: int
    empty: int  # images in which nothing is annotated
    crowds: int
    instances: int  # crowds not counted
    per_class: list[int]  # instances of each of `CocoDataset.categories`
    per_size: list[int]  # instances in the size classes that `areas` separates
    image_heights: tuple[int, int]  # smallest and largest, pixels
    image_widths: tuple[int, int]


def summarise(dataset: CocoDataset, areas: list[float]) -> SplitSummary:
    """Counts a split; `areas`: limits between the size classes, rising, square pixels."""
    groups = [dataset.annotations(index) for index in range(len(dataset))]
    kept = [a for group in groups for a in group if not a.iscrowd]
    empty, crowds = sum(not group for group in groups), sum(a.iscrowd for group in groups for a in group)
    labels, sizes = [a.label for a in kept], [a.area for a in kept]
    return count(dataset.images, empty, crowds, labels, len(dataset.categories), sizes, areas)


def count(
    images: Sequence[ImageInfo],
    empty: int,
    crowds: int,
    labels: Sequence[int],
    classes: int,
    sizes: Sequence[float],
    areas: list[float],
) -> SplitSummary:
    """`labels` and `sizes` (square pixels) are those of the instances, `areas` the limits between size classes."""
    per_size = np.digitize(np.asarray(sizes, dtype=np.float64), areas, right=True)
    heights, widths = [i.height for i in images] or [0], [i.width for i in images] or [0]
    return SplitSummary(
        images=len(images),
        empty=empty,
        crowds=crowds,
        instances=len(labels),
        per_class=np.bincount(np.asarray(labels, dtype=np.int64), minlength=classes).tolist(),
        per_size=np.bincount(per_size, minlength=len(areas) + 1).tolist(),
        image_heights=(min(heights), max(heights)),
        image_widths=(min(widths), max(widths)),
    )
