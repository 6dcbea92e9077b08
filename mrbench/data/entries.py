"""The entries of a COCO file, one by one: what each must say, and why one that does not cannot be used."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mrbench.data.broken import Broken
from mrbench.data.keypoints import Keypoints, check_keypoints
from mrbench.data.segmentation import Segmentation, check_segmentation


@dataclass(frozen=True)
class ImageInfo:
    id: int
    file: Path
    width: int
    height: int


@dataclass(frozen=True)
class Category:
    id: int  # the data set's own; may have gaps
    name: str
    keypoints: tuple[str, ...] = ()  # their names, in the order of the annotations'


@dataclass(frozen=True)
class Annotation:
    id: int
    label: int  # 0..K-1: place in `CocoDataset.categories`
    bbox: tuple[float, float, float, float]  # xyxy, pixels of the file
    segmentation: Segmentation | None  # polygons or compressed RLE; None where the data set has boxes only
    area: float  # as the file says; for a file that does not, that of the box
    iscrowd: bool
    keypoints: Keypoints | None = None  # as the file says, in numbers of pixels; None where it says nothing


def read_image(entry: Any, number: int, folder: Path) -> ImageInfo:
    """Entry `number` of the list `images`, whose file lies in `folder`. Raises Broken.

    LVIS has no file names: the last two parts of its `coco_url` are one, as train2017/000000391895.jpg
    (as Detectron2, data/datasets/lvis.py, `load_lvis_json`).
    """
    entry = entry if isinstance(entry, dict) else {}
    identity, name, url = entry.get("id"), entry.get("file_name"), entry.get("coco_url")
    width, height = entry.get("width"), entry.get("height")
    if not isinstance(identity, int):
        raise Broken("image-entry", f"image number {number} in the list has no id that is a whole number")
    if name is None and isinstance(url, str):
        name = "/".join(url.split("/")[-2:])
    if not isinstance(name, str) or not name:
        raise Broken("image-entry", f"image {identity} has no file_name")
    if not (isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0):
        raise Broken("image-entry", f"image {identity} has no width and height: {width!r} x {height!r}")
    return ImageInfo(identity, folder / name, width, height)


def read_category(entry: Any, number: int) -> Category:
    """Entry `number` of the list `categories`. Raises Broken."""
    identity = entry.get("id") if isinstance(entry, dict) else None
    if not isinstance(identity, int):
        raise Broken("category-entry", f"category number {number} in the list has no id that is a whole number")
    names = entry.get("keypoints")
    return Category(
        identity, str(entry.get("name", identity)), tuple(map(str, names)) if isinstance(names, list) else ()
    )


def annotation_id(entry: Any, number: int) -> int:
    """The id of entry `number` of the list `annotations`. Raises Broken."""
    if not isinstance(entry, dict) or not isinstance(entry.get("id"), int):
        raise Broken("annotation-entry", f"number {number} in the list has no id that is a whole number")
    return int(entry["id"])


def read_annotation(
    entry: dict[str, Any], images: Mapping[int, ImageInfo], labels: Mapping[int, int], categories: list[Category]
) -> Annotation:
    """An annotation with an id. Raises Broken.

    `images` by id; `labels` of the category ids, which are places in `categories`.
    """
    image_id, category_id = entry.get("image_id"), entry.get("category_id")
    if not isinstance(image_id, int) or image_id not in images:
        raise Broken("unknown-image", f"its image id {image_id!r} is not among the images")
    if not isinstance(category_id, int) or category_id not in labels:
        raise Broken("unknown-category", f"its category id {category_id!r} is not among the categories")
    image, label = images[image_id], labels[category_id]
    try:
        _check_box(entry.get("bbox"))
        segmentation = check_segmentation(entry.get("segmentation"), image.height, image.width)
        keypoints = check_keypoints(entry.get("keypoints"), categories[label].keypoints)
    except Broken as broken:
        raise Broken(broken.kind, f"{broken.reason} (image {image_id})") from None
    x, y, w, h = (float(v) for v in entry["bbox"])
    area = entry.get("area", w * h)
    if not isinstance(area, int | float) or not math.isfinite(area):
        raise Broken("area-form", f"its area is not a number: {area!r}")
    crowd = bool(entry.get("iscrowd", 0))
    return Annotation(entry["id"], label, (x, y, x + w, y + h), segmentation, float(area), crowd, keypoints)


def _check_box(box: Any) -> None:
    if not isinstance(box, list) or len(box) != 4:
        raise Broken("box-form", f"bbox is not four numbers: {box!r:.60}")
    try:
        finite = math.isfinite(box[0] + box[1] + box[2] + box[3])
    except (TypeError, OverflowError):
        finite = False
    if not finite:
        raise Broken("box-form", f"bbox with something that is not a finite number: {box}")
    if box[2] <= 0 or box[3] <= 0:
        raise Broken("box-empty", f"box with zero width or height: {box} (x, y, width, height)")
