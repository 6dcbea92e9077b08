"""One update of a network with one weight by two processes: python normalised_by_two.py OUT FOLDER

FOLDER holds configurations. OUT gets {name of the configuration: [the loss that is reported, the weight afterwards]}.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mrbench.config.compose import load
from mrbench.config.schema import RunConfig
from mrbench.data.batch import Batch
from mrbench.engine.distributed import World
from mrbench.engine.processes import run_processes
from mrbench.engine.step import TrainStep
from mrbench.modeling.losses import LossTerm

SAMPLES = {0: [7.001], 1: [1.0, 2.0, 6.0]}  # of each process; one sample beside three


class Line(nn.Module):
    """The loss of a sample x is x times the weight, which begins at 1."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.neck = nn.Identity(), nn.Identity()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, batch: Batch) -> dict[str, LossTerm]:
        samples = batch.boxes[..., 0][batch.labels >= 0]
        return {"line": LossTerm((samples * self.weight).sum(), torch.tensor(float(len(samples))))}

    def count_samples(self, batch: Batch) -> dict[str, Tensor]:
        return {"line": (batch.labels >= 0).sum().float()}


def batch_of(samples: list[list[float]]) -> Batch:
    """An image for each list, with a box for each of its samples."""
    most = max(map(len, samples))
    labels = torch.tensor([[0] * len(s) + [-1] * (most - len(s)) for s in samples])
    boxes = torch.tensor([[[x] * 4 for x in [*s, *[0.0] * (most - len(s))]] for s in samples])
    n = len(samples)
    sizes = torch.ones(n, 2, dtype=torch.int64)
    return Batch(torch.zeros(n, 3, 1, 1), sizes, sizes, boxes, labels, None, torch.zeros(n), list(range(n)), 0)


def update(config: RunConfig, batch: Batch, world_size: int) -> list[float]:
    model: Any = Line()
    step = TrainStep(model, config, torch.device("cpu"), world_size)
    loss = step(batch)["line"]
    return [float(loss), float(model.weight.detach())]


def worker(world: World, store: dist.Store | None, out: str, folder: str) -> None:
    found = {}
    dist.init_process_group("gloo", store=store, rank=world.rank, world_size=world.size)
    for file in sorted(Path(folder).glob("*.yaml")):
        config = load(file)
        samples = SAMPLES[world.rank]
        images = [samples[:1], samples[1:]] if config.runtime.accumulate > 1 else [samples]
        found[file.stem] = update(config, batch_of(images), world.size)
    dist.destroy_process_group()
    if world.main:
        Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    run_processes(worker, 2, sys.argv[1:])
