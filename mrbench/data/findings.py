"""What `mrbench data check` can find: every kind by its name, how grave it is, and what it means."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ERROR, WARNING, NOTE = "error", "warning", "note"
SEVERITIES = (ERROR, WARNING, NOTE)  # the gravest first
EXAMPLES = 3  # kept of each kind and split

# Errors stop a training or make its numbers wrong; warnings are probably mistakes; notes are good to know.
KINDS: dict[str, tuple[str, str]] = {
    # files
    "file": (ERROR, "a file of annotations, or a folder of pictures, cannot be used"),
    # entries
    "image-entry": (ERROR, "an image lacks its id, file name, width or height, or they are of another type"),
    "category-entry": (ERROR, "a category has no id that is a whole number"),
    "annotation-entry": (ERROR, "an annotation has no id that is a whole number"),
    "duplicate-image-id": (ERROR, "several images have the same id"),
    "duplicate-file-name": (WARNING, "several images are the same file"),
    "duplicate-category-id": (ERROR, "several categories have the same id"),
    "duplicate-category-name": (WARNING, "several categories have the same name"),
    "duplicate-annotation-id": (ERROR, "several annotations have the same id"),
    "duplicate-annotation": (WARNING, "an annotation is there again, with the same image, category and box"),
    "negative-id": (WARNING, "an id is negative"),
    "unknown-image": (ERROR, "an annotation is of an image that is not listed"),
    "unknown-category": (ERROR, "an annotation is of a category that is not listed"),
    "category-name": (WARNING, "a category has no name"),
    # boxes and areas
    "box-form": (ERROR, "a box is not four finite numbers"),
    "box-empty": (ERROR, "a box has no width or no height"),
    "box-outside": (ERROR, "a box lies wholly outside its picture"),
    "box-beyond": (WARNING, "a box reaches beyond its picture"),
    "box-mask": (WARNING, "a box is not that of its mask"),
    "area-form": (ERROR, "an area is not a finite number"),
    "area-zero": (WARNING, "an area is zero or negative"),
    "area-mask": (WARNING, "an area is not that of its mask; it decides what counts as small, medium and large"),
    "no-area": (NOTE, "annotations without an area: that of the box is taken"),
    # masks
    "segmentation-form": (ERROR, "a segmentation is neither polygons nor RLE"),
    "polygon-points": (ERROR, "a polygon has fewer than three points"),
    "polygon-odd": (ERROR, "a polygon has an x without a y"),
    "polygon-number": (ERROR, "a polygon has something that is not a finite number"),
    "polygon-beyond": (WARNING, "a polygon reaches beyond its picture"),
    "rle-size": (ERROR, "an RLE is made for a picture of another size"),
    "rle-counts": (ERROR, "an RLE is damaged, or does not hold as many pixels as the picture"),
    "mask-empty": (WARNING, "a mask covers nothing"),
    "no-mask": (NOTE, "annotations without a segmentation"),
    "mask-wanted": (ERROR, "annotations without a segmentation, which the model learns"),
    "crowd-value": (WARNING, "iscrowd is neither 0 nor 1"),
    "crowd-polygons": (WARNING, "a crowd region has polygons, where COCO has RLE"),
    # keypoints
    "keypoints-form": (ERROR, "keypoints are not a list of finite numbers"),
    "keypoints-length": (ERROR, "keypoints are not three numbers for each that the category names"),
    "keypoints-visibility": (ERROR, "a keypoint's visibility is not 0, 1 or 2"),
    "keypoints-number": (WARNING, "num_keypoints is not the number of keypoints that are annotated"),
    "keypoints-beyond": (WARNING, "an annotated keypoint lies outside its picture"),
    "keypoints-unset": (WARNING, "a keypoint has a position, but says that it is not annotated"),
    "keypoints-model": (ERROR, "the model learns another number of keypoints than the categories name"),
    # pictures
    "picture-missing": (ERROR, "a picture file is not there"),
    "picture-unreadable": (ERROR, "a picture file is empty, damaged, or of no known format"),
    "picture-truncated": (ERROR, "a picture file ends before the picture does"),
    "picture-size": (ERROR, "a picture has another size than the annotations say"),
    "picture-mode": (ERROR, "a picture's pixels are numbers without a fixed range"),
    "exif-orientation": (ERROR, "annotated as EXIF turns the picture, but pictures are read as they are stored"),
    "exif-turned": (NOTE, "EXIF would turn the picture; pictures are read as they are stored"),
    "same-picture": (NOTE, "several files of a split are equal, byte by byte"),
    # splits and models
    "split-leak": (ERROR, "a picture is in both splits: the same file, or an equal one"),
    "categories-differ": (ERROR, "train and val list different categories"),
    "categories-weights": (ERROR, "the weights are of another number of categories, or share no name"),
    "category-names-weights": (WARNING, "the weights name other categories, as many as the data set has"),
    "image-empty": (NOTE, "images without annotations"),
    "category-empty": (NOTE, "categories without annotations"),
}


@dataclass(frozen=True)
class Example:
    split: str
    text: str
    image_id: Any = None
    annotation_id: Any = None
    file: str | None = None


@dataclass
class Finding:
    """All of one kind. The first `EXAMPLES` of each split are kept."""

    kind: str
    count: int = 0
    examples: list[Example] = field(default_factory=list)

    @property
    def severity(self) -> str:
        return KINDS[self.kind][0]

    @property
    def meaning(self) -> str:
        return KINDS[self.kind][1]


class Findings:
    """Collects what is found, by kind."""

    def __init__(self) -> None:
        self._found: dict[str, Finding] = {}

    def add(
        self,
        kind: str,
        split: str,
        text: str,
        *,
        image_id: Any = None,
        annotation_id: Any = None,
        file: Path | None = None,
    ) -> None:
        finding = self._found.setdefault(kind, Finding(kind))
        assert kind in KINDS
        finding.count += 1
        if sum(e.split == split for e in finding.examples) < EXAMPLES:
            name = None if file is None else str(file)
            finding.examples.append(Example(split, text, image_id, annotation_id, name))

    def kinds(self) -> set[str]:
        return set(self._found)

    def ranked(self) -> list[Finding]:
        """The gravest first, each in the order of `KINDS`."""
        order = list(KINDS)
        return sorted(self._found.values(), key=lambda f: (SEVERITIES.index(f.severity), order.index(f.kind)))

    def worst(self) -> str | None:
        return next((finding.severity for finding in self.ranked()), None)


def duplicates(values: Iterable[Any]) -> list[Any]:
    """The values that occur more than once, each once, in order."""
    seen: set[Any] = set()
    again: dict[Any, None] = {}
    for value in values:
        if value in seen:
            again[value] = None
        seen.add(value)
    return list(again)
