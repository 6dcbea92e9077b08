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
from mrbench.data.batch import Batch, MaskWindows, Views
from mrbench.data.coco import CocoDataset
from mrbench.data.keypoints import place_keypoints
from mrbench.data.masks import Window, place_mask, summed_area_table
from mrbench.data.pictures import read_picture
from mrbench.data.proposals import SplitProposals
from mrbench.data.sampler import AUGMENTATION, global_batch, random_stream, share, slot_seeds
from mrbench.errors import UserError

MULTIPLE = 32  # of which a batch's height and width are multiples: the stride of the coarsest feature map


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
        if self.masks and dataset.without_mask:
            raise UserError(
                f"{len(dataset.without_mask)} annotations have no segmentation, but the model learns masks: "
                f"{dataset.annotation_file}, the first is annotation {dataset.without_mask[0]}",
                "Train boxes only with model.mask_head.enabled=false.",
            )
        self.images = kept
        self.proposals = _proposals(dataset, config)

    def __len__(self) -> int:
        return max(self.config.schedule.iterations - self.start, 0)

    def __getitem__(self, item: int) -> Batch:
        iteration = self.start + item
        seed = self.config.seed
        slots = [
            (epoch, int(self.images[place]))
            for epoch, place in global_batch(len(self.images), self.batch, seed, iteration)
        ]
        # Of the whole global batch, so that every process pads its share alike.
        plans = [self._plan(epoch, index) for epoch, index in slots]
        most = int(max(self.dataset.trainable[index] for _, index in slots))
        mine = self.slots
        samples = [self._read(slots[j][1], plans[j]) for j in mine]
        if self.proposals is not None:
            wanted = self.config.model.rpn.post_nms_train
            for j, sample in zip(mine, samples, strict=True):
                sample.proposals = self.proposals.of(slots[j][1], plans[j], wanted)
        seeds = slot_seeds(seed, iteration, mine)
        size = _padded_size(self._areas(plans))
        return _collate(samples, size, max(most, 1), self.masks, len(self.keypoints), seeds, iteration)

    def _plan(self, epoch: int, index: int) -> Plan:
        image = self.dataset.images[index]
        random = random_stream(self.config.seed, AUGMENTATION, epoch, index)
        return plan_training(self.config.augmentation, image.height, image.width, random)

    def _areas(self, plans: Sequence[Plan]) -> list[tuple[int, int]]:
        if self.config.augmentation.resize == "jitter":
            side = self.config.augmentation.jitter_size
            return [(side, side)]
        return [plan.size for plan in plans]

    def _read(self, index: int, plan: Plan) -> "Sample":
        image = self.dataset.images[index]
        pixels = plan.picture(read_picture(image))
        annotations = [a for a in self.dataset.annotations(index) if not a.iscrowd]
        boxes = plan.boxes(np.array([a.bbox for a in annotations], dtype=np.float64).reshape(-1, 4))
        labels = np.array([a.label for a in annotations], dtype=np.int64)
        windows: list[Window | None] = [None] * len(annotations)
        # A crop changes boxes, and only the mask says how.
        cropped = self.config.augmentation.resize == "jitter"
        if self.masks or cropped:
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


class TestBatches(Dataset):
    """Item k is the k-th batch of this process, in the views that `plans` has of each image."""

    def __init__(
        self, dataset: CocoDataset, config: RunConfig, plans: list[list[Plan]], rank: int, world_size: int
    ) -> None:
        self.dataset, self.config = dataset, config
        self.proposals = _proposals(dataset, config)
        groups: dict[tuple[tuple[int, int], ...], list[tuple[int, list[Plan]]]] = {}
        for index, views in enumerate(plans):
            groups.setdefault(tuple(_padded_size([plan.size]) for plan in views), []).append((index, views))
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
        batches = [_collate(list(view), size, 1, False, 0, seeds, number) for size, view in of_view]
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


@dataclass
class Sample:
    """One picture and its instances, before padding."""

    image_id: int
    pixels: np.ndarray  # uint8 [h, w, 3]
    plan: Plan
    boxes: np.ndarray  # float64 [n, 4]
    labels: np.ndarray  # int64 [n]
    windows: list[Window]  # n of them, or none where masks are not wanted
    keypoints: np.ndarray  # float64 [n, K, 3]; K is 0 where they are not wanted
    proposals: np.ndarray | None = None  # float32 [P, 5], as of `Batch`; P is the same for all


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


def _padded_size(sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    height, width = (-(-max(side) // MULTIPLE) * MULTIPLE for side in zip(*sizes, strict=True))
    return height, width


def _collate(
    samples: list[Sample],
    size: tuple[int, int],
    instances: int,
    masks: bool,
    keypoints: int,
    seeds: list[int],
    iteration: int,
) -> Batch:
    images = torch.zeros((len(samples), 3, *size), dtype=torch.uint8)
    boxes = np.zeros((len(samples), instances, 4), dtype=np.float32)
    labels = np.full((len(samples), instances), -1, dtype=np.int64)
    points = np.zeros((len(samples), instances, keypoints, 3), dtype=np.float32)
    for i, sample in enumerate(samples):
        height, width = sample.plan.size
        # Through numpy: torch does not take the negative strides of a flipped picture.
        images[i].numpy()[:, :height, :width] = sample.pixels.transpose(2, 0, 1)
        boxes[i, : len(sample.boxes)] = sample.boxes
        labels[i, : len(sample.labels)] = sample.labels
        points[i, : len(sample.keypoints)] = sample.keypoints
    return Batch(
        images=images,
        sizes=torch.tensor([s.plan.size for s in samples]),
        original_sizes=torch.tensor([s.plan.original for s in samples]),
        boxes=torch.from_numpy(boxes),
        labels=torch.from_numpy(labels),
        masks=_pack_windows([s.windows for s in samples], instances) if masks else None,
        seeds=torch.tensor(seeds),
        image_ids=[s.image_id for s in samples],
        iteration=iteration,
        keypoints=torch.from_numpy(points) if keypoints else None,
        proposals=_stacked([sample.proposals for sample in samples if sample.proposals is not None]),
    )


def _proposals(dataset: CocoDataset, config: RunConfig) -> SplitProposals | None:
    return dataset.proposals if config.model.rpn.mode == "precomputed" else None


def _stacked(proposals: list[np.ndarray]) -> torch.Tensor | None:
    return torch.from_numpy(np.stack(proposals)) if proposals else None


def _pack_windows(windows: list[list[Window]], instances: int) -> MaskWindows:
    offset = np.zeros((len(windows), instances), dtype=np.int64)
    size = np.zeros((len(windows), instances, 2), dtype=np.int64)
    origin = np.zeros((len(windows), instances, 2), dtype=np.int64)
    tables = sum((w.bitmap.shape[0] + 1) * (w.bitmap.shape[1] + 1) for row in windows for w in row)
    # A padding instance has a table too, of the one zero that every table begins with.
    table = np.zeros(max(tables, 1), dtype=np.int32)
    end = 0
    for i, row in enumerate(windows):
        for j, window in enumerate(row):
            height, width = window.bitmap.shape
            offset[i, j], size[i, j], origin[i, j] = end, (height, width), (window.y, window.x)
            begin, end = end, end + (height + 1) * (width + 1)
            summed_area_table(window.bitmap, table[begin:end].reshape(height + 1, width + 1))
    return MaskWindows(*(torch.from_numpy(a) for a in (table, offset, size, origin)))


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
