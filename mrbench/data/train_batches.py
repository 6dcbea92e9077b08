"""What a process trains on: each batch a function of seed and iteration alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Dataset

from mrbench.config.schema import RunConfig
from mrbench.data.augmentation import Plan, plan_training
from mrbench.data.batch import Batch
from mrbench.data.coco import CocoDataset
from mrbench.data.collate import Sample, collate, padded_size
from mrbench.data.colour import Colours, change_colours, draw_colours
from mrbench.data.copy_paste import Paste, canvas, paste, plan_paste
from mrbench.data.keypoints import place_keypoints
from mrbench.data.masks import Window, place_mask
from mrbench.data.pictures import read_picture
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


@dataclass(frozen=True)
class Drawn:
    """All that is random about a training picture, drawn from sizes alone."""

    index: int  # in the data set
    plan: Plan
    pasted: Paste | None
    colours: Colours | None


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
        self.proposals = dataset.proposals if config.model.rpn.mode == "precomputed" else None

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

    def _draw(self, epoch: int, index: int) -> Drawn:
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

    def _most(self, drawn: Drawn) -> int:
        """As many instances as there can be."""
        return int(self.dataset.trainable[drawn.index]) + (len(drawn.pasted.chosen) if drawn.pasted else 0)

    def _areas(self, drawn: Sequence[Drawn]) -> list[tuple[int, int]]:
        if self.config.augmentation.resize == "jitter":
            side = self.config.augmentation.jitter_size
            return [(side, side)]
        return [canvas(d.plan.size, d.pasted.plan.size) if d.pasted else d.plan.size for d in drawn]

    def _make(self, drawn: Drawn) -> Sample:
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
