"""Many pictures on one sheet, with their masks drawn in: to see whether annotations and pictures agree."""

import colorsys
from collections.abc import Iterable, Sequence
from math import ceil

import numpy as np
from PIL import Image, ImageDraw

from mrbench.config.schema import RunConfig
from mrbench.data.augmentation import Plan, short_edge_size
from mrbench.data.coco import CocoDataset
from mrbench.data.collate import Sample
from mrbench.data.masks import Window, place_mask
from mrbench.data.pictures import read_picture
from mrbench.data.train_batches import TrainBatches

Colour = tuple[int, int, int]
GAP = 4  # pixels between pictures
LINE = 13  # pixels that a name's line is high


def contact_sheet(dataset: CocoDataset, indices: list[int], columns: int, side: int) -> Image.Image:
    """The pictures `indices` in rows of `columns`, each fitted into a square of `side` pixels."""
    return _sheet((draw_annotations(dataset, index, side) for index in indices), len(indices), columns, side)


def augmented_sheet(dataset: CocoDataset, config: RunConfig, count: int, columns: int, side: int) -> Image.Image:
    """As `contact_sheet`, the first `count` pictures of a training with their instances, as the network sees them.

    Raises UserError where nothing can be trained on.
    """
    batches = TrainBatches(dataset, config, 0, 1, 0)
    samples = (batches.sample(epoch, index) for epoch, index in batches.stream(count))
    return _sheet((draw_sample(sample, dataset, side) for sample in samples), count, columns, side)


def draw_annotations(dataset: CocoDataset, index: int, side: int) -> Image.Image:
    """One picture, its long side `side` pixels: masks in their class's colour, boxes with names, crowds in grey."""
    image = dataset.images[index]
    original = (image.height, image.width)
    size = short_edge_size(*original, side, side)
    plan = Plan(original, size, (0, 0), size, flip=False)
    annotations = dataset.annotations(index)
    colours = [_colour(a.label, len(dataset.categories), a.iscrowd) for a in annotations]
    names = ["crowd" if a.iscrowd else dataset.categories[a.label].name for a in annotations]
    windows = [place_mask(a.segmentation, plan) if a.segmentation else None for a in annotations]
    picture = _shade(plan.picture(read_picture(image)), windows, colours)
    boxes = plan.boxes(np.array([a.bbox for a in annotations], dtype=np.float64).reshape(-1, 4))
    return _label(picture, boxes, names, colours)


def draw_sample(sample: Sample, dataset: CocoDataset, side: int) -> Image.Image:
    """One picture as the network sees it, its long side `side` pixels: masks, boxes and names as they are learned."""
    colours = [_colour(label, len(dataset.categories), False) for label in sample.labels.tolist()]
    names = [dataset.categories[label].name for label in sample.labels.tolist()]
    picture = _shade(sample.pixels, sample.windows, colours)
    height, width = short_edge_size(picture.height, picture.width, side, side)
    factor = width / picture.width
    picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    return _label(picture, sample.boxes * factor, names, colours)


def _sheet(pictures: Iterable[Image.Image], count: int, columns: int, side: int) -> Image.Image:
    rows = -(-count // columns)
    pitch = side + GAP
    sheet = Image.new("RGB", (columns * pitch + GAP, rows * pitch + GAP), "white")
    for place, picture in enumerate(pictures):
        row, column = divmod(place, columns)
        sheet.paste(picture, (GAP + column * pitch, GAP + row * pitch))
    return sheet


def _shade(pixels: np.ndarray, windows: Sequence[Window | None], colours: Sequence[Colour]) -> Image.Image:
    shaded = pixels.astype(np.float32)
    for window, colour in zip(windows, colours, strict=False):  # where no masks are learned there are no windows
        if window is not None:
            left, top, right, bottom = window.box
            part = shaded[top:bottom, left:right]
            part += (np.array(colour) - part) * (0.5 * window.bitmap[..., None])
    return Image.fromarray(shaded.astype(np.uint8))


def _label(picture: Image.Image, boxes: np.ndarray, names: Sequence[str], colours: Sequence[Colour]) -> Image.Image:
    """Boxes, and names inside them where no other name is: at the top, or at the foot, or left out. A name that would
    reach over the picture's border is moved inside."""
    pen = ImageDraw.Draw(picture)
    taken: list[tuple[float, float, float, float]] = []
    for box, name, colour in zip(boxes.tolist(), names, colours, strict=True):
        left, top, right, bottom = box
        pen.rectangle([left, top, max(right - 1, left), max(bottom - 1, top)], outline=colour)
        extent = pen.textbbox((0, 0), name, stroke_width=1)
        for corner in ((left + 2, top + 1), (left + 2, bottom - LINE)):
            place = _moved_inside(corner, extent, picture.size)
            x1, y1, x2, y2 = area = pen.textbbox(place, name, stroke_width=1)
            if not any(x1 < other[2] and other[0] < x2 and y1 < other[3] and other[1] < y2 for other in taken):
                pen.text(place, name, fill="white", stroke_width=1, stroke_fill="black")
                taken.append(area)
                break
    return picture


def _moved_inside(
    corner: tuple[float, float], extent: tuple[float, float, float, float], size: tuple[int, int]
) -> tuple[int, int]:
    """Where to begin a text near `corner` so that all of it is in the picture: on whole pixels, because between them
    Pillow cuts letters off at the border. `extent` is the text's box if it begins at (0, 0)."""
    left, top, right, bottom = extent
    x, y = round(corner[0]), round(corner[1])
    return max(min(x, size[0] - ceil(right)), ceil(-left)), max(min(y, size[1] - ceil(bottom)), ceil(-top))


def _colour(label: int, classes: int, crowd: bool) -> Colour:
    if crowd:
        return 128, 128, 128
    red, green, blue = colorsys.hsv_to_rgb(label / classes, 0.9, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)
