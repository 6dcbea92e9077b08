"""What is timed where a data set is read: the loader alone, or with the training behind it."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mrbench.bench.given import Given, proposals_text
from mrbench.bench.split import Call
from mrbench.bench.workload import (
    Prepared,
    Workload,
    build,
    calls_of_training,
    normalise_frozen_norms,
    of_case,
    training_facts,
    unsynchronised,
)
from mrbench.config.schema import RunConfig
from mrbench.data.batch import Batch
from mrbench.data.loader import train_loader, workers
from mrbench.data.sources import open_split
from mrbench.engine.distributed import World
from mrbench.engine.step import TrainStep

ENDLESS = 10**9  # iterations; a benchmark ends before


class Stream:
    """Training batches as the loader hands them out, one after another."""

    def __init__(self, config: RunConfig, device: torch.device, world: World) -> None:
        """Raises UserError where the data set cannot be read."""
        config = replace(config, schedule=replace(config.schedule, iterations=ENDLESS))
        dataset = open_split(config.data, "train")
        self.device = device
        self.batches: Iterator[Batch] = train_loader(dataset, config, world.rank, world.size)
        self.images = self.instances = self.pixels = 0

    def read(self) -> Batch:
        """The next batch, in main memory; of the first iteration, whose learning rate it keeps."""
        batch = next(self.batches)
        batch.iteration = 0
        self.images += len(batch)
        self.instances += int((batch.labels >= 0).sum())
        self.pixels += batch.images.shape[2] * batch.images.shape[3] * len(batch)
        return batch

    def copy(self, batch: Batch) -> Batch:
        """The batch on the device."""
        return batch.to(self.device, non_blocking=True)

    def facts(self) -> dict[str, Any]:
        """By an image, over all that were read."""
        return {
            "instances_per_image": self.instances / max(self.images, 1),
            "padded_pixels_per_image": self.pixels / max(self.images, 1),
        }


def prepare_loader(config: RunConfig, workload: Workload, device: torch.device, world: World) -> Prepared:
    """Batches as fast as they come, with as many workers as training has; nothing is computed with them."""
    config = of_case(config, workload.case)
    stream = Stream(config, device, world)
    return Prepared(stream.read, 1, lambda: {**stream.facts(), "workers": workers(config)})


def prepare_end_to_end(config: RunConfig, workload: Workload, device: torch.device, world: World) -> Prepared:
    """Reading, copying, and the training step. Weights and proposals as in `mrbench.bench.workload.prepare`."""
    config, model, _ = build(config, workload, device, world)
    stream = Stream(config, device, world)
    given = Given(model, config, workload.positives) if config.model.weights is None else None
    if given is not None:
        normalise_frozen_norms(model, given.to(stream.copy(stream.read())))
    train = TrainStep(model, config, device, world.size)
    last: dict[str, Tensor] = {}
    seen: list[Batch] = []

    def step() -> None:
        batch = stream.copy(stream.read())
        if given is not None:
            batch = given.at(given.to(batch))
        last.update(train(batch))
        seen[:] = [batch]

    def facts() -> dict[str, Any]:
        of_step = training_facts(model, config, seen[0], last, proposals_text(config, given))
        return {**of_step, **stream.facts(), "workers": workers(config)}

    calls: list[Call] = [(stream, "read", "data"), (stream, "copy", "copy"), *calls_of_training(train)]
    return Prepared(step, 1, facts, calls, unsynchronised(train, world))
