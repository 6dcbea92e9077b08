"""Trains each job in 1, 2 or 4 processes that share its batches: python losses_by_processes.py OUT JOB...

A job is PROCESSES:FORMAT:CONFIG, where the model is turned to that number format, float32 or float64; batches stay as
they are. OUT gets {job: [losses of each iteration, by name]}.
"""

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.distributed as dist

from mrbench.config.compose import load
from mrbench.config.schema_execution import RuntimeConfig
from mrbench.data.loader import train_loader
from mrbench.data.sources import open_split
from mrbench.engine.distributed import World, process_group
from mrbench.engine.processes import run_processes
from mrbench.engine.step import TrainStep
from mrbench.modeling.build import build_detector

PROCESSES = 4


def worker(world: World, store: dist.Store, folder: str, jobs: list[str]) -> None:
    """Jobs of one process are shared out among the four, those of two among two pairs."""
    torch.set_num_threads(1)
    for size in (1, 2, 4):
        team, teams = world.rank // size, world.size // size
        for job in [job for job in jobs if job.startswith(f"{size}:")][team::teams]:
            member = World(world.rank % size, size)
            with process_group(member, torch.device("cpu"), RuntimeConfig(), dist.PrefixStore(job, store)):
                losses = losses_of(member, job)
            if member.main:
                (Path(folder) / f"{jobs.index(job)}.json").write_text(json.dumps(losses))


def losses_of(world: World, job: str) -> list[dict[str, float]]:
    _, number_format, file = job.split(":", 2)
    config = load(Path(file))
    dataset = open_split(config.data, "train")
    torch.manual_seed(config.seed)
    model = build_detector(config.model, len(dataset.categories)).to(getattr(torch, number_format))
    step = TrainStep(model, config, torch.device("cpu"), world.size)
    losses = [step(batch) for batch in train_loader(dataset, config, world.rank, world.size)]
    return [{key: float(value) for key, value in one.items()} for one in losses]


if __name__ == "__main__":
    out, *jobs = sys.argv[1:]
    with TemporaryDirectory() as folder:
        run_processes(worker, PROCESSES, (folder, jobs))
        found = {job: json.loads((Path(folder) / f"{i}.json").read_text()) for i, job in enumerate(jobs)}
    Path(out).write_text(json.dumps(found))
