"""Several annotation files as one data set to train on, as trainval35k is train2014 and a part of val2014."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mrbench.data.coco import Annotation, CocoDataset
from mrbench.errors import UserError


class JoinedDataset(CocoDataset):
    """The images of several data sets, one after another, with the categories of the first.

    Ids of images and annotations may repeat between the parts, so `ground_truth` is none to be evaluated against;
    an image is told by its place. Raises UserError where the parts do not name the same categories, in whatever order
    and with whatever ids, or name their keypoints differently.
    """

    def __init__(self, parts: Sequence[CocoDataset]) -> None:
        first = parts[0]
        self.parts = parts
        self.annotation_file, self.image_folder = first.annotation_file, first.image_folder
        self.categories, self.annotated = first.categories, True
        self.images = [image for part in parts for image in part.images]
        self.problems = [problem for part in parts for problem in part.problems]
        self.trainable = np.concatenate([part.trainable for part in parts])
        self.visible_keypoints = np.concatenate([part.visible_keypoints for part in parts])
        self.without_mask = [identity for part in parts for identity in part.without_mask]
        self._starts = np.cumsum([0, *(len(part) for part in parts)])
        self._labels = [_labels(part, first) for part in parts]

    def annotations(self, index: int) -> list[Annotation]:
        place = int(np.searchsorted(self._starts, index, side="right")) - 1
        labels = self._labels[place]
        found = self.parts[place].annotations(index - int(self._starts[place]))
        return [replace(a, label=labels[a.label]) if labels[a.label] != a.label else a for a in found]


def _labels(part: CocoDataset, first: CocoDataset) -> list[int]:
    """For each label of `part` the label of the category of the same name in `first`."""
    if part.categories == first.categories:
        return list(range(len(first.categories)))
    names = [category.name for category in first.categories]
    own = [category.name for category in part.categories]
    if sorted(names) != sorted(own) or len(set(names)) < len(names):
        lacking, added = sorted(set(names) - set(own)), sorted(set(own) - set(names))
        detail = [f"not in the second: {', '.join(lacking[:5])}"] if lacking else []
        detail += [f"only in the second: {', '.join(added[:5])}"] if added else []
        raise UserError(
            f"{first.annotation_file} and {part.annotation_file} cannot be trained on together: they name "
            f"different categories ({len(names)} and {len(own)}); {'; '.join(detail) or 'a name is used twice'}",
            "All files of data.train and data.train_more must name the same categories; their ids may differ.",
        )
    labels = [names.index(name) for name in own]
    for label, category in zip(labels, part.categories, strict=True):
        if category.keypoints != first.categories[label].keypoints:
            raise UserError(
                f"{first.annotation_file} and {part.annotation_file} name the keypoints of {category.name} differently"
            )
    return labels
