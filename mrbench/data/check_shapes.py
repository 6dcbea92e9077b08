"""Boxes, areas and masks of many annotations held against each other and against their pictures, as arrays."""

from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from mrbench.data.entries import Annotation, ImageInfo
from mrbench.data.findings import Findings

Floats = NDArray[np.float64]

SLACK = 1.0  # pixels beyond the picture, as rounding leaves them
# What a box may differ from its mask's: two pixels, and a twentieth of its longer side. COCO's own are equal to their
# polygons', and a pixel larger than their RLEs'.
BOX_SLACK, BOX_SHARE = 2.0, 0.05
# What an area may differ from its mask's: a tenth of the larger one, and half the box's outline, by which a polygon
# and its pixels differ. COCO's own are those of the polygons; of its crowd regions they are up to 40 % larger.
AREA_SHARE, CROWD_SHARE = 0.1, 0.5


@dataclass
class Shapes:
    """Annotations that were read, with their images."""

    annotations: list[Annotation] = field(default_factory=list)
    images: list[ImageInfo] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.annotations)

    def add(self, annotation: Annotation, image: ImageInfo) -> None:
        self.annotations.append(annotation)
        self.images.append(image)


def check_shapes(shapes: Shapes, split: str, findings: Findings) -> None:
    """Adds what does not agree."""
    if not len(shapes):
        return

    def add(kind: str, place: Any, text: str) -> None:
        image = shapes.images[place]
        identity = shapes.annotations[place].id
        findings.add(kind, split, text, image_id=image.id, annotation_id=identity, file=image.file)

    boxes = np.array([a.bbox for a in shapes.annotations])
    sizes = np.array([(image.width, image.height) for image in shapes.images], dtype=np.float64)
    outside = np.any((boxes[:, :2] >= sizes) | (boxes[:, 2:] <= 0), axis=1)
    for place in np.flatnonzero(outside):
        add("box-outside", place, f"{_box(boxes[place])} in {_size(shapes.images[place])}")
    beyond: NDArray[np.bool_] = np.asarray(_overhang(boxes, sizes) > SLACK)
    for place in np.flatnonzero(beyond & ~outside):
        add("box-beyond", place, f"{_box(boxes[place])} in {_size(shapes.images[place])}")

    masked, extents, areas = _measure(shapes)
    for place in masked[areas <= 0]:
        add("mask-empty", place, "no pixel inside")
    some = np.asarray(areas > 0)
    masked, extents, areas = masked[some], extents[some], areas[some]
    # A box that lies wrong says nothing of the mask, nor does a mask outside of the box.
    # RLEs are as large as the picture.
    mask_beyond: NDArray[np.bool_] = np.asarray(_overhang(extents, sizes[masked]) > SLACK)
    for row in np.flatnonzero(mask_beyond & ~beyond[masked]):
        add("polygon-beyond", masked[row], f"{_box(extents[row])} in {_size(shapes.images[masked[row]])}")
    kept = ~(mask_beyond | beyond[masked] | outside[masked])
    masked, extents, areas = masked[kept], extents[kept], areas[kept]

    sides = extents[:, 2:] - extents[:, :2]
    apart = np.abs(boxes[masked] - extents).max(axis=1, initial=0)
    for row in np.flatnonzero(apart > BOX_SLACK + BOX_SHARE * sides.max(axis=1, initial=0)):
        place = masked[row]
        add("box-mask", place, f"box {_box(boxes[place])}, mask {_box(extents[row])} (x, y, width, height)")
    said = np.array([shapes.annotations[p].area for p in masked])
    crowds = np.array([shapes.annotations[p].iscrowd for p in masked], dtype=bool)
    share = np.where(crowds, CROWD_SHARE, AREA_SHARE)
    allowed = share * np.maximum(said, areas) + sides.sum(axis=1)
    for row in np.flatnonzero((np.abs(said - areas) > allowed) & (said > 0)):
        place = masked[row]
        # Outlines that overlap count twice in the sum of their areas: asked of the pixels.
        exact = _pixels(shapes.annotations[place], shapes.images[place])
        if abs(said[row] - exact) > allowed[row]:
            add("area-mask", place, f"area {said[row]:g}, mask {exact:g} square pixels")


def _measure(shapes: Shapes) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Of all annotations with a mask: their places, the masks' extents xyxy and areas, in pixels."""
    kinds = [type(a.segmentation) for a in shapes.annotations]
    polygons = [i for i, kind in enumerate(kinds) if kind is list]
    rles = [i for i, kind in enumerate(kinds) if kind is dict]
    places = np.array(polygons + rles, dtype=np.int64)
    extents: Floats = np.zeros((0, 4))
    areas: Floats = np.zeros(0)
    if polygons:
        extents, areas = _measure_polygons([shapes.annotations[i].segmentation for i in polygons])
    if rles:
        encoded: list[Any] = [shapes.annotations[i].segmentation for i in rles]
        boxes = np.asarray(coco_mask.toBbox(encoded), dtype=np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        extents = np.concatenate([extents, boxes])
        # One by one: some versions of pycocotools overflow on long lists.
        areas = np.concatenate([areas, [float(coco_mask.area(rle)) for rle in encoded]])
    return places, extents, areas


def _measure_polygons(groups: list[Any]) -> tuple[Floats, Floats]:
    """Extents xyxy and areas of lists of polygons; an area is the sum of those that the outlines enclose."""
    polygons = list(chain.from_iterable(groups))
    points = np.fromiter(chain.from_iterable(polygons), np.float64).reshape(-1, 2)
    ends = np.cumsum([len(polygon) // 2 for polygon in polygons])
    starts = np.concatenate([[0], ends[:-1]])
    following = np.arange(1, len(points) + 1)
    following[ends - 1] = starts
    (x, y), (next_x, next_y) = points.T, points[following].T
    enclosed = np.abs(np.add.reduceat(x * next_y - next_x * y, starts)) / 2
    firsts = np.concatenate([[0], np.cumsum([len(group) for group in groups])[:-1]])
    low, high = np.minimum.reduceat(points, starts[firsts]), np.maximum.reduceat(points, starts[firsts])
    return np.concatenate([low, high], axis=1), np.add.reduceat(enclosed, firsts)


def _pixels(annotation: Annotation, image: ImageInfo) -> float:
    segmentation: Any = annotation.segmentation
    if isinstance(segmentation, list):
        segmentation = coco_mask.merge(coco_mask.frPyObjects(segmentation, image.height, image.width))
    return float(coco_mask.area(segmentation))


def _overhang(boxes: Floats, sizes: Floats) -> Floats:
    """How far boxes xyxy reach beyond pictures of (width, height), pixels; negative inside."""
    over = np.concatenate([-boxes[:, :2], boxes[:, 2:] - sizes], axis=1)
    return np.asarray(over.max(axis=1, initial=-np.inf))


def _box(xyxy: Floats) -> str:
    x1, y1, x2, y2 = (float(value) for value in xyxy)
    return f"[{x1:g}, {y1:g}, {x2 - x1:g}, {y2 - y1:g}]"


def _size(image: ImageInfo) -> str:
    return f"{image.width} x {image.height} pixels"
