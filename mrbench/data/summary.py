"""What a split holds, counted: pictures, instances, crowds, classes and sizes."""

from dataclasses import dataclass

import numpy as np

from mrbench.data.coco import CocoDataset


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
    labels = np.array([a.label for a in kept], dtype=np.int64)
    sizes = np.digitize([a.area for a in kept], areas, right=True)
    heights, widths = ([getattr(i, side) for i in dataset.images] for side in ("height", "width"))
    return SplitSummary(
        images=len(dataset),
        empty=sum(not group for group in groups),
        crowds=sum(a.iscrowd for group in groups for a in group),
        instances=len(kept),
        per_class=np.bincount(labels, minlength=len(dataset.categories)).tolist(),
        per_size=np.bincount(sizes, minlength=len(areas) + 1).tolist(),
        image_heights=(min(heights), max(heights)),
        image_widths=(min(widths), max(widths)),
    )
