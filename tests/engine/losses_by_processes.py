"""Trains a model for each job in one process, and again in two: python losses_by_processes.py ONE TWO JOB...

A job is FORMAT:CONFIG, where the model is turned to that number format, float32 or float64; batches stay as they are.
ONE and TWO get {job: [losses of each iteration, by name]}.
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from mrbench.config.compose import load
from mrbench.data.loader import train_loader
from mrbench.data.sources import open_split
from mrbench.engine.distributed import World, process_group
from mrbench.engine.processes import run_processes
from mrbench.engine.step import TrainStep
from mrbench.modeling.build import build_detector


def worker(world: World, store: dist.Store | None, out: str, jobs: list[str]) -> None:
    torch.set_num_threads(1)
    device = torch.device("cpu")
    found = {}
    with process_group(world, device, store):
        for job in jobs:
            number_format, file = job.split(":", 1)
            config = load(Path(file))
            dataset = open_split(config.data, "train")
            torch.manual_seed(config.seed)
            model = build_detector(config.model, len(dataset.categories)).to(getattr(torch, number_format))
            step = TrainStep(model, config, device, world.size)
            losses = [step(batch) for batch in train_loader(dataset, config, world.rank, world.size)]
            found[job] = [{key: float(value) for key, value in one.items()} for one in losses]
    if world.main:
        Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    one, two, *jobs = sys.argv[1:]
    worker(World(), None, one, jobs)
    run_processes(worker, 2, (two, jobs))
