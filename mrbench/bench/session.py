"""Carrying out a plan: every figure in a fresh process, the record written after each.

This process only asks and waits. It never imports torch, so it holds no memory of the device while the largest
batch is searched.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from mrbench.bench.largest_batch import Search, Try, find_largest
from mrbench.bench.load import BUSY_GPU, BUSY_SHARE, gpu_state, visible_gpu
from mrbench.bench.measure import Limits
from mrbench.bench.process import REPEATABLE_MEMORY, Ending, available_memory, run_fresh
from mrbench.bench.record import Measurement, Plan, Record, is_finished, measured, read, write
from mrbench.errors import UserError
from mrbench.runs.provenance import collect
from mrbench.runs.record import now

SUSPECT_SPREAD = 0.05
TRY_SECONDS = 600.0
MEASURE_SECONDS = 3600.0


class Watcher(Protocol):
    """Who is told what happens."""

    def begins(self, what: str) -> None: ...
    def measured(self, row: Measurement) -> None: ...
    def searched(self, search: Search) -> None: ...


def describe_device(config_yaml: str) -> dict[str, Any]:
    """The device that the configuration means here. Raises UserError where it asks for a GPU and there is none."""
    ending = run_fresh({"what": "describe", "config": config_yaml})
    if ending.kind == "refused":
        raise UserError(ending.why, ending.answer.get("hint", ""))
    if ending.kind != "done":
        raise RuntimeError(f"the device could not be asked: {ending.why}\n{ending.answer.get('output', '')}")
    return {name: value for name, value in ending.answer.items() if name not in ("kind", "peak_resident")}


def open_record(path: Path, plan: Plan, device: dict[str, Any]) -> Record:
    """The unfinished record at `path` when it is of the same plan, machine and software; otherwise a new one."""
    provenance = collect()
    if path.exists() and not is_finished(path):
        found = read(path)
        if (found.plan, found.device) == (plan, device) and _made_by(found.provenance) == _made_by(provenance):
            return found
    record = Record(plan, now(), device, provenance)
    if plan.device == "cuda":
        record.before = gpu_state(visible_gpu())
        busy = record.before["utilization.gpu"] if record.before else 0.0
        if busy > BUSY_GPU:
            record.warnings.append(f"the GPU was {busy:.0f} % busy with something else before we began")
    return record


def _made_by(provenance: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(provenance.get(part) for part in ("packages", "code", "hardware"))


def carry_out(path: Path, record: Record, watch: Watcher) -> Record:
    """Measure and search what the record still lacks, and complete it. `path` is replaced after each step.

    Raises UserError for a mistake that only shows on the way; the record keeps what was measured until then.
    """
    plan = record.plan
    write(path, record)
    for mode in plan.modes:
        for batch in plan.batches[mode]:
            for precision in plan.precisions:
                key = (mode, precision, batch)
                row = next((m for m in record.measurements if (m.mode, m.precision, m.batch) == key), None)
                if row is None:
                    watch.begins(f"{mode} {precision}, batch {batch}: warming up, then {plan.repeats} blocks")
                    row = _measure(record, mode, precision, batch)
                    record.measurements.append(row)
                    write(path, record)
                watch.measured(row)
    if plan.largest_batch:
        for mode in plan.modes:
            for precision in plan.precisions:
                watch.searched(_search(path, record, mode, precision, watch))
    record.state, record.ended = "completed", now()
    write(path, record)
    return record


def _workload(plan: Plan, mode: str, precision: str, batch: int) -> dict[str, Any]:
    return {
        "mode": mode,
        "precision": precision,
        "batch": batch,
        "image_size": plan.image_size,
        "instances": plan.instances,
        "inputs": plan.inputs,
    }


def _measure(record: Record, mode: str, precision: str, batch: int) -> Measurement:
    plan = record.plan
    if refusal := record.device["refusals"][precision]:
        return Measurement(mode, precision, batch, "unsupported", refusal)
    task = {
        "what": "measure",
        "config": plan.config,
        "workload": _workload(plan, mode, precision, batch),
        "limits": asdict(Limits(repeats=plan.repeats)),
    }
    limit = plan.memory_limit if plan.device == "cpu" else None
    ending = run_fresh(task, limit or available_memory(), MEASURE_SECONDS)
    if ending.kind != "done":
        _raise_mistake(ending)
        return Measurement(mode, precision, batch, ending.kind, ending.why)
    row = measured(mode, precision, batch, ending.answer)
    row.warnings = suspicions(row)
    return row


def suspicions(row: Measurement) -> list[str]:
    """What makes a figure hard to believe, in words."""
    found = []
    rate = row.images_per_second
    if rate is not None and rate.spread is not None and rate.spread > SUSPECT_SPREAD:
        found.append(f"the spread is {100 * rate.spread:.0f} % of the mean; something disturbed the measurement")
    if rate is not None and rate.outliers:
        found.append(f"{len(rate.outliers)} of {rate.count} blocks are outliers")
    if row.warmup is not None and not row.warmup.stable:
        found.append(f"step times were still drifting after {row.warmup.steps} steps of warm-up")
    if row.others_cpu is not None and row.others_cpu > BUSY_SHARE:
        found.append(f"other processes took {100 * row.others_cpu:.0f} % of the machine's cores meanwhile")
    if row.facts.get("loss_is_finite") is False:
        found.append("the loss was not finite: the network did not do the work of a real one")
    return found


def _raise_mistake(ending: Ending) -> None:
    if ending.kind == "refused":
        raise UserError(ending.why, ending.answer.get("hint", ""))


def _search(path: Path, record: Record, mode: str, precision: str, watch: Watcher) -> Search:
    plan = record.plan
    search = next((s for s in record.searches if (s.mode, s.precision) == (mode, precision)), None)
    if search is None:
        search = Search(mode, precision)
        record.searches.append(search)
    if refusal := record.device["refusals"][precision]:
        search.note = refusal
    if search.largest is not None or search.note:
        return search

    def attempt(batch: int) -> Try:
        watch.begins(f"largest batch, {mode} {precision}: trying {batch}")
        return try_batch(plan, record.device, mode, precision, batch)

    try:
        find_largest(search, attempt, lambda: write(path, record))
    except TryFailed as error:
        search.note = str(error)
    return search


class TryFailed(Exception):
    """A try ended for another reason than memory or time: the search cannot go on."""


def wall(plan: Plan, device: dict[str, Any]) -> int:
    """Bytes that a try may use: the limit, or what the device has, less the headroom."""
    limit = plan.memory_limit
    if limit is None:
        limit = device["memory"] if plan.device == "cuda" else available_memory()
    return int(limit * (1 - plan.headroom))


def try_batch(plan: Plan, device: dict[str, Any], mode: str, precision: str, batch: int) -> Try:
    """Three steps of `batch` images in a fresh process that may use what `wall` says."""
    bound = wall(plan, device)
    task = {
        "what": "try",
        "config": plan.config,
        "workload": _workload(plan, mode, precision, batch),
        "limit": bound if plan.device == "cuda" else None,
    }
    host = bound if plan.device == "cpu" else available_memory()
    ending = run_fresh(task, host, TRY_SECONDS, REPEATABLE_MEMORY)
    _raise_mistake(ending)
    if ending.kind == "failed":
        raise TryFailed(f"the try of {batch} failed: {ending.why}")
    peak = ending.answer.get("peak_memory", {}).get("allocated", ending.peak_memory)
    return Try(batch, "fits" if ending.kind == "done" else ending.kind, ending.why, peak, round(ending.seconds, 2))
