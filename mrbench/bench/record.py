"""The record of a benchmark: one JSON file with what was measured, on what, and under which protocol."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mrbench.bench.largest_batch import Search, Try
from mrbench.bench.measure import Timing, Warmup
from mrbench.bench.statistics import Summary, summarise
from mrbench.errors import UserError
from mrbench.runs.files import read_json, write_json

PROTOCOL = 1  # raised when a figure of the old protocol can no longer stand beside one of the new


@dataclass
class Plan:
    """What is to be measured: the part of the record that must agree for an unfinished one to be continued."""

    config: str  # the composed configuration as YAML
    model: str
    device: str  # "cpu" or "cuda"
    modes: list[str]
    precisions: list[str]
    batches: dict[str, list[int]]  # mode -> images a step
    image_size: list[int]  # height, width before padding to a multiple of 32
    instances: int
    inputs: str  # "synthetic" or "data"
    repeats: int
    largest_batch: bool
    memory_limit: int | None  # bytes; None: what the device has
    headroom: float  # share of the limit that is kept free


@dataclass
class Measurement:
    """One mode, precision and batch size."""

    mode: str
    precision: str
    batch: int
    state: str  # "measured", or why not: "memory", "unsupported", "time", "failed"
    note: str = ""
    images_per_second: Summary | None = None  # over blocks
    step_seconds: Summary | None = None  # over blocks
    block_seconds: list[float] = field(default_factory=list)
    steps_per_block: int | None = None
    warmup: Warmup | None = None
    peak_memory: dict[str, int] = field(default_factory=dict)  # bytes, by what is counted
    facts: dict[str, Any] = field(default_factory=dict)  # what the step did: detections, positive RoIs, loss ...
    settings: dict[str, Any] = field(default_factory=dict)  # TF32, cuDNN autotuning, compile, what is included ...
    others_cpu: float | None = None  # share of the machine's cores that others used during the blocks
    warnings: list[str] = field(default_factory=list)

    @property
    def label(self) -> str:
        return f"{self.mode} {self.precision}, batch {self.batch}"


@dataclass
class Record:
    """Everything that one `gpu-bench` tells."""

    plan: Plan
    started: str
    device: dict[str, Any]  # name, memory, threads or compute capability
    provenance: dict[str, Any]  # software and hardware
    protocol: int = PROTOCOL
    state: str = "running"  # or "completed"
    ended: str | None = None
    measurements: list[Measurement] = field(default_factory=list)
    searches: list[Search] = field(default_factory=list)
    before: dict[str, float] | None = None  # the GPU before we began, as nvidia-smi tells it
    warnings: list[str] = field(default_factory=list)


def measured(mode: str, precision: str, batch: int, answer: dict[str, Any]) -> Measurement:
    """A row from the answer of the process that measured it."""
    timing = Timing(Warmup(**answer["warmup"]), answer["steps_per_block"], answer["block_seconds"])
    return Measurement(
        mode,
        precision,
        batch,
        state="measured",
        images_per_second=summarise(timing.rates(batch)),
        step_seconds=timing.step_seconds,
        block_seconds=timing.block_seconds,
        steps_per_block=timing.steps_per_block,
        warmup=timing.warmup,
        peak_memory=answer["peak_memory"],
        facts=answer["facts"],
        settings=answer["settings"],
        others_cpu=answer["others_cpu"],
    )


def write(path: Path, record: Record) -> None:
    """Replaces `path` atomically. Raises UserError where it cannot be written."""
    write_json(path, asdict(record))


def read(path: Path) -> Record:
    """Raises UserError where the file is missing, damaged, or of another protocol."""
    found = read_json(path)
    if found is None:
        raise UserError(f"There is no {path}")
    protocol = found.get("protocol") if isinstance(found, dict) else None
    if protocol != PROTOCOL:
        raise UserError(
            f"{path} is not a benchmark record of protocol {PROTOCOL}",
            f"It states protocol {protocol}: measure again." if protocol else "mrbench gpu-bench writes them.",
        )
    return Record(
        **{
            **found,
            "plan": Plan(**found["plan"]),
            "measurements": [_measurement(m) for m in found["measurements"]],
            "searches": [Search(**{**s, "tries": [Try(**t) for t in s["tries"]]}) for s in found["searches"]],
        }
    )


def is_finished(path: Path) -> bool:
    """Whether `path` holds something that must not be written over: anything but an unfinished record."""
    try:
        return read(path).state != "running"
    except UserError:
        return True


def _measurement(found: dict[str, Any]) -> Measurement:
    kinds = {"images_per_second": Summary, "step_seconds": Summary, "warmup": Warmup}
    typed = {name: kind(**found[name]) for name, kind in kinds.items() if found[name] is not None}
    return Measurement(**{**found, **typed})
