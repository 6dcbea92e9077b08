"""Measuring one row of the matrix, as one of the processes that it has devices."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torchvision
from torch.utils.flop_counter import FlopCounterMode

from mrbench.bench.device import (
    observer,
    peak_copy,
    peak_flops,
    peak_memory,
    reset_peak,
    stopwatch,
)
from mrbench.bench.load import CpuTime, cpu_time, taken_by_others
from mrbench.bench.matrix import OF_A_NETWORK, ON_A_LOADER, Case
from mrbench.bench.measure import (
    Limits,
    Stopwatch,
    WorkStopwatch,
    measure,
    one_by_one,
    same,
    steps_lasting,
    take_turns,
)
from mrbench.bench.metrics import prepare_metrics
from mrbench.bench.process import peak_resident
from mrbench.bench.split import EventMarks, HostMarks, split_step
from mrbench.bench.streams import prepare_end_to_end, prepare_loader
from mrbench.bench.telemetry import Telemetry
from mrbench.bench.trouble import means_out_of_memory
from mrbench.bench.workload import Prepared, Workload, prepare
from mrbench.config.schema import RunConfig
from mrbench.engine.distributed import World, choose_device, from_main, process_group, set_threads

MEASURED = "measured.json"
INCLUDED = {
    "train": "forward, backward, optimiser",
    "infer": "forward, boxes and masks in their boxes",
    "data": "reading, decoding and augmenting pictures, batches in main memory",
    "end-to-end": "reading and augmenting pictures, copying them to the device, forward, backward, optimiser",
    "eval": "matching and summarising given detections",
}
LEFT_OUT = {
    "train": "reading and augmenting pictures, copying them to the device",
    "infer": "reading and resizing pictures, copying them to the device, pasting masks into pictures",
    "data": "copying to the device, the network",
    "end-to-end": "checkpoints, evaluation",
    "eval": "detecting, encoding masks, writing files",
}


def measure_process(
    world: World, store: dist.Store | None, folder: Path, config: RunConfig, workload: Workload, limits: Limits
) -> None:
    """One of the processes. The main one writes `MEASURED` into `folder`."""
    device = choose_device(config.runtime, world)
    set_threads(config.runtime, workload.most_devices)
    with process_group(world, device, config.runtime, store):
        answer = measure_row(config, workload, limits, device, world)
    if world.main:
        (folder / MEASURED).write_text(json.dumps(answer))


def measure_row(
    config: RunConfig, workload: Workload, limits: Limits, device: torch.device, world: World
) -> dict[str, Any]:
    """Times, memory and what else is known of a row, as `mrbench.bench.record.measured` takes it."""
    case = workload.case
    libraries = peak_resident("self")
    prepared = _prepare(config, workload, device, world)
    watch, seen = stopwatch(device, world), observer(device)
    before: list[CpuTime] = []

    def begin() -> None:
        reset_peak(device)
        if seen is not None:
            seen.begin()
        before.append(cpu_time())

    agree = same if world.size == 1 else lambda value: float(from_main(value, world))
    look = (lambda: None) if seen is None else seen.look
    timing = measure(prepared.step, watch, prepared.cycle, limits, begin, look, agree)
    seconds = sum(timing.block_seconds)
    others = taken_by_others(before[0], cpu_time(), seconds)
    telemetry = Telemetry(None) if seen is None else seen.end(seconds)
    memory = fullest(peak_memory(device), world)
    if device.type == "cpu" and libraries is not None:
        memory["libraries"] = libraries
    step_seconds = agree(timing.step_seconds.median)
    latency = []
    if case.mode == "infer":
        latency = one_by_one(prepared.step, watch, prepared.cycle, limits, step_seconds)
    split = _split(prepared, watch, device, limits, step_seconds) if prepared.calls else None
    facts = prepared.facts()
    return {
        "warmup": asdict(timing.warmup),
        "steps_per_block": timing.steps_per_block,
        "block_seconds": timing.block_seconds,
        "latency": latency,
        "split": split,
        "work": _work(prepared, case, device) if case.mode in OF_A_NETWORK else None,
        "telemetry": asdict(telemetry),
        # Other processes of the row are no others.
        "others_cpu": others if world.size == 1 and not _has_workers(config, case) else None,
        "peer": against_peer(prepared, workload, watch, limits),
        "peak_memory": memory,
        "settings": settings(case, config, device, watch),
        "facts": facts,
    }


def _prepare(config: RunConfig, workload: Workload, device: torch.device, world: World) -> Prepared:
    mode = workload.case.mode
    if mode == "data":
        return prepare_loader(config, workload, device, world)
    if mode == "end-to-end":
        return prepare_end_to_end(config, workload, device, world)
    return prepare_metrics(config, workload) if mode == "eval" else prepare(config, workload, device, world)


def _has_workers(config: RunConfig, case: Case) -> bool:
    return case.mode in ON_A_LOADER and config.runtime.num_workers > 0


def fullest(memory: dict[str, int], world: World) -> dict[str, int]:
    """The largest value of any process."""
    if world.size == 1:
        return memory
    everyone: list[dict[str, int]] = [{} for _ in range(world.size)]
    dist.all_gather_object(everyone, memory)
    return {name: max(one.get(name, 0) for one in everyone) for name in memory}


def _split(
    prepared: Prepared, watch: Stopwatch, device: torch.device, limits: Limits, step_seconds: float
) -> dict[str, Any]:
    """The parts of a step. What an exchange of gradients adds to the backward pass, which mostly hides it, is the
    difference to steps without it."""
    steps = steps_lasting(2 * limits.block_seconds, step_seconds, prepared.cycle)
    marks = EventMarks() if device.type == "cuda" else HostMarks()
    parts = split_step(prepared.step, prepared.calls, steps, marks, watch.synchronise)
    if prepared.unsynchronised is not None:
        with prepared.unsynchronised():
            alone = split_step(prepared.step, prepared.calls, steps, marks, watch.synchronise)
        added = min(max(parts["backward"] - alone["backward"], 0.0), parts["backward"])
        parts["backward"] -= added
        parts["communication"] = parts.get("communication", 0.0) + added
    return {"steps": steps, "step_seconds": sum(parts.values()), "parts": parts}


def against_peer(prepared: Prepared, workload: Workload, watch: Stopwatch, limits: Limits) -> dict[str, Any] | None:
    """Turns with the peer, where one is asked for. Its failure is told and leaves the row what it is."""
    if workload.peer is None or prepared.peer is None:
        return None
    name = f"{workload.peer} {torchvision.__version__.split('+')[0]}"
    try:
        peer = prepared.peer()
        # With one thread a step takes as long as it computes, on a machine that has nothing else to do.
        if watch.name == Stopwatch.name and torch.get_num_threads() == 1:
            watch = WorkStopwatch()
        steps, ours, theirs = take_turns(prepared.step, peer.step, watch, prepared.cycle, limits)
        facts = peer.facts()
    except (RuntimeError, MemoryError) as error:
        return {"name": name, "note": f"{type(error).__name__}: {error}".splitlines()[0]}
    return {
        "name": name,
        "clock": watch.name,
        "steps_per_block": steps,
        "our_seconds": ours,
        "their_seconds": theirs,
        "facts": facts,
    }


def _work(prepared: Prepared, case: Case, device: torch.device) -> dict[str, float] | None:
    """None where there is no memory for it, above all uncompiled: the row is what it is without."""
    assert case.precision is not None
    try:
        return {
            "flops": count_flops(prepared.step, prepared.cycle),
            "peak_flops": peak_flops(case.precision, device),
            "peak_copy": peak_copy(device),
        }
    except (RuntimeError, MemoryError) as error:
        if not means_out_of_memory(f"{type(error).__name__}: {error}"):
            raise
        return None


def count_flops(step: Callable[[], object], cycle: int) -> float:
    """Floating point operations of a step, the mean over its inputs, by torch.utils.flop_counter: two a multiply-add,
    of convolutions and matrix products. Compiled parts run uncompiled for it."""
    with torch.compiler.set_stance("force_eager"), FlopCounterMode(display=False) as counter:
        for _ in range(cycle):
            step()
    return counter.get_total_flops() / cycle


def settings(case: Case, config: RunConfig, device: torch.device, watch: Stopwatch) -> dict[str, Any]:
    """What was on and off, and what a figure includes. Where there is no GPU, TF32 is off and cuDNN's is null."""
    cuda = device.type == "cuda"
    return {
        "included": INCLUDED[case.mode],
        "not_included": LEFT_OUT[case.mode],
        "clock": watch.name,
        "tf32": torch.backends.cuda.matmul.fp32_precision == "tf32" if cuda else False,
        "tf32_cudnn": torch.backends.cudnn.conv.fp32_precision == "tf32" if cuda else False,  # type: ignore[attr-defined]
        "cudnn_benchmark": torch.backends.cudnn.benchmark if cuda else None,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "compile": case.compile,
        "channels_last": case.channels_last,
        "activation_checkpointing": config.runtime.activation_checkpointing,
        "exchange": dist.get_backend() if dist.is_initialized() else None,
        "threads": torch.get_num_threads(),
    }
