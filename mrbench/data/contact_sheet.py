"""Many pictures on one sheet, with their masks drawn in: to see whether annotations and pictures agree."""

from collections.abc import Iterable, Sequence
from math import ceil

import numpy as np
from PIL import Image, ImageDraw

from mrbench.config.schema import RunConfig
from mrbench.data.augmentation import Plan, short_edge_size
from mrbench.data.coco import CocoDataset
from mrbench.data.collate import Sample
from mrbench.data.masks import Window, place_mask
from mrbench.data.palette import PALETTE, Colour, by_class, by_instance
from mrbench.data.pictures import read_picture
from mrbench.data.train_batches import TrainBatches

GAP = 4  # pixels between pictures
LINE = 13  # pixels that a name's line is high
CROWD: Colour = (128, 128, 128)


def contact_sheet(dataset: CocoDataset, indices: list[int], columns: int, side: int) -> Image.Image:
    """The pictures `indices` in rows of `columns`, each fitted into a square of `side` pixels.

    Where the data set has one category its name is the sheet's title, and is not written into the pictures.
    """
    pictures = (draw_annotations(dataset, index, side) for index in indices)
    return _sheet(pictures, len(indices), columns, side, _title(dataset))


def augmented_sheet(dataset: CocoDataset, config: RunConfig, count: int, columns: int, side: int) -> Image.Image:
    """As `contact_sheet`, the first `count` pictures of a training with their instances, as the network sees them.

    Raises UserError where nothing can be trained on.
    """
    batches = TrainBatches(dataset, config, 0, 1, 0)
    samples = (batches.sample(epoch, index) for epoch, index in batches.stream(count))
    return _sheet((draw_sample(sample, dataset, side) for sample in samples), count, columns, side, _title(dataset))


def draw_annotations(dataset: CocoDataset, index: int, side: int) -> Image.Image:
    """One picture, its long side `side` pixels: masks as `_colours` has it, boxes with names, crowds in grey."""
    image = dataset.images[index]
    original = (image.height, image.width)
    size = short_edge_size(*original, side, side)
    plan = Plan(original, size, (0, 0), size, flip=False)
    annotations = dataset.annotations(index)
    drawn = iter(_colours([a.label for a in annotations if not a.iscrowd], dataset))
    colours = [CROWD if a.iscrowd else next(drawn) for a in annotations]
    names = ["crowd" if a.iscrowd else _name(a.label, dataset) for a in annotations]
    windows = [place_mask(a.segmentation, plan) if a.segmentation else None for a in annotations]
    picture = _shade(plan.picture(read_picture(image)), windows, colours)
    boxes = plan.boxes(np.array([a.bbox for a in annotations], dtype=np.float64).reshape(-1, 4))
    return _label(picture, boxes, names, colours)


def draw_sample(sample: Sample, dataset: CocoDataset, side: int) -> Image.Image:
    """One picture as the network sees it, its long side `side` pixels: masks, boxes and names as they are learned."""
    labels = sample.labels.tolist()
    colours, names = _colours(labels, dataset), [_name(label, dataset) for label in labels]
    picture = _shade(sample.pixels, sample.windows, colours)
    height, width = short_edge_size(picture.height, picture.width, side, side)
    factor = width / picture.width
    picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    return _label(picture, sample.boxes * factor, names, colours)


def _sheet(pictures: Iterable[Image.Image], count: int, columns: int, side: int, title: str) -> Image.Image:
    rows = -(-count // columns)
    pitch = side + GAP
    head = LINE + GAP if title else 0
    sheet = Image.new("RGB", (columns * pitch + GAP, head + rows * pitch + GAP), "white")
    ImageDraw.Draw(sheet).text((GAP, GAP), title, fill="black")
    for place, picture in enumerate(pictures):
        row, column = divmod(place, columns)
        sheet.paste(picture, (GAP + column * pitch, head + GAP + row * pitch))
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
        if not name:
            continue
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


def _colours(labels: Sequence[int], dataset: CocoDataset) -> list[Colour]:
    """By class with shades, or by instance where there is one class, or are more instances than colours."""
    if len(dataset.categories) == 1 or len(labels) > len(PALETTE):
        return by_instance(len(labels))
    return by_class(labels)


def _title(dataset: CocoDataset) -> str:
    return dataset.categories[0].name if len(dataset.categories) == 1 else ""


def _name(label: int, dataset: CocoDataset) -> str:
    return "" if _title(dataset) else dataset.categories[label].name
