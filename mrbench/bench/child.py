"""What a fresh process does: describe the device, measure, or try a batch. `python -m mrbench.bench.child FOLDER`.

Reads FOLDER/task.json, writes FOLDER/answer.json. Ends when its standard input does: then the process that asked is
gone, and nobody else would stop it.
"""

import json
import os
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from mrbench.bench.load import cpu_time, taken_by_others
from mrbench.bench.measure import Limits, measure
from mrbench.bench.process import end_with_parent, means_out_of_memory, peak_resident
from mrbench.bench.workload import Prepared, Workload, prepare
from mrbench.config import compose
from mrbench.config.schema import RunConfig
from mrbench.engine.distributed import World, choose_device, set_threads
from mrbench.engine.precision import check_precision
from mrbench.errors import UserError

STEPS_OF_A_TRY = 3  # the optimiser's state exists from the second on; fragmentation shows in the third


def describe(config: RunConfig) -> dict[str, Any]:
    """The device, and for each precision why it cannot compute in it (null: it can)."""
    device = choose_device(config.runtime, World())
    threads = set_threads(config.runtime, 1)
    refusals: dict[str, str | None] = {}
    for kind in ("fp32", "tf32", "fp16", "bf16"):
        try:
            check_precision(kind, device)
            refusals[kind] = None
        except UserError as error:
            refusals[kind] = error.what
    told: dict[str, Any] = {"type": device.type, "refusals": refusals, "threads": threads}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        told |= {
            "name": properties.name,
            "memory": properties.total_memory,
            "capability": f"{properties.major}.{properties.minor}",
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return told


def settings(device: torch.device, mode: str) -> dict[str, Any]:
    """What was on and off, and what a figure includes."""
    included = "forward, backward, optimiser" if mode == "train" else "forward, boxes and masks in their boxes"
    left_out = "reading and augmenting pictures, copying them to the device"
    return {
        "included": included,
        "not_included": left_out if mode == "train" else f"{left_out}, pasting masks into pictures",
        "tf32": torch.backends.cuda.matmul.fp32_precision == "tf32" if device.type == "cuda" else False,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "compile": False,
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


def measure_it(config: RunConfig, workload: Workload, limits: Limits) -> dict[str, Any]:
    """Times and memory of one workload."""
    device = choose_device(config.runtime, World())
    set_threads(config.runtime, 1)
    baseline = peak_resident("self")
    prepared = prepare(config, workload, device)
    before: list[Any] = []

    def reset() -> None:
        reset_peak(device)
        before.append(cpu_time())

    timing = measure(prepared.step, lambda: synchronise(device), prepared.cycle, limits, between=reset)
    memory = peak_memory(device)
    if device.type == "cpu" and baseline is not None:
        memory["libraries"] = baseline
    return {
        "warmup": asdict(timing.warmup),
        "steps_per_block": timing.steps_per_block,
        "block_seconds": timing.block_seconds,
        "others_cpu": taken_by_others(before[0], cpu_time(), sum(timing.block_seconds)),
        "peak_memory": memory,
        "settings": settings(device, workload.mode),
        "facts": prepared.facts(),
    }


def try_it(config: RunConfig, workload: Workload, limit: int | None) -> dict[str, Any]:
    """Three steps in a row. `limit` (bytes) is the wall of a GPU; on a CPU the process that asked watches."""
    device = choose_device(config.runtime, World())
    set_threads(config.runtime, 1)
    if device.type == "cuda" and limit is not None:
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(limit / total, 1.0), device)
    prepared: Prepared = prepare(config, workload, device)
    for _ in range(STEPS_OF_A_TRY):
        prepared.step()
    synchronise(device)
    return {"peak_memory": peak_memory(device)}


def synchronise(device: torch.device) -> None:
    """Wait for everything that was queued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_peak(device: torch.device) -> None:
    """Count peaks of memory from here on."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    # Where it cannot be reset, the peak is that of the whole process, building the network included.
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets the peak resident set size


def peak_memory(device: torch.device) -> dict[str, int]:
    """Bytes at the peak: allocated and reserved by torch on a GPU, resident for the whole process on a CPU."""
    if device.type == "cuda":
        return {
            "allocated": torch.cuda.max_memory_allocated(device),
            "reserved": torch.cuda.max_memory_reserved(device),
        }
    resident = peak_resident("self")
    return {} if resident is None else {"resident": resident}


def carry_out(task: dict[str, Any], folder: Path) -> dict[str, Any]:
    (folder / "config.yaml").write_text(task["config"])
    config = compose.load(folder / "config.yaml")
    if task["what"] == "describe":
        return describe(config)
    workload = Workload(**task["workload"])
    if task["what"] == "try":
        return try_it(config, workload, task["limit"])
    return measure_it(config, workload, Limits(**task["limits"]))


def main(folder: Path) -> None:
    end_with_parent()
    try:
        answer = {"kind": "done", **carry_out(json.loads((folder / "task.json").read_text()), folder)}
    except UserError as error:
        answer = {"kind": "refused", "why": error.what, "hint": error.hint}
    except (RuntimeError, MemoryError) as error:
        text = f"{type(error).__name__}: {error}"
        if not means_out_of_memory(text):
            raise
        answer = {"kind": "memory", "why": text.splitlines()[0]}
    answer["peak_resident"] = peak_resident("self")
    (folder / "answer.json").write_text(json.dumps(answer))
    # At once: taking the interpreter and torch down touches 100 MiB of libraries that the work never did, which
    # would count as its peak.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
