"""A whole training job: from taking the run's lock to its final state, in one process or several."""

import os
import socket
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from mrbench.config.fingerprint import annotations_fingerprint
from mrbench.config.schema import RunConfig
from mrbench.engine.distributed import (
    World,
    check_processes,
    choose_device,
    set_threads,
    world_from_environment,
)
from mrbench.engine.failures import ProcessDied, RunFailed
from mrbench.engine.loop import train_process
from mrbench.engine.processes import carry_out
from mrbench.engine.signals import Preempted, StopSignal
from mrbench.engine.take_back import Before
from mrbench.engine.tracking import check_trackers
from mrbench.errors import UserError
from mrbench.runs.files import sha256
from mrbench.runs.lock import is_locked, run_lock
from mrbench.runs.provenance import collect
from mrbench.runs.provenance import write as write_provenance
from mrbench.runs.record import Run, now

LETS_GO = 3.0  # seconds in which a main process that is gone lets go of its run


def train(run: Run, config: RunConfig) -> None:
    """Carry out a run, from its newest checkpoint where it has one. A completed run is left as it is.

    With `runtime.devices` above 1 that many processes are started on this machine; under torchrun or srun this
    process joins the others, and rank 0 keeps the record.

    Raises:
        UserError: another process has the run, or something asked for cannot be done. The record says so where
            anything was logged or saved in this attempt, and else is what it was before.
        RunFailed: it failed (a loss that is not finite, a process that died, memory); the record says so.
        Preempted: SIGTERM or SIGINT came; the same call goes on later.
    """
    world = world_from_environment()
    if world is not None and not world.main:
        if run.status().state != "completed":
            _train_beside(world, run, config)
        return
    # Signals are noted until the end is on record: torchrun ends all processes soon after one.
    with run_lock(run) as note, StopSignal() as stop:
        status = run.status()
        if status.state == "completed":
            return
        before = Before.of(run)
        run.update(
            state="running",
            attempt=status.attempt + 1,
            iterations=config.schedule.iterations,
            started=status.started or now(),
            ended=None,
            host=socket.gethostname(),
            pid=os.getpid(),
            error=None,
        )
        try:
            if note is not None:
                run.log(note)
                print(note, file=sys.stderr)
            _train(run, config, world, stop)
        except Preempted as error:
            done = {} if error.iteration is None else {"iteration": error.iteration}
            run.update(state="preempted", ended=now(), **done)
            raise
        except RunFailed as error:
            _record_failure(run, error.record())
            raise
        except UserError as error:
            if not before.put_back():
                _record_failure(run, {"kind": "user_error", "message": error.what, "hint": error.hint})
            raise
        except Exception as error:
            trace = traceback.format_exc()
            _record_failure(
                run, {"kind": "exception", "message": f"{type(error).__name__}: {error}", "traceback": trace}
            )
            raise
        run.update(state="completed", iteration=config.schedule.iterations, ended=now())


def _train(run: Run, config: RunConfig, world: World | None, stop: StopSignal) -> None:
    processes = config.runtime.devices if world is None else world.size
    check_processes(config, processes)
    check_trackers(config.runtime.track)
    write_provenance(run, _provenance(config, world or World(size=processes, local_size=processes)))
    if stop.received is not None:
        raise Preempted(stop.received)
    carry_out(train_process, processes, (run.folder, config))


def _train_beside(world: World, run: Run, config: RunConfig) -> None:
    """Join the main process, and say in the record that it has died if it cannot do so itself any more."""
    with StopSignal():
        try:
            train_process(world, None, run.folder, config)
        except ProcessDied as error:
            # A process that was killed closes its files one after another: its connections maybe before its lock.
            end = time.monotonic() + LETS_GO
            while (locked := is_locked(run)) and time.monotonic() < end:
                time.sleep(0.05)
            if run.status().state != "running" or locked:
                raise
            died = ProcessDied(0)
            _record_failure(run, died.record())
            raise died from error


def _record_failure(run: Run, error: dict[str, Any]) -> None:
    # The disk may be full: the first error is the one to show.
    with suppress(UserError):
        run.update(state="failed", ended=now(), error=error)


def _provenance(config: RunConfig, world: World) -> dict[str, Any]:
    """What `collect` knows, and what decides rounding: device, threads, processes."""
    device = choose_device(config.runtime, world)
    weights = [config.model.weights, config.model.backbone.weights]
    proposals = [config.data.train.proposals, config.data.val.proposals]
    return {
        **collect(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "processes": world.size,
        "threads": set_threads(config.runtime, world.local_size),
        # The same again on the same machine is bit-identical on a CPU; a GPU adds up in another order each time unless
        # told otherwise, and so do more than two processes after a resume, whose gradients are then exchanged in other
        # portions.
        "determinism": "exact"
        if (device.type == "cpu" or config.runtime.deterministic) and world.size <= 2
        else "same-order",
        # The embedded data set is a function of its settings, which config.yaml has, and may not be made yet.
        "data_fingerprint": annotations_fingerprint(config.data) if config.data.kind == "coco_folder" else None,
        "weights_sha256": {name: sha256(Path(name)) for name in weights if name and Path(name).is_file()},
        "proposals_sha256": {name: sha256(Path(name)) for name in proposals if name and Path(name).is_file()},
    }
