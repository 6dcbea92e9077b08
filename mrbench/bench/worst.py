"""The largest pictures and the most instances that a step can meet: what the tries for the largest batch are made of.

A batch that fits on average fails in the middle of an epoch, when large and crowded pictures come together.
"""

from collections.abc import Iterator

import numpy as np

from mrbench.bench.largest_batch import Worst
from mrbench.bench.matrix import Case
from mrbench.config.schema import AugmentationConfig, RunConfig
from mrbench.data.augmentation import plan_test, short_edge_size
from mrbench.data.sources import open_split

# In each synthetic picture of a try: as many as COCO's metrics take detections (maxDets). Its fullest training picture
# has fewer (Carion et al. 2020, section 4: up to 63).
MOST_INSTANCES = 100

Size = tuple[int, int]


def worst_inputs(config: RunConfig, case: Case, inputs: str, instances: int) -> Worst:
    """For training or detection on "synthetic" pictures of `case.image_size` with at least `instances`, or on "data".

    Of a data set all sizes that augmentation can give its pictures are looked at, and which of them can come into one
    batch. Raises UserError where it cannot be read.
    """
    if inputs == "synthetic":
        assert case.image_size is not None
        height, width = case.image_size
        sizes: list[Size] = [(height, width)]
        if case.mode == "train" and config.augmentation.resize == "short_edge" and not _grouped(config.augmentation):
            sizes.append((width, height))  # upright pictures come into one batch with wide ones
        return Worst(list(_around(sizes)), max(instances, MOST_INSTANCES), None, "synthetic")
    dataset = open_split(config.data, "train" if case.mode == "train" else "val")
    originals = [(image.height, image.width) for image in dataset.images]
    classes, source = len(dataset.categories), str(dataset.annotation_file)
    if case.mode == "infer":
        largest = max((plan_test(config.augmentation, *size).size for size in set(originals)), key=_area)
        return Worst(list(largest), 1, classes, source)
    kept = [size for size, n in zip(originals, dataset.trainable, strict=True) if n or config.data.keep_empty]
    canvas = max((_around(group) for group in _together(config.augmentation, set(kept))), key=_area)
    most = int(np.max(dataset.trainable, initial=1))
    if config.augmentation.copy_paste > 0:
        most *= 2  # the fullest picture's instances on the fullest picture
    return Worst(list(canvas), most, classes, source)


def _together(augmentation: AugmentationConfig, originals: set[Size]) -> Iterator[list[Size]]:
    """Sizes after augmentation, those that can be in one batch in one list."""
    if augmentation.resize == "jitter":
        yield [(augmentation.jitter_size, augmentation.jitter_size)]
        return
    for wide in (True, False):
        of_kind = [(h, w) for h, w in originals if not _grouped(augmentation) or (w > h) is wide]
        sizes = [_largest(augmentation, h, w) for h, w in of_kind]
        if sizes:
            yield sizes


def _grouped(augmentation: AugmentationConfig) -> bool:
    """Whether wide pictures keep to themselves: what is pasted is of any picture."""
    return augmentation.group_by_aspect and augmentation.copy_paste == 0


def _largest(augmentation: AugmentationConfig, height: int, width: int) -> Size:
    if augmentation.resize == "none":
        return height, width
    return short_edge_size(height, width, max(augmentation.short_edge), augmentation.max_size)


def _around(sizes: list[Size]) -> Size:
    """The smallest picture that all of these fit into."""
    return max(h for h, _ in sizes), max(w for _, w in sizes)


def _area(size: Size) -> int:
    return size[0] * size[1]
