"""One annotation file looked through entry by entry: what a reader would refuse, and what it takes but looks wrong."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mrbench.data.broken import Broken
from mrbench.data.check_shapes import Shapes, check_shapes
from mrbench.data.coco import no_garbage_collection, read_coco
from mrbench.data.entries import (
    Annotation,
    Category,
    ImageInfo,
    annotation_id,
    read_annotation,
    read_category,
    read_image,
)
from mrbench.data.findings import Findings, duplicates
from mrbench.data.keypoints import count_visible
from mrbench.errors import UserError

CHUNK = 20_000  # annotations whose shapes are held as arrays at once
SLACK = 1.0  # pixels that a keypoint may lie outside: on the border of the last pixel


@dataclass
class Split:
    """What a file holds that can be used."""

    name: str
    annotation_file: Path
    image_folder: Path
    images: list[ImageInfo] = field(default_factory=list)
    categories: list[Category] = field(default_factory=list)
    annotations: int = 0
    labels: list[int] = field(default_factory=list)  # of the instances, crowds not counted
    areas: list[float] = field(default_factory=list)
    crowds: int = 0
    annotated: set[int] = field(default_factory=set)  # ids of images with annotations
    instances_without_mask: int = 0


def check_split(name: str, annotation_file: Path, image_folder: Path, findings: Findings) -> Split:
    """Reads an annotation file and adds what is wrong with it. Pictures are not looked at."""
    split = Split(name, annotation_file, image_folder)
    with no_garbage_collection():
        try:
            content = read_coco(annotation_file)
        except UserError as error:
            findings.add("file", name, error.what, file=annotation_file)
            return split
        split.images = _images(content["images"], split, findings)
        split.categories = _categories(content["categories"], split, findings)
        _annotations(content.get("annotations", []), split, findings)
    empty = [image for image in split.images if image.id not in split.annotated]
    if "annotations" in content:
        for image in empty:
            findings.add("image-empty", name, image.file.name, image_id=image.id)
        used = set(split.labels)
        for label, category in enumerate(split.categories):
            if label not in used:
                findings.add("category-empty", name, f"{category.id} {category.name}")
    return split


def _images(entries: list[Any], split: Split, findings: Findings) -> list[ImageInfo]:
    images: dict[int, ImageInfo] = {}
    for number, entry in enumerate(entries):
        try:
            image = read_image(entry, number, split.image_folder)
        except Broken as broken:
            findings.add(broken.kind, split.name, broken.reason)
            continue
        if image.id in images:
            text = f"{images[image.id].file.name} and {image.file.name}"
            findings.add("duplicate-image-id", split.name, text, image_id=image.id)
            continue
        if image.id < 0:
            findings.add("negative-id", split.name, "of an image", image_id=image.id)
        images[image.id] = image
    for file in duplicates(image.file for image in images.values()):
        findings.add("duplicate-file-name", split.name, file.name, file=file)
    if not entries:
        findings.add("file", split.name, "it lists no images", file=split.annotation_file)
    return list(images.values())


def _categories(entries: list[Any], split: Split, findings: Findings) -> list[Category]:
    categories: dict[int, Category] = {}
    for number, entry in enumerate(entries):
        try:
            category = read_category(entry, number)
        except Broken as broken:
            findings.add(broken.kind, split.name, broken.reason)
            continue
        if category.id in categories:
            text = f"{category.id}: {categories[category.id].name} and {category.name}"
            findings.add("duplicate-category-id", split.name, text)
            continue
        if not isinstance(entry.get("name"), str) or not entry["name"].strip():
            findings.add("category-name", split.name, f"{category.id}: {entry.get('name')!r:.60}")
        if category.id < 0:
            findings.add("negative-id", split.name, f"of category {category.name}: {category.id}")
        categories[category.id] = category
    for again in duplicates(category.name for category in categories.values()):
        findings.add("duplicate-category-name", split.name, again)
    if not entries:
        findings.add("file", split.name, "it lists no categories", file=split.annotation_file)
    return sorted(categories.values(), key=lambda c: c.id)


def _annotations(entries: list[Any], split: Split, findings: Findings) -> None:
    images = {image.id: image for image in split.images}
    labels = {category.id: label for label, category in enumerate(split.categories)}
    ids: set[int] = set()
    boxes: set[tuple[Any, ...]] = set()
    shapes = Shapes()
    for number, entry in enumerate(entries):
        identity: Any = None
        image_id = entry.get("image_id") if isinstance(entry, dict) else None
        if isinstance(image_id, int):
            split.annotated.add(image_id)
        try:
            identity = annotation_id(entry, number)
            if identity in ids:
                raise Broken("duplicate-annotation-id", "another annotation has the same id")
            ids.add(identity)
            annotation = read_annotation(entry, images, labels, split.categories)
        except Broken as broken:
            findings.add(broken.kind, split.name, broken.reason, image_id=image_id, annotation_id=identity)
            continue
        image = images[entry["image_id"]]
        for kind, text in _doubts(entry, annotation, image):
            findings.add(kind, split.name, text, image_id=image.id, annotation_id=identity, file=image.file)
        same = (image.id, annotation.label, annotation.iscrowd, *annotation.bbox)
        if same in boxes:
            text = f"box {entry['bbox']}"
            findings.add("duplicate-annotation", split.name, text, image_id=image.id, annotation_id=identity)
        boxes.add(same)
        _count(annotation, split)
        shapes.add(annotation, image)
        if len(shapes) == CHUNK:
            check_shapes(shapes, split.name, findings)
            shapes = Shapes()
    check_shapes(shapes, split.name, findings)


def _count(annotation: Annotation, split: Split) -> None:
    split.annotations += 1
    if annotation.iscrowd:
        split.crowds += 1
        return
    split.labels.append(annotation.label)
    split.areas.append(annotation.area)
    split.instances_without_mask += annotation.segmentation is None


def _doubts(entry: dict[str, Any], annotation: Annotation, image: ImageInfo) -> list[tuple[str, str]]:
    """(kind, text) of what a reader takes, but is probably a mistake."""
    found = []
    if annotation.id < 0:
        found.append(("negative-id", "of an annotation"))
    crowd = entry.get("iscrowd", 0)
    if crowd not in (0, 1):
        found.append(("crowd-value", f"iscrowd is {crowd!r:.40}"))
    if annotation.iscrowd and isinstance(annotation.segmentation, list):
        found.append(("crowd-polygons", f"{len(annotation.segmentation)} polygons"))
    if "area" not in entry:
        found.append(("no-area", "no area"))
    elif annotation.area <= 0:
        found.append(("area-zero", f"area {annotation.area:g}"))
    if annotation.segmentation is None and not annotation.iscrowd:
        found.append(("no-mask", "no segmentation"))
    if annotation.keypoints is not None:
        found += _keypoint_doubts(entry, annotation.keypoints, image)
    return found


def _keypoint_doubts(entry: dict[str, Any], keypoints: tuple[float, ...], image: ImageInfo) -> list[tuple[str, str]]:
    found = []
    number, said = count_visible(keypoints), entry.get("num_keypoints")
    if said is not None and said != number:
        found.append(("keypoints-number", f"num_keypoints is {said!r:.40}, {number} are annotated"))
    points = list(zip(keypoints[0::3], keypoints[1::3], keypoints[2::3], strict=True))
    outside = [
        (x, y)
        for x, y, v in points
        if v > 0 and not (-SLACK <= x <= image.width + SLACK and -SLACK <= y <= image.height + SLACK)
    ]
    if outside:
        found.append(("keypoints-beyond", f"{outside[0]} in {image.width} x {image.height} pixels"))
    unset = [(x, y) for x, y, v in points if v == 0 and (x or y)]
    if unset:
        found.append(("keypoints-unset", f"{unset[0]} with visibility 0"))
    return found
