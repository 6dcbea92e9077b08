"""A whole training job: from taking the run's lock to its final state, in one process or several."""

import hashlib
import os
import socket
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

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
from mrbench.engine.processes import run_processes
from mrbench.engine.signals import Preempted
from mrbench.errors import UserError
from mrbench.runs.files import write_json
from mrbench.runs.lock import run_lock
from mrbench.runs.provenance import collect
from mrbench.runs.record import Run, now


def train(run: Run, config: RunConfig) -> None:
    """Carry out a run, from its newest checkpoint where it has one. A completed run is left as it is.

    With `runtime.devices` above 1 that many processes are started on this machine; under torchrun this process
    joins the others, and rank 0 keeps the record.

    Raises:
        UserError: another process has the run, or something asked for cannot be done; the record says so.
        RunFailed: it failed (a loss that is not finite, a process that died, memory); the record says so.
        Preempted: SIGTERM or SIGINT came; the same call goes on later.
    """
    world = world_from_environment()
    if world is not None and not world.main:
        if run.status().state != "completed":
            train_process(world, None, run.folder, config)
        return
    with run_lock(run):
        status = run.status()
        if status.state == "completed":
            return
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
            _train(run, config, world)
        except Preempted as error:
            done = {} if error.iteration is None else {"iteration": error.iteration}
            run.update(state="preempted", ended=now(), **done)
            raise
        except RunFailed as error:
            _record_failure(run, error.record())
            raise
        except UserError as error:
            _record_failure(run, {"kind": "user_error", "message": error.what, "hint": error.hint})
            raise
        except Exception as error:
            if _lost_a_peer(error):
                died = ProcessDied(None)
                _record_failure(run, died.record())
                raise died from error
            trace = traceback.format_exc()
            _record_failure(
                run, {"kind": "exception", "message": f"{type(error).__name__}: {error}", "traceback": trace}
            )
            raise
        run.update(state="completed", iteration=config.schedule.iterations, ended=now())


def _train(run: Run, config: RunConfig, world: World | None) -> None:
    processes = config.runtime.devices if world is None else world.size
    check_processes(config, processes)
    write_json(run.provenance_file, _provenance(config, world or World(size=processes)))
    if world is None and processes > 1:
        run_processes(train_process, processes, (run.folder, config))
    else:
        train_process(world or World(), None, run.folder, config)


def _record_failure(run: Run, error: dict[str, Any]) -> None:
    # The disk may be full: the first error is the one to show.
    with suppress(UserError):
        run.update(state="failed", ended=now(), error=error)


def _lost_a_peer(error: Exception) -> bool:
    """Whether an exchange between processes failed because one of them is gone."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


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
        "threads": set_threads(config.runtime, world.size),
        # The same again on the same machine is bit-identical on a CPU; a GPU adds up in another order each time unless
        # told otherwise, and so do more than two processes after a resume, whose gradients are then exchanged in other
        # portions.
        "determinism": "exact"
        if (device.type == "cpu" or config.runtime.deterministic) and world.size <= 2
        else "same-order",
        # The embedded data set is a function of its settings, which config.yaml has, and may not be made yet.
        "data_fingerprint": annotations_fingerprint(config.data) if config.data.kind == "coco_folder" else None,
        "weights_sha256": {name: _sha256(Path(name)) for name in weights if name and Path(name).is_file()},
        "proposals_sha256": {name: _sha256(Path(name)) for name in proposals if name and Path(name).is_file()},
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
