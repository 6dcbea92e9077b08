"""What a fresh process does: describe the device, measure, or try a batch. `python -m mrbench.bench.child FOLDER`.

Reads FOLDER/task.json, writes FOLDER/answer.json. Ends when its standard input does: then the process that asked is
gone, and nobody else would stop it.
"""

import json
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mrbench.bench.device import peak_memory, synchronise
from mrbench.bench.matrix import Case
from mrbench.bench.measure import Limits
from mrbench.bench.process import end_with_parent, peak_resident
from mrbench.bench.rows import MEASURED, measure_process
from mrbench.bench.trouble import device_trouble, means_out_of_memory
from mrbench.bench.workload import Workload, prepare
from mrbench.config import compose
from mrbench.config.schema import RunConfig
from mrbench.engine.distributed import World, choose_device, set_threads
from mrbench.engine.failures import RunFailed
from mrbench.engine.nvml import gpu_uuid
from mrbench.engine.precision import check_precision
from mrbench.engine.processes import run_processes
from mrbench.errors import UserError

STEPS_OF_A_TRY = 3  # the optimiser's state exists from the second on; fragmentation shows in the third


def describe(config: RunConfig) -> dict[str, Any]:
    """The device, how many there are, and for each precision why it cannot compute in it (null: it can); and why a GPU
    that is there is not used (`no_gpu`).

    Raises UserError where a GPU is asked for and cannot be used, with what CUDA says about it.
    """
    # torch takes a GPU that it cannot use for none, and says why in a warning.
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            device = choose_device(config.runtime, World())
        except UserError as error:
            raise explained(error, said) from error
    threads = set_threads(config.runtime, 1)
    refusals: dict[str, str | None] = {}
    for kind in ("fp32", "tf32", "fp16", "bf16"):
        try:
            check_precision(kind, device)
            refusals[kind] = None
        except UserError as error:
            refusals[kind] = error.what
    told: dict[str, Any] = {"type": device.type, "refusals": refusals, "threads": threads}
    if device.type == "cpu" and config.runtime.device != "cpu" and (text := first_trouble(said)):
        told["no_gpu"] = text
    if device.type == "cuda":
        torch.zeros(1, device=device)  # fails where somebody else has the GPU alone
        properties = torch.cuda.get_device_properties(device)
        told |= {
            "name": properties.name,
            "uuid": gpu_uuid(device),
            "memory": properties.total_memory,
            "capability": f"{properties.major}.{properties.minor}",
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "count": torch.cuda.device_count(),
        }
    return told


def explained(error: UserError, said: Sequence[warnings.WarningMessage]) -> UserError:
    """`error`, or what a warning knows about it."""
    text = first_trouble(said)
    trouble = None if text is None else device_trouble(text)
    return error if trouble is None else UserError(f"{error.what}: {trouble.what} ({text})", trouble.hint)


def first_trouble(said: Sequence[warnings.WarningMessage]) -> str | None:
    """The first warning about a GPU, in one line."""
    texts = (" ".join(str(warning.message).split()) for warning in said)
    return next((text for text in texts if device_trouble(text)), None)


def measure_it(config: RunConfig, workload: Workload, limits: Limits, folder: Path) -> dict[str, Any]:
    """Times and memory of one row, by as many processes as it has devices."""
    if workload.case.devices > 1:
        run_processes(measure_process, workload.case.devices, (folder, config, workload, limits))
    else:
        measure_process(World(), None, folder, config, workload, limits)
    answer: dict[str, Any] = json.loads((folder / MEASURED).read_text())
    return answer


def try_it(config: RunConfig, workload: Workload, checkpointing: bool, limit: int | None) -> dict[str, Any]:
    """Three steps in a row, with random weights, so that proposals are stated. `limit` (bytes) is the wall of a GPU;
    on a CPU the kernel holds it, or the process that asked."""
    runtime = replace(config.runtime, activation_checkpointing=checkpointing)
    config = replace(config, runtime=runtime, model=replace(config.model, weights=None))
    device = choose_device(config.runtime, World())
    set_threads(config.runtime, 1)
    if device.type == "cuda" and limit is not None:
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(limit / total, 1.0), device)
    prepared = prepare(config, workload, device)
    for _ in range(STEPS_OF_A_TRY):
        prepared.step()
    synchronise(device)
    return {"peak_memory": peak_memory(device)}


def carry_out(task: dict[str, Any], folder: Path) -> dict[str, Any]:
    (folder / "config.yaml").write_text(task["config"])
    config = compose.load(folder / "config.yaml")
    if task["what"] == "describe":
        return describe(config)
    workload = Workload(**{**task["workload"], "case": Case(**task["workload"]["case"])})
    if task["what"] == "try":
        return try_it(config, workload, task["checkpointing"], task["limit"])
    return measure_it(config, workload, Limits(**task["limits"]), folder)


def main(folder: Path) -> None:
    end_with_parent()
    try:
        answer = {"kind": "done", **carry_out(json.loads((folder / "task.json").read_text()), folder)}
    except UserError as error:
        answer = {"kind": "refused", "why": error.what, "hint": error.hint}
    except (RuntimeError, MemoryError, RunFailed) as error:
        text = f"{type(error).__name__}: {error}"
        if not means_out_of_memory(text) and not device_trouble(text):
            raise
        kind = "memory" if means_out_of_memory(text) else "device"
        lines = text.splitlines()  # of a process among several the traceback, whose last line says why
        said = [line for line in lines if means_out_of_memory(line) or device_trouble(line)]
        answer = {"kind": kind, "why": said[-1].strip() if said else lines[0]}
    answer["peak_resident"] = peak_resident("self")
    (folder / "answer.json").write_text(json.dumps(answer))
    # At once: taking the interpreter and torch down touches 100 MiB of libraries that the work never did, which
    # would count as its peak.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
