"""Batches for training and testing: the same ones whatever the number of workers and processes."""

import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from mrbench.config.schema import RunConfig
from mrbench.data.augmentation import Plan, plan_test, plan_training, plan_views
from mrbench.data.batch import Batch, Views
from mrbench.data.coco import CocoDataset
from mrbench.data.collate import Sample, collate, padded_size
from mrbench.data.colour import Colours, change_colours, draw_colours
from mrbench.data.copy_paste import Paste, canvas, paste, plan_paste
from mrbench.data.keypoints import place_keypoints
from mrbench.data.masks import Window, place_mask
from mrbench.data.pictures import read_picture
from mrbench.data.proposals import SplitProposals
from mrbench.data.sampler import (
    AUGMENTATION,
    COLOUR,
    PASTE,
    AspectGroups,
    global_batch,
    random_stream,
    share,
    slot_seeds,
)
from mrbench.errors import UserError


def train_loader(
    dataset: CocoDataset, config: RunConfig, rank: int = 0, world_size: int = 1, start: int = 0
) -> Iterator[Batch]:
    """This process's share of the global batches of iterations `start` to `schedule.iterations` - 1.

    Images without anything to learn from (none but crowds, or no keypoint for a model that learns them) are left out
    unless `data.keep_empty`. Raises UserError where nothing is left, where masks or keypoints are wanted and missing,
    and, while iterating, for pictures that do not decode.
    """
    batch = config.schedule.images_per_batch
    if batch < world_size:
        raise UserError(
            f"A batch of {batch} images cannot be shared by {world_size} processes",
            "Raise schedule.images_per_batch, or lower runtime.devices.",
        )
    batches = TrainBatches(dataset, config, rank, world_size, start)
    return _iterate(batches, config)


def eval_loader(dataset: CocoDataset, config: RunConfig, rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
    """This process's part of all images, each once over all processes, without boxes, labels and masks.

    A batch holds images of one padded size only. So each is padded as it would be alone, and its detections do not
    depend on `runtime.evaluation_batch` or the number of processes. `iteration` is the batch's number over all.
    """
    plans = [[plan_test(config.augmentation, image.height, image.width)] for image in dataset.images]
    return (views.batches[0] for views in _iterate(TestBatches(dataset, config, plans, rank, world_size), config))


def view_loader(dataset: CocoDataset, config: RunConfig, rank: int = 0, world_size: int = 1) -> Iterator[Views]:
    """As `eval_loader`, with the views of `evaluation.tta`; every picture is decoded once. Images go together whose
    padded sizes are the same in all views."""
    augmentation, tta = config.augmentation, config.evaluation.tta
    plans = [plan_views(augmentation, tta, image.height, image.width) for image in dataset.images]
    return _iterate(TestBatches(dataset, config, plans, rank, world_size), config)


class TrainBatches(Dataset):
    """Item k is this process's share of the global batch of iteration start + k."""

    def __init__(self, dataset: CocoDataset, config: RunConfig, rank: int, world_size: int, start: int) -> None:
        self.dataset, self.config, self.start = dataset, config, start
        self.masks = config.model.mask_head.enabled
        self.batch = config.schedule.images_per_batch
        self.slots = share(self.batch, rank, world_size)
        head = config.model.keypoint_head
        self.keypoints = _keypoint_names(dataset, head.keypoints) if head.enabled else ()
        # As Detectron2's `filter_images_with_few_keypoints`, with one keypoint (data/build.py).
        useful = dataset.visible_keypoints if head.enabled else dataset.trainable
        kept = np.arange(len(dataset)) if config.data.keep_empty else np.flatnonzero(useful)
        if len(kept) == 0:
            what = "a keypoint" if head.enabled else "an annotation"
            raise UserError(f"No image of {dataset.annotation_file} has {what} to learn from")
        pasting = config.augmentation.copy_paste > 0
        if (self.masks or pasting) and dataset.without_mask:
            raise UserError(
                f"{len(dataset.without_mask)} annotations have no segmentation, but the model learns masks or objects "
                f"are pasted: {dataset.annotation_file}, the first is annotation {dataset.without_mask[0]}",
                "Train boxes only with model.mask_head.enabled=false and augmentation.copy_paste=0.",
            )
        self.images = kept
        self.groups = None
        if config.augmentation.group_by_aspect:
            wide = np.array([dataset.images[i].width > dataset.images[i].height for i in kept])
            self.groups = AspectGroups(wide, self.batch, config.seed)
        self.proposals = _proposals(dataset, config)

    def __len__(self) -> int:
        return max(self.config.schedule.iterations - self.start, 0)

    def __getitem__(self, item: int) -> Batch:
        iteration = self.start + item
        seed = self.config.seed
        # Of the whole global batch, so that every process pads its share alike.
        drawn = [self._draw(epoch, index) for epoch, index in self._slots(iteration)]
        most = max(self._most(d) for d in drawn)
        mine = self.slots
        samples = [self._make(drawn[j]) for j in mine]
        seeds = slot_seeds(seed, iteration, mine)
        size = padded_size(self._areas(drawn), self.config.model.neck.kind)
        return collate(samples, size, max(most, 1), self.masks, len(self.keypoints), seeds, iteration)

    def stream(self, count: int) -> list[tuple[int, int]]:
        """(epoch, index in the data set) of the first `count` pictures that all processes together train on."""
        iterations = range(-(-count // self.batch))
        return [slot for iteration in iterations for slot in self._slots(iteration)][:count]

    def sample(self, epoch: int, index: int) -> Sample:
        """Picture `index` of the data set as epoch `epoch` shows it."""
        return self._make(self._draw(epoch, index))

    def _slots(self, iteration: int) -> list[tuple[int, int]]:
        """(epoch, index in the data set) of the global batch."""
        if self.groups is not None:
            places = self.groups.global_batch(iteration)
        else:
            places = global_batch(len(self.images), self.batch, self.config.seed, iteration)
        return [(epoch, int(self.images[place])) for epoch, place in places]

    def _draw(self, epoch: int, index: int) -> "Drawn":
        image, config, seed = self.dataset.images[index], self.config.augmentation, self.config.seed
        plan = plan_training(config, image.height, image.width, random_stream(seed, AUGMENTATION, epoch, index))
        # Streams of their own: what is switched on here changes nothing of the plan.
        pasted, colours = None, None
        if config.copy_paste:
            random = random_stream(seed, PASTE, epoch, index)
            pasted = plan_paste(config, self.dataset, self.images, index, random)
        if any(config.colour_jitter):
            colours = draw_colours(config.colour_jitter, random_stream(seed, COLOUR, epoch, index))
        return Drawn(index, plan, pasted, colours)

    def _most(self, drawn: "Drawn") -> int:
        """As many instances as there can be."""
        return int(self.dataset.trainable[drawn.index]) + (len(drawn.pasted.chosen) if drawn.pasted else 0)

    def _areas(self, drawn: Sequence["Drawn"]) -> list[tuple[int, int]]:
        if self.config.augmentation.resize == "jitter":
            side = self.config.augmentation.jitter_size
            return [(side, side)]
        return [canvas(d.plan.size, d.pasted.plan.size) if d.pasted else d.plan.size for d in drawn]

    def _make(self, drawn: "Drawn") -> Sample:
        sample = self._read(drawn.index, drawn.plan)
        if drawn.pasted is not None:
            source = self._read(drawn.pasted.index, drawn.pasted.plan, drawn.pasted.chosen)
            # Padding is the mean after normalisation, and so is what neither picture covers.
            sample = paste(sample, source, np.rint(self.config.model.pixel_mean).astype(np.uint8))
        if drawn.colours is not None:
            sample.pixels = change_colours(sample.pixels, drawn.colours)
        if self.proposals is not None:
            sample.proposals = self.proposals.of(drawn.index, drawn.plan, self.config.model.rpn.post_nms_train)
        return sample

    def _read(self, index: int, plan: Plan, chosen: Sequence[int] | None = None) -> Sample:
        """A picture with all of its instances, or those of the places `chosen`; without crowds in either case."""
        image = self.dataset.images[index]
        pixels = plan.picture(read_picture(image))
        annotations = [a for a in self.dataset.annotations(index) if not a.iscrowd]
        if chosen is not None:
            annotations = [annotations[i] for i in chosen]
        boxes = plan.boxes(np.array([a.bbox for a in annotations], dtype=np.float64).reshape(-1, 4))
        labels = np.array([a.label for a in annotations], dtype=np.int64)
        windows: list[Window | None] = [None] * len(annotations)
        # A crop changes boxes, and only the mask says how.
        cropped = self.config.augmentation.resize == "jitter"
        if self.masks or cropped or self.config.augmentation.copy_paste:
            for i, annotation in enumerate(annotations):
                if annotation.segmentation is not None:
                    windows[i] = window = place_mask(annotation.segmentation, plan)
                    if window is None:
                        boxes[i] = 0
                    elif cropped:
                        boxes[i] = window.box
        keep = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        kept = [w for w, k in zip(windows, keep, strict=True) if k and w is not None]
        keypoints = place_keypoints([a.keypoints for a in annotations], self.keypoints, plan)
        return Sample(image.id, pixels, plan, boxes[keep], labels[keep], kept, keypoints[keep])


@dataclass(frozen=True)
class Drawn:
    """All that is random about a training picture, drawn from sizes alone."""

    index: int  # in the data set
    plan: Plan
    pasted: Paste | None
    colours: Colours | None


class TestBatches(Dataset):
    """Item k is the k-th batch of this process, in the views that `plans` has of each image."""

    def __init__(
        self, dataset: CocoDataset, config: RunConfig, plans: list[list[Plan]], rank: int, world_size: int
    ) -> None:
        self.dataset, self.config = dataset, config
        self.proposals = _proposals(dataset, config)
        groups: dict[tuple[tuple[int, int], ...], list[tuple[int, list[Plan]]]] = {}
        for index, views in enumerate(plans):
            sizes = tuple(padded_size([plan.size], config.model.neck.kind) for plan in views)
            groups.setdefault(sizes, []).append((index, views))
        n = config.runtime.evaluation_batch
        # Large ones first: if the memory does not suffice, it is known at once.
        batches = [
            (sizes, group[i : i + n])
            for sizes, group in sorted(groups.items(), key=lambda g: -g[0][0][0] * g[0][0][1])
            for i in range(0, len(group), n)
        ]
        self.batches = list(enumerate(batches))[rank::world_size]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, item: int) -> Views:
        number, (sizes, members) = self.batches[item]
        samples = [self._read(index, plans) for index, plans in members]
        seeds = slot_seeds(self.config.seed, number, range(len(samples)))
        of_view = zip(sizes, zip(*samples, strict=True), strict=True)
        batches = [collate(list(view), size, 1, False, 0, seeds, number) for size, view in of_view]
        return Views(batches, [plan.flip for plan in members[0][1]])

    def _read(self, index: int, plans: list[Plan]) -> "list[Sample]":
        """The image in each of its views."""
        image = self.dataset.images[index]
        picture = read_picture(image)
        samples = []
        for plan in plans:
            pixels = plan.picture(picture)
            sample = Sample(image.id, pixels, plan, np.zeros((0, 4)), np.zeros(0, np.int64), [], np.zeros((0, 0, 3)))
            if self.proposals is not None:
                sample.proposals = self.proposals.of(index, plan, self.config.model.rpn.post_nms_test)
            samples.append(sample)
        return samples


def _keypoint_names(dataset: CocoDataset, number: int) -> tuple[str, ...]:
    """The names of the `number` keypoints that instances of the data set have; raises UserError for others.

    Categories may lack them, but those that have any must have the same: they share the channels of one head.
    """
    found = list(dict.fromkeys(c.keypoints for c in dataset.categories if c.keypoints))
    if not found:
        raise UserError(
            f"No category of {dataset.annotation_file} names keypoints, but the model learns them",
            "COCO has them in person_keypoints_*.json: data=coco_keypoints_2017, or name the files with "
            "data.train.annotations and data.val.annotations.",
        )
    if len(found) > 1:
        raise UserError(
            f"The categories of {dataset.annotation_file} name different keypoints",
            "One head learns one list of keypoints; leave out the keypoints of the other categories.",
        )
    if len(found[0]) != number:
        raise UserError(
            f"model.keypoint_head.keypoints={number}, but {dataset.annotation_file} names {len(found[0])}",
            f"Set model.keypoint_head.keypoints={len(found[0])}.",
        )
    return found[0]


def _proposals(dataset: CocoDataset, config: RunConfig) -> SplitProposals | None:
    return dataset.proposals if config.model.rpn.mode == "precomputed" else None


class _Guarded(Dataset):
    """Hands a user's error over as a value: torch would turn one raised in a worker into a wrapped traceback."""

    def __init__(self, batches: Dataset) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]

    def __getitem__(self, item: int) -> Any:
        try:
            return self.batches[item]
        except UserError as error:
            return error.what, error.hint


def _iterate(batches: Dataset, config: RunConfig) -> Iterator[Any]:
    # More than there are cores would only be in each other's way.
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    num_workers = min(config.runtime.num_workers, cores)
    # Forked workers start at once and share the annotations; they touch neither a GPU nor torch's thread pool (torch
    # gives each a single thread). Where there is no fork, the data set is pickled into them.
    context = multiprocessing.get_context("fork") if num_workers and sys.platform == "linux" else None
    loader = DataLoader(
        _Guarded(batches),
        batch_size=None,
        num_workers=num_workers,
        multiprocessing_context=context,
        prefetch_factor=2 if num_workers else None,
        pin_memory=config.runtime.device != "cpu" and torch.cuda.is_available(),
        generator=torch.Generator(),  # or it would draw from the global one
    )
    for item in loader:
        if isinstance(item, Batch | Views):
            yield item
        else:  # torch has made a list of the tuple
            raise UserError(*item)
