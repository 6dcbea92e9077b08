"""The processes that train one model together: who they are, how they find each other, what they exchange."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import nn

from mrbench.config.schema import RunConfig
from mrbench.config.schema_execution import RuntimeConfig
from mrbench.cores import cores
from mrbench.engine.failures import ProcessDied, ProcessSilent
from mrbench.engine.signals import Preempted
from mrbench.errors import UserError

Found = TypeVar("Found")


@dataclass(frozen=True)
class World:
    """This process among those that share a run. Rank 0 writes the record."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # among the processes of this machine: which GPU is ours
    local_size: int = 1  # processes of this machine
    meeting: str = "env://"  # where the processes find each other, as init_process_group takes it

    @property
    def main(self) -> bool:
        return self.rank == 0


def world_from_environment() -> World | None:
    """Who we are when torchrun (or whatever sets RANK and WORLD_SIZE) or Slurm's srun started us; None otherwise.

    Raises UserError where the variables are incomplete.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return _world_of_slurm()
    try:
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        local_rank = int(os.environ.get("LOCAL_RANK", rank))
        local_size = int(os.environ.get("LOCAL_WORLD_SIZE", size))
    except ValueError as error:
        what = f"RANK, WORLD_SIZE, LOCAL_RANK or LOCAL_WORLD_SIZE is not a number: {error}"
        raise UserError(what, "unset them, or use torchrun") from error
    if size > 1 and not {"MASTER_ADDR", "MASTER_PORT"} <= set(os.environ):
        raise UserError(
            "RANK and WORLD_SIZE are set, but not MASTER_ADDR and MASTER_PORT",
            "start the processes with torchrun, or unset RANK and WORLD_SIZE",
        )
    return World(rank, size, local_rank, local_size)


def _world_of_slurm() -> World | None:
    """Who we are among the tasks of a job step with several; None for a single task, and in a batch script, which
    knows how many tasks the job may have but is no step.

    The processes meet on the job's first node, or at $MASTER_ADDR, and at a port that follows from the job and the
    step, or $MASTER_PORT.
    """
    size = int(os.environ.get("SLURM_STEP_NUM_TASKS", 1))
    if size == 1:
        return None
    from submitit.slurm.slurm import SlurmJobEnvironment

    job = SlurmJobEnvironment()
    port = 20000 + (31 * int(os.environ["SLURM_JOB_ID"]) + int(os.environ["SLURM_STEP_ID"])) % 40000
    address = os.environ.get("MASTER_ADDR", job.hostnames[0])
    meeting = f"tcp://{address}:{os.environ.get('MASTER_PORT', port)}"
    nodes = int(os.environ.get("SLURM_STEP_NUM_NODES", job.num_nodes))
    return World(job.global_rank, size, job.local_rank, -(-size // nodes), meeting)


def choose_backend(runtime: RuntimeConfig, gpu: bool) -> str:
    """What the processes exchange tensors with, as init_process_group takes it: always gloo for what lies in main
    memory. Raises UserError where NCCL is asked for and cannot be."""
    if runtime.backend == "nccl" and not (gpu and dist.is_nccl_available()):
        raise UserError("runtime.backend=nccl needs GPUs, and a torch that has NCCL", "use runtime.backend=auto")
    nccl = gpu and runtime.backend != "gloo" and dist.is_nccl_available()
    return "cpu:gloo,cuda:nccl" if nccl else "gloo"


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
    if processes > 1:
        choose_backend(runtime, uses_gpu(runtime))
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

    `runtime.threads`, else $OMP_NUM_THREADS, else the cores shared evenly by this machine's `processes`. The number
    changes the order of additions, hence rounding: the record names it.
    """
    if runtime.threads is not None:
        torch.set_num_threads(runtime.threads)
    elif "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(cores() // processes, 1))
    return torch.get_num_threads()


@contextmanager
def process_group(
    world: World, device: torch.device, runtime: RuntimeConfig, store: dist.Store | None = None
) -> Iterator[None]:
    """The default process group for as long as the block lasts; nothing to do for one process.

    Without a `store` the processes meet where `world.meeting` says.

    Raises:
        ProcessDied: another process is gone, which an exchange in the block has shown.
        ProcessSilent: another process did not answer for `runtime.timeout` seconds, or never came.
    """
    if world.size == 1:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = choose_backend(runtime, device.type == "cuda")
    meeting = world.meeting if store is None else None
    timeout = timedelta(seconds=runtime.timeout)
    try:
        dist.init_process_group(backend, meeting, store=store, rank=world.rank, world_size=world.size, timeout=timeout)
        yield
    except RuntimeError as error:
        if not is_of_exchange(error):
            raise
        # gloo, NCCL, and the store where a process never came
        silent = any(words in str(error).lower() for words in ("timed out", "timeout"))
        raise (ProcessSilent(runtime.timeout) if silent else ProcessDied(None)) from error
    # Not after an exception: taking the group down can wait for a process that is gone.
    dist.destroy_process_group()


def is_of_exchange(error: Exception) -> bool:
    """Whether it says that an exchange between processes failed."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


@contextmanager
def main_process_first(world: World) -> Iterator[None]:
    """One process of every machine goes through the block before the others: it downloads or generates what they
    then find."""
    first = world.local_rank == 0
    if world.size > 1 and not first:
        dist.barrier()
    yield
    if world.size > 1 and first:
        dist.barrier()


def largest(value: int, world: World) -> int:
    """The largest of the processes' values, at every process."""
    if world.size == 1:
        return value
    tensor = torch.tensor(value)
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return int(tensor)


def together(work: Callable[[], Found], world: World) -> Found:
    """What `work` returns, unless one of the processes was asked to stop meanwhile: then all of them raise Preempted.

    They meet before they leave, so that a process that is gone is not taken for one that was asked to stop.
    """
    try:
        found, signum = work(), 0
    except Preempted as error:
        found, signum = None, error.signum
    signum = largest(signum, world)
    if signum:
        raise Preempted(signum)
    return cast(Found, found)


def from_main(value: Any, world: World) -> Any:
    """Rank 0's value, at every process."""
    if world.size == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def share_buffers(model: nn.Module, world: World) -> None:
    """Give every process rank 0's buffers: the running statistics of plain batch norm differ between them."""
    if world.size > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)
