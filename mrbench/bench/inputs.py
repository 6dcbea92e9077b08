"""Batches to measure on: synthetic ones of a stated size and number of instances, or a data set's first."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import torch
from torch import Tensor

from mrbench.config.schema import RunConfig
from mrbench.data.batch import Batch, MaskWindows
from mrbench.data.collate import padded_size
from mrbench.data.loader import eval_loader, train_loader
from mrbench.data.masks import summed_area_table
from mrbench.data.sources import open_split
from mrbench.engine.distributed import World
from mrbench.errors import UserError
from mrbench.modeling import boxes as box_ops

INSTANCES = 7  # an image of COCO train2017 has 7.3
COCO_CLASSES = 80


def synthetic_batches(
    count: int,
    images: int,
    height: int,
    width: int,
    instances: int = INSTANCES,
    classes: int = COCO_CLASSES,
    masks: bool = True,
    seed: int = 0,
    keypoints: int = 0,
    neck: str = "fpn",
) -> list[Batch]:
    """`count` different batches of `images` pictures of `height` x `width` pixels, padded as this kind of neck needs.

    A picture is noise with `instances` filled ellipses on it, whose sides are drawn log-uniformly between 8 pixels
    (or the picture's side) and three quarters of the picture's, which has COCO's large share of small instances.
    With `keypoints`, each has so many, all in sight, in its box.
    The same arguments give the same batches; the iteration is 0 in all, and with it the learning rate.
    """
    generator = torch.Generator().manual_seed(seed)
    padded = padded_size([(height, width)], neck)
    batches = [_batch(generator, images, height, width, padded, instances, classes, masks) for _ in range(count)]
    if keypoints:
        for batch in batches:
            batch.keypoints = _keypoints(generator, batch.boxes, keypoints)
    return batches


def _batch(
    generator: torch.Generator,
    images: int,
    height: int,
    width: int,
    padded: tuple[int, int],
    instances: int,
    classes: int,
    masks: bool,
) -> Batch:
    pictures = torch.zeros(images, 3, *padded, dtype=torch.uint8)
    shape = (images, 3, height, width)
    pictures[:, :, :height, :width] = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    boxes = torch.zeros(images, max(instances, 1), 4)
    labels = torch.full((images, max(instances, 1)), -1)
    windows: list[torch.Tensor] = []
    for image in range(images):
        for instance in range(instances):
            y, x, h, w = _place(generator, height, width)
            bitmap = _ellipse(h, w)
            colour = torch.randint(0, 256, (3, 1, 1), dtype=torch.uint8, generator=generator)
            region = pictures[image, :, y : y + h, x : x + w]
            region.copy_(torch.where(bitmap, colour, region))
            boxes[image, instance] = torch.tensor([x, y, x + w, y + h], dtype=torch.float32)
            labels[image, instance] = torch.randint(0, classes, (), generator=generator)
            windows.append(bitmap)
    sizes = torch.tensor([[height, width]]).repeat(images, 1)
    return Batch(
        images=pictures,
        sizes=sizes,
        original_sizes=sizes.clone(),
        boxes=boxes,
        labels=labels,
        masks=_windows(windows, boxes, labels >= 0) if masks else None,
        seeds=torch.randint(0, 2**62, (images,), generator=generator),
        image_ids=list(range(images)),
        iteration=0,
    )


def _keypoints(generator: torch.Generator, boxes: torch.Tensor, number: int) -> torch.Tensor:
    """[B, G, number, 3] anywhere in boxes [B, G, 4]; the padding's are not in sight."""
    within = torch.rand(*boxes.shape[:2], number, 2, generator=generator)
    size = (boxes[..., 2:] - boxes[..., :2])[:, :, None]
    seen = (size.amax(-1, keepdim=True) > 0).float().expand(-1, -1, number, 1) * 2
    return torch.cat([boxes[:, :, None, :2] + within * size, seen], -1)


def _place(generator: torch.Generator, height: int, width: int) -> tuple[int, int, int, int]:
    """y, x, h, w of a box inside the picture, whole pixels."""
    u = torch.rand(4, generator=generator).tolist()
    sides = []
    for side, draw in zip((height, width), u[:2], strict=True):
        low, high = min(8, side), max(0.75 * side, min(8, side))
        sides.append(max(int(low * (high / low) ** draw), 1))
    h, w = sides
    return int(u[2] * (height - h + 1)), int(u[3] * (width - w + 1)), h, w


def _ellipse(height: int, width: int) -> torch.Tensor:
    """bool [height, width]: the pixels whose centre lies in the inscribed ellipse."""
    y = (torch.arange(height) + 0.5) / height * 2 - 1
    x = (torch.arange(width) + 0.5) / width * 2 - 1
    return y[:, None] ** 2 + x[None] ** 2 <= 1


def _windows(bitmaps: list[torch.Tensor], boxes: torch.Tensor, used: torch.Tensor) -> MaskWindows:
    """`bitmaps` in the order of `used`, whose windows are their boxes."""
    areas = [(b.shape[0] + 1) * (b.shape[1] + 1) for b in bitmaps]
    table = torch.zeros(max(sum(areas), 1), dtype=torch.int32)
    for bitmap, part in zip(bitmaps, table[: sum(areas)].split(areas), strict=True):
        summed_area_table(bitmap.numpy(), part.view(bitmap.shape[0] + 1, bitmap.shape[1] + 1).numpy())
    offset = torch.zeros(used.shape, dtype=torch.int64)
    ends = torch.tensor(areas, dtype=torch.int64).cumsum(0)
    offset[used] = ends - torch.tensor(areas, dtype=torch.int64)
    whole = boxes.long()
    return MaskWindows(table, offset, (whole[..., 2:] - whole[..., :2]).flip(-1), whole[..., :2].flip(-1))


def stated_proposals(
    boxes: Tensor, labels: Tensor, sizes: Tensor, draws: Tensor, positives: int, foreground_iou: float
) -> Tensor:
    """Proposals [B, P, 5] as of `Batch`, of which so many an image are foreground, the ground truth counted with them.

    What is drawn comes in: `draws` float [B, P, 4] in 0..1. The first ones are ground-truth boxes [B, G, 4] (label -1
    in the padding), in turn, shifted so far that they still overlap by `foreground_iou`; the others are log-uniform
    in size from 16 pixels to half the picture's sides, anywhere in the picture of `sizes` [B, 2]. Those of the others
    that would be foreground are left out.
    """
    real = labels >= 0
    number = real.sum(1, keepdim=True)
    place = torch.arange(draws.shape[1], device=draws.device)
    near = place < (positives - number).clamp(min=0) * (number > 0)
    # A shift by shares a and b of the sides leaves an IoU of u / (2 - u) with u = (1 - a)(1 - b).
    most = 0.99 * (1 - (2 * foreground_iou / (1 + foreground_iou)) ** 0.5)
    index = (place % number.clamp(min=1))[..., None].expand(-1, -1, 4)
    source = boxes.gather(1, index)
    side = source[..., 2:] - source[..., :2]
    shifted = source + ((2 * draws[..., :2] - 1) * most * side).repeat(1, 1, 2)

    picture = sizes.flip(-1)[:, None].to(draws.dtype)
    low = picture.clamp(max=16.0)
    side = low * (0.5 * picture / low).clamp(min=1) ** draws[..., :2]
    corner = draws[..., 2:] * (picture - side).clamp(min=0)
    anywhere = torch.cat([corner, corner + side], -1)

    chosen = torch.where(near[..., None], shifted, anywhere)
    chosen = chosen.clamp(min=0).minimum(picture.repeat(1, 1, 2))
    overlap = torch.where(real[:, :, None], box_ops.iou(boxes, chosen), 0.0).amax(1)
    valid = near | (overlap < 0.99 * foreground_iou)
    objectness = torch.linspace(4, -4, draws.shape[1], device=draws.device).expand(valid.shape)
    return torch.cat([chosen, torch.where(valid, objectness, -torch.inf)[..., None]], -1)


def data_batches(
    config: RunConfig, mode: str, count: int, images: int, world: World = World()
) -> tuple[list[Batch], list[str]]:
    """This process's share of the first batches that training, or testing, reads: `count` of them of `images` pictures
    each; and the names of the classes.

    Raises UserError where the data set cannot be read or is too small.
    """
    everywhere = images * world.size
    runtime = replace(config.runtime, num_workers=0, devices=1, accumulate=1, evaluation_batch=images)
    schedule = replace(config.schedule, images_per_batch=everywhere, iterations=max(config.schedule.iterations, count))
    config = replace(config, runtime=runtime, schedule=schedule)
    dataset = open_split(config.data, "train" if mode == "train" else "val")
    load = train_loader if mode == "train" else eval_loader
    loader: Iterator[Batch] = load(dataset, config, world.rank, world.size)
    batches = list(islice((batch for batch in loader if len(batch) == images), count))
    if not batches:
        raise UserError(
            f"{dataset.annotation_file} has no {images} images that {mode} would put into one batch",
            "Measure smaller batches with --batch, or on synthetic pictures with --inputs synthetic.",
        )
    for batch in batches:
        batch.iteration = 0  # one learning rate, that of the first step, so that the network stays what it is
    return batches, [category.name for category in dataset.categories]
