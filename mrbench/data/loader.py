"""Batches for training and testing: the same ones whatever the number of workers and processes."""

import multiprocessing
import os
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from mrbench.config.schema import RunConfig
from mrbench.cores import cores
from mrbench.data.augmentation import plan_test, plan_views
from mrbench.data.batch import Batch, Views
from mrbench.data.coco import CocoDataset
from mrbench.data.eval_batches import EvalBatches
from mrbench.data.train_batches import TrainBatches
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
    return (views.batches[0] for views in _iterate(EvalBatches(dataset, config, plans, rank, world_size), config))


def view_loader(dataset: CocoDataset, config: RunConfig, rank: int = 0, world_size: int = 1) -> Iterator[Views]:
    """As `eval_loader`, with the views of `evaluation.tta`; every picture is decoded once. Images go together whose
    padded sizes are the same in all views."""
    augmentation, tta = config.augmentation, config.evaluation.tta
    plans = [plan_views(augmentation, tta, image.height, image.width) for image in dataset.images]
    return _iterate(EvalBatches(dataset, config, plans, rank, world_size), config)


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


def _leave_process_group(worker: int) -> None:
    """Ctrl-C, torchrun and others signal a whole group of processes. A worker goes on until its training, which saves
    its state first, lets it go or is gone."""
    os.setpgid(0, 0)


def workers(config: RunConfig) -> int:
    """Processes that read: more than there are cores would only be in each other's way."""
    return min(config.runtime.num_workers, cores())


def _iterate(batches: Dataset, config: RunConfig) -> Iterator[Any]:
    num_workers = workers(config)
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
        worker_init_fn=_leave_process_group,
    )
    for item in loader:
        if isinstance(item, Batch | Views):
            yield item
        else:  # torch has made a list of the tuple
            raise UserError(*item)
