"""Starting the processes of a run on this machine, and noticing when one of them dies."""

import os
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing import connection, parent_process
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from mrbench.engine.distributed import World, world_from_environment
from mrbench.engine.failures import ProcessDied, ProcessFailed, ProcessSilent, RunFailed
from mrbench.engine.signals import Preempted, StopSignal
from mrbench.errors import UserError

# How long the others may take to report what befell them, after the first has ended.
GRACE_SECONDS = 5.0

Worker = Callable[..., None]


def carry_out(worker: Worker, devices: int, arguments: Sequence[Any]) -> bool:
    """Call `worker(world, store, *arguments)` in every process of the job: those that torchrun or srun started, else
    `devices` of them, started here, or this one.

    Returns whether this process is the main one. Raises what `run_processes` does.
    """
    world = world_from_environment()
    if world is None and devices > 1:
        run_processes(worker, devices, arguments)
        return True
    world = world or World()
    worker(world, None, *arguments)
    return world.main


def run_processes(worker: Worker, size: int, arguments: Sequence[Any]) -> None:
    """Call `worker(world, store, *arguments)` in `size` fresh processes, and wait for all.

    When one fails, the others are ended. SIGTERM and SIGINT are passed on to them.

    Raises:
        UserError, RunFailed, Preempted: what a worker raised.
        ProcessDied: a process was killed from outside, or crashed.
        ProcessSilent: a process did not answer the others for `runtime.timeout` seconds.
        ProcessFailed: a worker raised anything else.
    """
    store = dist.TCPStore("127.0.0.1", 0, size, is_master=True, wait_for_workers=False)
    context = multiprocessing.get_context("spawn")
    processes: list[SpawnProcess] = []
    pipes: list[Connection] = []

    def forward(signum: int) -> None:
        for process in processes:
            if process.pid is not None and process.is_alive():
                os.kill(process.pid, signum)

    with StopSignal(forward) as stop:
        try:
            for rank in range(size):
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_child, args=(worker, rank, size, store.port, theirs, arguments))
                process.start()
                theirs.close()
                processes.append(process)
                pipes.append(ours)
            _wait(processes)
            died = [ProcessDied(rank, p.exitcode or 0) for rank, p in enumerate(processes) if (p.exitcode or 0) < 0]
        finally:
            for process in processes:
                process.kill()
                process.join()
    # In the order of their coming: the first one's end makes the others fail in their next exchange.
    reports = sorted((report for pipe in pipes if (report := _received(pipe)) is not None), key=lambda r: r[0])
    errors = [error for _, error in reports]
    # What a process says of another one counts for less than how that one ended.
    known = [error for error in errors if not isinstance(error, ProcessFailed | ProcessDied | ProcessSilent)]
    failed = [ProcessDied(rank, p.exitcode) for rank, p in enumerate(processes) if p.exitcode]
    if failed and not known and stop.received is not None:
        raise Preempted(stop.received)  # asked to stop before the processes could listen
    for causes in (known, died, errors, failed):
        if causes:
            raise causes[0]


def _wait(processes: list[SpawnProcess]) -> None:
    """Returns when all have ended, or GRACE_SECONDS after the first that ended badly."""
    deadline: float | None = None
    while running := [p.sentinel for p in processes if p.exitcode is None]:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            return
        connection.wait(running, left)
        if deadline is None and any(p.exitcode for p in processes):
            deadline = time.monotonic() + GRACE_SECONDS


def _received(pipe: Connection) -> tuple[float, BaseException] | None:
    try:
        return pipe.recv() if pipe.poll() else None
    except (EOFError, OSError):
        return None


def _child(worker: Worker, rank: int, size: int, port: int, pipe: Connection, arguments: Sequence[Any]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # gloo listens where the host's name leads, which need not exist; all processes are on this machine.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    store = dist.TCPStore("127.0.0.1", port, size, is_master=False)
    code = 1
    try:
        worker(World(rank, size, rank, size), store, *arguments)
        code = 0
    except (UserError, RunFailed, Preempted) as error:
        pipe.send((time.monotonic(), error))
    except BaseException:
        # Cut short: the parent reads only when we have ended, so it must fit into the pipe.
        pipe.send((time.monotonic(), ProcessFailed(f"process {rank}: {traceback.format_exc()[-8000:]}")))
    pipe.close()
    if code:
        # Not through the interpreter's end: another process's death can leave a collective hanging there.
        os._exit(code)


def _end_with_parent() -> None:
    """The parent holds the run's lock: when it is killed, its children must not go on writing."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
