"""Trains one model for each norm in as many processes as asked: python losses_by_processes.py PROCESSES OUT CONFIG...

OUT gets {config file: [losses of each iteration, by name]}.
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


def worker(world: World, store: dist.Store | None, out: str, configs: list[str]) -> None:
    torch.set_num_threads(1)
    device = torch.device("cpu")
    found = {}
    with process_group(world, device, store):
        for name in configs:
            config = load(Path(name))
            dataset = open_split(config.data, "train")
            torch.manual_seed(config.seed)
            model = build_detector(config.model, len(dataset.categories))
            step = TrainStep(model, config, device, world.size)
            losses = [step(batch) for batch in train_loader(dataset, config, world.rank, world.size)]
            found[name] = [{key: float(value) for key, value in one.items()} for one in losses]
    if world.main:
        Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    if sys.argv[1] == "1":
        worker(World(), None, sys.argv[2], sys.argv[3:])
    else:
        run_processes(worker, int(sys.argv[1]), (sys.argv[2], sys.argv[3:]))
