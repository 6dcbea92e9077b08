"""Instances drawn on pictures: translucent masks with thin outlines, skeletons, boxes and legible labels."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pycocotools import mask as rle_api

from mrbench.data.palette import Colour, by_class, by_instance

OPACITY = 0.42  # of a mask
SURE = 0.05  # a keypoint's least score to be drawn (Detectron2, utils/visualizer.py)
LEGIBLE = 640  # pixels of the longer side; smaller pictures are enlarged by a whole number, or no label is readable
MARGIN = 8  # pixels between pictures that stand side by side
LETTER = 48  # letters are the picture's longer side divided by this, in pixels, and no smaller than SMALLEST
SMALLEST = 11
# Pairs of COCO's 17 keypoints, counted from 0, that its annotations connect ("skeleton" of person_keypoints_*.json).
LIMBS = (
    *((15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8)),
    *((7, 9), (8, 10), (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6)),
)

Box = tuple[float, float, float, float]


def draw(
    image: Image.Image,
    boxes: Sequence[Sequence[float]] | NDArray[Any],
    labels: Sequence[int],
    masks: Sequence[NDArray[Any]] | None = None,
    scores: Sequence[float] | None = None,
    names: Sequence[str] = (),
    keypoints: Sequence[NDArray[Any]] | None = None,
    beside: Iterable[int] = (),
) -> Image.Image:
    """A copy of `image` with instances on it; small pictures come back enlarged.

    boxes [N, 4] xyxy in pixels; labels [N] in 0..K-1, shown by `names` where there are any; masks [N] bool
    [height, width]; scores [N] in 0..1; keypoints [N] float [K, 3] of x, y and visibility or score, of which those
    that are neither annotated nor found with some certainty are left out; COCO's 17 are joined by limbs. Colours tell
    the classes of the picture, and their shades the instances; where there is one class only, colours tell the
    instances and its name is not written. In a crowded picture labels without a free place are left out. `beside` are
    the labels of pictures whose classes are to have the same colours.
    """
    factor = max(1, round(LEGIBLE / max(image.size)))
    canvas = image.convert("RGB").resize((image.width * factor, image.height * factor), Image.Resampling.BICUBIC)
    one_class = len(names) == 1
    colours = by_instance(len(labels)) if one_class else by_class(labels, beside)
    large_first = sorted(range(len(labels)), key=lambda n: -_area(boxes[n]))
    line = max(1, round(max(canvas.size) / 500))
    if masks is not None and len(labels):
        pixels = np.array(canvas)
        for n in large_first:
            _paint_mask(pixels, np.asarray(masks[n], bool), colours[n], factor, line)
        canvas = Image.fromarray(pixels)
    pen = ImageDraw.Draw(canvas)
    for n in large_first:
        x1, y1, x2, y2 = (float(value) * factor for value in boxes[n])
        pen.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=colours[n], width=line)
    if keypoints is not None:
        for n in large_first:
            _draw_keypoints(pen, np.asarray(keypoints[n]) * [factor, factor, 1], colours[n], line)
    font = ImageFont.load_default(size=max(SMALLEST, max(canvas.size) / LETTER))
    taken: list[Box] = []
    for n in range(len(labels)):
        name = names[labels[n]] if labels[n] < len(names) else str(labels[n])
        words = ([] if one_class else [name]) + ([] if scores is None else [f"{scores[n]:.2f}"])
        if not words:
            continue
        text = " ".join(words)
        _write_label(pen, text, [float(value) * factor for value in boxes[n]], colours[n], font, canvas.size, taken)
    return canvas


def draw_coco(
    image: Image.Image,
    items: Sequence[Mapping[str, Any]],
    categories: Sequence[tuple[int, str]],
    beside: Sequence[Mapping[str, Any]] = (),
) -> Image.Image:
    """`draw` for COCO annotations or results (bbox xywh, category_id, segmentation, keypoints, score) of one image.

    categories: (id, name) of all categories in order. Crowd regions are left out. `beside`: the items of pictures
    whose classes are to have the same colours.
    """
    items = [item for item in items if not item.get("iscrowd")]
    place = {key: index for index, (key, _) in enumerate(categories)}
    boxes = [_corners(item["bbox"]) for item in items]
    masks = None
    if items and all(item.get("segmentation") for item in items):
        masks = [_decode(item["segmentation"], image.height, image.width) for item in items]
    keypoints = None
    if items and all(item.get("keypoints") for item in items):
        # COCO numbers the pixel that a keypoint lies on; its centre is half a pixel further
        keypoints = [np.reshape(item["keypoints"], (-1, 3)) + [0.5, 0.5, 0] for item in items]
    scores = [float(item["score"]) for item in items] if items and "score" in items[0] else None
    labels = [place[item["category_id"]] for item in items]
    names = [name for _, name in categories]
    return draw(image, boxes, labels, masks, scores, names, keypoints, [place[item["category_id"]] for item in beside])


def draw_comparison(
    image: Image.Image,
    panels: Sequence[tuple[str, Sequence[Mapping[str, Any]]]],
    categories: Sequence[tuple[int, str]],
) -> Image.Image:
    """The same picture several times side by side, each with its title and its COCO annotations or results.

    Example: draw_comparison(image, [("ground truth", annotations), ("baseline", results)], categories)
    """
    everything = [item for _, items in panels for item in items]
    pictures = [draw_coco(image, items, categories, everything) for _, items in panels]
    width, height = pictures[0].size
    size = max(14, width // 32)
    font = ImageFont.load_default(size=size)
    head = round(size * 1.6)
    sheet = Image.new("RGB", (len(panels) * (width + MARGIN) - MARGIN, height + head), "white")
    pen = ImageDraw.Draw(sheet)
    for column, ((title, _), picture) in enumerate(zip(panels, pictures, strict=True)):
        left = column * (width + MARGIN)
        sheet.paste(picture, (left, head))
        pen.text((left + 2, head / 2), title, fill="black", font=font, anchor="lm")
    return sheet


def _draw_keypoints(pen: ImageDraw.ImageDraw, keypoints: NDArray[Any], colour: Colour, line: int) -> None:
    """Rimmed limbs and dots, which are seen on masks of the same colour."""
    if len(keypoints) == 17:
        ends = [
            [tuple(keypoints[a][:2]), tuple(keypoints[b][:2])]
            for a, b in LIMBS
            if min(keypoints[a][2], keypoints[b][2]) > SURE
        ]
        for fill, width in (("black", 2 * line + 2), (colour, 2 * line)):
            for limb in ends:
                pen.line(limb, fill=fill, width=width)
    radius = 2.5 * line
    for x, y, sure in keypoints:
        if sure > SURE:
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour, outline="black")


def _area(box: Sequence[float] | NDArray[Any]) -> float:
    return float((box[2] - box[0]) * (box[3] - box[1]))


def _corners(xywh: Sequence[float]) -> Box:
    x, y, w, h = xywh
    return x, y, x + w, y + h


def _decode(segmentation: Any, height: int, width: int) -> NDArray[Any]:
    rle = segmentation
    if isinstance(rle, list):
        rle = rle_api.merge(rle_api.frPyObjects(rle, height, width))
    elif isinstance(rle["counts"], list):
        rle = rle_api.frPyObjects(rle, height, width)
    return np.asarray(rle_api.decode([rle])[:, :, 0], bool)


def _paint_mask(pixels: NDArray[Any], mask: NDArray[Any], colour: Colour, factor: int, line: int) -> None:
    """Blends a mask into `pixels`, and its outline fully, inside the window that it covers."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return
    top, left = rows[0], columns[0]
    window = mask[top : rows[-1] + 1, left : columns[-1] + 1].repeat(factor, 0).repeat(factor, 1)
    inside = np.pad(window, line)
    for _ in range(line):
        inside[1:-1, 1:-1] = (
            inside[1:-1, 1:-1] & inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
        )
    outline = window & ~inside[line:-line, line:-line]
    height, width = window.shape
    part = pixels[top * factor : top * factor + height, left * factor : left * factor + width]
    paint = np.array(colour, np.float32)
    part[window] = np.round(part[window] * (1 - OPACITY) + paint * OPACITY).astype(np.uint8)
    part[outline] = colour


def _write_label(
    pen: ImageDraw.ImageDraw,
    text: str,
    box: Sequence[float],
    colour: Colour,
    font: Any,
    size: tuple[int, int],
    taken: list[Box],
) -> None:
    """A chip with the text at the first free place: at the left or right end of the box's edges, over it, inside it at
    the top where it is much larger, below it, and inside it at the foot or at the top."""
    # On whole pixels: between them Pillow cuts off letters at the picture's border.
    left, top, right, bottom = (round(value) for value in pen.textbbox((0, 0), text, font=font))
    pad = max(2, round(font.size / 6))
    width, height = right - left + 2 * pad, bottom - top + 2 * pad
    box = [round(value) for value in box]
    roomy = box[3] - box[1] > 4 * height and box[2] - box[0] > width
    rows = [box[1] - height, *([box[1]] if roomy else []), box[3], box[3] - height, box[1]]
    limits = max(size[0] - width, 0), max(size[1] - height, 0)
    corners = [(min(max(x, 0), limits[0]), min(max(y, 0), limits[1])) for y in rows for x in (box[0], box[2] - width)]
    chips = [(x, y, x + width, y + height) for x, y in corners]
    chip = next((c for c in chips if not any(_overlap(c, other) for other in taken)), None)
    if chip is None:
        return
    taken.append(chip)
    pen.rectangle(chip, fill=colour)
    luminance = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    ink = "black" if luminance > 110 else "white"
    pen.text((chip[0] + pad - left, chip[1] + pad - top), text, fill=ink, font=font)


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
