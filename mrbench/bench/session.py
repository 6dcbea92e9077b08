"""Carrying out a plan: every figure in a fresh process, the record written after each.

This process only asks and waits. It never imports torch, so it holds no memory of the device while the largest
batch is searched.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from mrbench.bench.journal import journal_path
from mrbench.bench.largest_batch import Search
from mrbench.bench.load import BUSY_GPU, BUSY_SHARE, gpu_state
from mrbench.bench.matrix import Case, label
from mrbench.bench.measure import Limits
from mrbench.bench.process import LOOK_SELDOM, DeviceGone, available_memory, raise_mistake, run_fresh, size_text
from mrbench.bench.record import Measurement, Plan, Record, is_finished, measured, read, read_any, write
from mrbench.bench.telemetry import Telemetry
from mrbench.bench.trouble import device_trouble
from mrbench.bench.trying import SEARCHED, TryFailed, carry_out_search, searches
from mrbench.engine.signals import Preempted, StopSignal
from mrbench.errors import UserError
from mrbench.runs.provenance import collect
from mrbench.runs.record import now

SUSPECT_SPREAD = 0.05
SPLIT_TOLERANCE = 0.1  # by which the steps that were split may differ from the timed ones
FEW_DETECTIONS = 1.0  # an image
TAKEN_MEMORY = 1024  # MiB of a GPU before we begin: more than its driver keeps for itself
NUMBERS = {1: "one block is", 2: "two blocks are"}
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
    if trouble := device_trouble(ending.why):
        raise UserError(f"{trouble.what}: {ending.why}", trouble.hint)
    if ending.kind == "memory":
        raise UserError(f"there is no memory left to begin with: {ending.why}", "`nvidia-smi` lists who has a GPU's.")
    if ending.kind != "done":
        raise RuntimeError(f"the device could not be asked: {ending.why}\n{ending.answer.get('output', '')}")
    return {name: value for name, value in ending.answer.items() if name not in ("kind", "peak_resident")}


def check_out(path: Path) -> None:
    """Raises UserError where a record at `path` would take the place of something else."""
    if path.suffix == ".csv":
        what = f"--out {path}: the record is JSON, with a CSV of the same name beside it"
        raise UserError(what, f"Give --out {path.with_suffix('.json')}.")
    if path.exists():
        try:
            read_any(path)
        except UserError as error:
            raise UserError(f"--out {path} is there and is no benchmark record", "Give another name.") from error


def gpu_before(plan: Plan, device: dict[str, Any]) -> dict[str, float] | None:
    """What the GPU does before this benchmark gives it something to do."""
    return gpu_state(device["uuid"]) if plan.device == "cuda" else None


def open_record(path: Path, plan: Plan, device: dict[str, Any], before: dict[str, float] | None = None) -> Record:
    """The unfinished record at `path` when it is of the same plan, machine and software; otherwise a new one.

    `before`: see `gpu_before`.
    """
    provenance = collect()
    if path.exists() and not is_finished(path):
        found = read(path)
        if (found.plan, found.device) == (plan, device) and _made_by(found.provenance) == _made_by(provenance):
            return found
    record = Record(plan, now(), device, provenance, before=before)
    if why := device.get("no_gpu"):
        record.warnings.append(f"there is a GPU, but it was not used: {why}")
    if before is not None and before["utilization.gpu"] > BUSY_GPU:
        busy = f"{before['utilization.gpu']:.0f} % busy with something else"
        record.warnings.append(f"the GPU was {busy} before we began")
    if before is not None and before["memory.used"] > TAKEN_MEMORY:
        size = size_text(before["memory.used"] * 2**20)
        record.warnings.append(f"{size} of the GPU's memory were taken before we began: less was left to fit into")
    return record


def _made_by(provenance: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(provenance.get(part) for part in ("packages", "code", "hardware"))


def carry_out(path: Path, record: Record, watch: Watcher) -> Record:
    """Measure and search what the record still lacks, and complete it. `path` is replaced after each step.

    The record keeps what was measured until one of these is raised, and can be continued:
        UserError: a mistake that only shows on the way.
        DeviceGone: the GPU is gone, or somebody else has it.
        Preempted: Ctrl-C, or a cluster's end of a job's time.
    """
    with StopSignal(stop_at_once):
        return _carry_out(path, record, watch)


def stop_at_once(signum: int) -> None:
    """What is running is killed, and measured anew when the benchmark goes on."""
    raise Preempted(signum)


def _carry_out(path: Path, record: Record, watch: Watcher) -> Record:
    plan, made = record.plan, not path.exists()
    if made:  # before anything is measured; what stands there is replaced by the first row
        write(path, record)
    for case in plan.cases:
        row = next((m for m in record.measurements if m.case == case), None)
        if row is None:
            watch.begins(f"{label(case, plan.cases)}: warming up, then {plan.repeats} blocks")
            try:
                row = _measure(record, case)
            except UserError:
                if made and not record.measurements:
                    path.unlink()  # what was asked for cannot be: nothing to go on with
                raise
            record.measurements.append(row)
            write(path, record)
        watch.measured(row)
    if plan.largest_batch:
        for case, checkpointing in searches(plan):
            watch.searched(_search(path, record, case, checkpointing, watch))
    record.state, record.ended = "completed", now()
    write(path, record)
    journal_path(path).unlink(missing_ok=True)
    return record


def task_of(plan: Plan, what: str, case: Case) -> dict[str, Any]:
    """What `mrbench.bench.child` reads."""
    workload = {
        "case": asdict(case),
        "instances": plan.instances,
        "positives": plan.positives,
        "inputs": plan.inputs,
        "peer": plan.peer if what == "measure" and case.mode in SEARCHED else None,
        "most_devices": max(c.devices for c in plan.cases),
    }
    return {"what": what, "config": plan.configs[case.model], "workload": workload}


def _measure(record: Record, case: Case) -> Measurement:
    plan = record.plan
    if refusal := case.precision and record.device["refusals"][case.precision]:
        return Measurement(case, "unsupported", refusal)
    task = {**task_of(plan, "measure", case), "limits": asdict(Limits(repeats=plan.repeats))}
    limit = plan.memory_limit if plan.device == "cpu" else None
    ending = run_fresh(task, limit or available_memory(), MEASURE_SECONDS, look_every=LOOK_SELDOM)
    if ending.kind != "done":
        raise_mistake(ending)
        if ending.kind == "failed":
            _check_device(plan, ending.why)
        return Measurement(case, ending.kind, ending.why)
    row = measured(case, ending.answer)
    row.warnings = suspicions(row)
    return row


def suspicions(row: Measurement) -> list[str]:
    """What makes a figure hard to believe, in words."""
    found = []
    rate = row.images_per_second
    if rate is not None and rate.spread is not None and rate.spread > SUSPECT_SPREAD:
        found.append(f"the spread is {100 * rate.spread:.0f} % of the mean; something disturbed the measurement")
    if rate is not None and rate.interval is None:
        found.append(f"{NUMBERS[rate.count]} too few for an interval")
    if rate is not None and rate.outliers:
        found.append(f"{len(rate.outliers)} of {rate.count} blocks are outliers")
    if row.warmup is not None and not row.warmup.stable:
        found.append(f"step times were still drifting after {row.warmup.steps} steps of warm-up")
    if row.others_cpu is not None and row.others_cpu > BUSY_SHARE:
        found.append(f"other processes took {100 * row.others_cpu:.0f} % of the machine's cores meanwhile")
    if row.facts.get("loss_is_finite") is False:
        found.append("the loss was not finite: the network did not do the work of a real one")
    if row.facts.get("detections_per_image", 1.0) < FEW_DETECTIONS and row.case.mode == "infer":
        found.append("hardly anything was detected, so the mask branch did not work; give --inputs data")
    if row.split is not None and row.step_seconds is not None:
        apart = row.split.step_seconds / row.step_seconds.median - 1
        if abs(apart) > SPLIT_TOLERANCE:
            slower = "slower" if apart > 0 else "faster"
            found.append(f"the steps that were split were {100 * abs(apart):.0f} % {slower} than the timed ones")
    return found + (_about_the_gpu(row.telemetry) if row.telemetry is not None else [])


def _about_the_gpu(seen: Telemetry) -> list[str]:
    found = []
    if seen.throttled:
        found.append(f"the GPU was throttled by {' and '.join(seen.throttled)}")
    if seen.others:
        found.append(f"{seen.others} other process{'es' if seen.others > 1 else ''} had the GPU as well")
    return found


def _search(path: Path, record: Record, case: Case, checkpointing: bool, watch: Watcher) -> Search:
    plan = record.plan
    search = next((s for s in record.searches if (s.case, s.checkpointing) == (case, checkpointing)), None)
    if search is None:
        search = Search(case, checkpointing=checkpointing)
        record.searches.append(search)
    if refusal := case.precision and record.device["refusals"][case.precision]:
        search.note = refusal
    if search.largest is not None or search.note:
        return search
    what = f"{label(case, plan.cases)}{', checkpointing' * checkpointing}"
    try:
        carry_out_search(path, record, search, lambda batch: watch.begins(f"largest batch, {what}: trying {batch}"))
    except TryFailed as error:
        _check_device(plan, str(error))
        search.note = str(error)
    return search


def _check_device(plan: Plan, why: str) -> None:
    """Raises DeviceGone where a process failed and its GPU no longer answers."""
    if plan.device != "cuda":
        return
    try:
        describe_device(next(iter(plan.configs.values())))
    except (UserError, RuntimeError) as error:
        raise DeviceGone(f"the GPU no longer answers ({why}): {error}") from error
