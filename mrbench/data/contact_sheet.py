"""Many pictures on one sheet, with their masks drawn in: to see whether annotations and pictures agree."""

import colorsys

import numpy as np
from PIL import Image, ImageDraw

from mrbench.data.augmentation import Plan, short_edge_size
from mrbench.data.coco import CocoDataset
from mrbench.data.masks import place_mask
from mrbench.data.pictures import read_picture

GAP = 4  # pixels between pictures


def contact_sheet(dataset: CocoDataset, indices: list[int], columns: int, side: int) -> Image.Image:
    """The pictures `indices` in rows of `columns`, each fitted into a square of `side` pixels."""
    rows = -(-len(indices) // columns)
    pitch = side + GAP
    sheet = Image.new("RGB", (columns * pitch + GAP, rows * pitch + GAP), "white")
    for place, index in enumerate(indices):
        row, column = divmod(place, columns)
        sheet.paste(draw_annotations(dataset, index, side), (GAP + column * pitch, GAP + row * pitch))
    return sheet


def draw_annotations(dataset: CocoDataset, index: int, side: int) -> Image.Image:
    """One picture, its long side `side` pixels: masks in their class's colour, boxes with names, crowds in grey."""
    image = dataset.images[index]
    original = (image.height, image.width)
    size = short_edge_size(*original, side, side)
    plan = Plan(original, size, (0, 0), size, flip=False)
    pixels = plan.picture(read_picture(image)).astype(np.float32)
    annotations = dataset.annotations(index)
    colours = [_colour(a.label, len(dataset.categories), a.iscrowd) for a in annotations]
    for annotation, colour in zip(annotations, colours, strict=True):
        window = place_mask(annotation.segmentation, plan) if annotation.segmentation else None
        if window is not None:
            left, top, right, bottom = window.box
            part = pixels[top:bottom, left:right]
            part += (np.array(colour) - part) * (0.5 * window.bitmap[..., None])
    picture = Image.fromarray(pixels.astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    for annotation, colour in zip(annotations, colours, strict=True):
        left, top, right, bottom = plan.boxes(np.array([annotation.bbox]))[0].tolist()
        pen.rectangle([left, top, max(right - 1, left), max(bottom - 1, top)], outline=colour)
        name = "crowd" if annotation.iscrowd else dataset.categories[annotation.label].name
        pen.text((left + 2, top + 1), name, fill="white", stroke_width=1, stroke_fill="black")
    return picture


def _colour(label: int, classes: int, crowd: bool) -> tuple[int, int, int]:
    if crowd:
        return 128, 128, 128
    red, green, blue = colorsys.hsv_to_rgb(label / classes, 0.9, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)
