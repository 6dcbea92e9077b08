"""The processes that train one model together: who they are, how they find each other, what they exchange."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from mrbench.config.schema import RunConfig, RuntimeConfig
from mrbench.errors import UserError

# Long enough for one process to compute COCO's metrics while the others wait.
TIMEOUT = timedelta(minutes=60)


@dataclass(frozen=True)
class World:
    """This process among those that share a run. Rank 0 writes the record."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # among the processes of this machine: which GPU is ours

    @property
    def main(self) -> bool:
        return self.rank == 0


def world_from_environment() -> World | None:
    """Who we are when torchrun (or whatever sets RANK and WORLD_SIZE) started us; None otherwise.

    Raises UserError where the variables are incomplete.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return None
    try:
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        local_rank = int(os.environ.get("LOCAL_RANK", rank))
    except ValueError as error:
        what = f"RANK, WORLD_SIZE or LOCAL_RANK is not a number: {error}"
        raise UserError(what, "unset them, or use torchrun") from error
    if size > 1 and not {"MASTER_ADDR", "MASTER_PORT"} <= set(os.environ):
        raise UserError(
            "RANK and WORLD_SIZE are set, but not MASTER_ADDR and MASTER_PORT",
            "start the processes with torchrun, or unset RANK and WORLD_SIZE",
        )
    return World(rank, size, local_rank)


def uses_gpu(runtime: RuntimeConfig) -> bool:
    """Whether `runtime.device` means a GPU here. Raises UserError where one is asked for and there is none."""
    available = torch.cuda.is_available()
    if runtime.device == "cuda" and not available:
        raise UserError("runtime.device=cuda, but torch sees no GPU here", "use runtime.device=cpu, or auto")
    return available and runtime.device != "cpu"


def choose_device(runtime: RuntimeConfig, world: World) -> torch.device:
    """The device of this process. Raises UserError where there are fewer GPUs than processes."""
    if not uses_gpu(runtime):
        return torch.device("cpu")
    count = torch.cuda.device_count()
    if world.local_rank >= count:
        raise UserError(
            f"process {world.local_rank} of this machine has no GPU: torch sees {count}",
            f"use runtime.devices={count}, or runtime.device=cpu",
        )
    return torch.device("cuda", world.local_rank)


def check_processes(config: RunConfig, processes: int) -> None:
    """Raises UserError where `processes` cannot share a batch, or there are not as many GPUs.

    `runtime.accumulate` may cut unevenly, since losses are normalised over the whole batch.
    """
    runtime, images = config.runtime, config.schedule.images_per_batch
    if uses_gpu(runtime) and runtime.devices > (count := torch.cuda.device_count()):
        raise UserError(
            f"runtime.devices={runtime.devices}, but torch sees {count} GPUs",
            f"use runtime.devices={count}, or runtime.device=cpu",
        )
    if images % processes:
        fitting = max(n for n in range(1, processes) if images % n == 0)
        raise UserError(
            f"a batch of {images} images cannot be shared evenly by {processes} processes",
            f"use runtime.devices={fitting}, or another schedule.images_per_batch",
        )
    if runtime.accumulate > images // processes:
        raise UserError(
            f"runtime.accumulate={runtime.accumulate}, but a process has {images // processes} images of a batch",
            f"use runtime.accumulate={images // processes} or less",
        )


def set_threads(runtime: RuntimeConfig, processes: int) -> int:
    """Set the CPU threads of this process, and return their number.

    `runtime.threads`, else $OMP_NUM_THREADS, else this machine's cores shared evenly by its processes. The number
    changes the order of additions, hence rounding: the record names it.
    """
    if runtime.threads is not None:
        torch.set_num_threads(runtime.threads)
    elif "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(len(os.sched_getaffinity(0)) // processes, 1))
    return torch.get_num_threads()


@contextmanager
def process_group(world: World, device: torch.device, store: dist.Store | None = None) -> Iterator[None]:
    """The default process group for as long as the block lasts; nothing to do for one process.

    gloo on CPUs; on GPUs NCCL for tensors there, gloo for what lies in main memory. Without a `store` the
    processes meet at $MASTER_ADDR:$MASTER_PORT.
    """
    if world.size == 1:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=world.rank, world_size=world.size, timeout=TIMEOUT)
    yield
    # Not after an exception: taking the group down can wait for a process that is gone.
    dist.destroy_process_group()


@contextmanager
def main_process_first(world: World) -> Iterator[None]:
    """Rank 0 goes through the block before the others: it downloads or generates what they then find."""
    if world.size > 1 and not world.main:
        dist.barrier()
    yield
    if world.size > 1 and world.main:
        dist.barrier()


def largest(value: int, world: World) -> int:
    """The largest of the processes' values, at every process."""
    if world.size == 1:
        return value
    tensor = torch.tensor(value)
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return int(tensor)


def from_main(value: Any, world: World) -> Any:
    """Rank 0's value, at every process."""
    if world.size == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def gather(values: list[Any], world: World) -> list[Any]:
    """The processes' lists, joined in the order of rank, at rank 0; an empty list at the others."""
    if world.size == 1:
        return values
    parts: list[Any] | None = [None] * world.size if world.main else None
    dist.gather_object(values, parts, dst=0)
    return [value for part in parts for value in part] if parts is not None else []


def share_buffers(model: nn.Module, world: World) -> None:
    """Give every process rank 0's buffers: the running statistics of plain batch norm differ between them."""
    if world.size > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)
