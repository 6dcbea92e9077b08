"""The record of a benchmark: one JSON file with what was measured, on what, and under which protocol.

docs/gpu-bench.md lists its fields.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mrbench.bench.largest_batch import Search, Try, Worst
from mrbench.bench.matrix import Case
from mrbench.bench.measure import Timing, Warmup
from mrbench.bench.statistics import Latency, PairedRatio, Summary, latency, paired_ratio, summarise
from mrbench.bench.telemetry import Telemetry
from mrbench.errors import UserError
from mrbench.runs.files import read_json, write_json

PROTOCOL = 2  # raised when a figure of the old protocol can no longer stand beside one of the new


@dataclass
class Plan:
    """What is to be measured: the part of the record that must agree for an unfinished one to be continued."""

    configs: dict[str, str]  # by the name of a model: the composed configuration as YAML
    device: str  # "cpu" or "cuda"
    cases: list[Case]
    inputs: str  # "synthetic" or "data"
    instances: int  # in a synthetic picture
    positives: int | None  # positive RoIs an image where proposals are stated; null: half of those there is room for
    repeats: int
    largest_batch: bool
    memory_limit: int | None  # bytes; None: what the device has
    headroom: float  # share of the limit that is kept free
    peer: str | None = None  # "torchvision", whose own network is measured in turns with ours
    budget: float | None = None  # seconds
    left_out: list[Case] = field(default_factory=list)  # rows that the budget had no room for
    asked_repeats: int | None = None  # where it had room for fewer only


@dataclass
class Split:
    """Where a step's time goes, from steps of their own after the timed ones. The parts add up to `step_seconds`."""

    steps: int
    step_seconds: float  # mean
    parts: dict[str, float]  # seconds, mean: data, copy, backbone, rpn, roi_heads, backward, optimiser ...


@dataclass
class Work:
    """Floating point operations, and how much of what the device was seen to do they use."""

    flops_per_image: float  # two a multiply-add; convolutions and matrix products, those of RoIAlign not
    flops_per_second: float
    peak_flops_per_second: float  # of a large matrix product in the same precision, measured right after
    peak_copy_bytes_per_second: float  # read plus written, of a copy within the device's memory
    fraction: float  # flops_per_second over the peak


@dataclass
class Peer:
    """Another implementation of the same work, measured in turns with ours in the order ours, theirs, theirs, ours,
    after the row's own blocks."""

    name: str
    clock: str = ""  # which was read: the processor's time on a CPU with one thread, otherwise the row's
    steps_per_block: int = 0
    our_seconds: list[float] = field(default_factory=list)  # of each block
    their_seconds: list[float] = field(default_factory=list)
    times_as_fast: PairedRatio | None = None  # ours against theirs; null where theirs failed
    facts: dict[str, Any] = field(default_factory=dict)  # what its steps did
    note: str = ""  # why it could not be measured


@dataclass
class Measurement:
    """One row."""

    case: Case
    state: str  # "measured", or why not: "memory", "unsupported", "time", "failed"
    note: str = ""
    images_per_second: Summary | None = None  # over blocks, of all devices together
    step_seconds: Summary | None = None  # over blocks
    block_seconds: list[float] = field(default_factory=list)
    steps_per_block: int | None = None
    warmup: Warmup | None = None
    latency: Latency | None = None  # infer
    split: Split | None = None
    work: Work | None = None
    telemetry: Telemetry | None = None
    peer: Peer | None = None
    peak_memory: dict[str, int] = field(default_factory=dict)  # bytes, by what is counted; of the fullest process
    facts: dict[str, Any] = field(default_factory=dict)  # what the step did: detections, positive RoIs, loss ...
    settings: dict[str, Any] = field(default_factory=dict)  # TF32, cuDNN autotuning, compile, what is included ...
    others_cpu: float | None = None  # share of the machine's cores that others used during the blocks
    warnings: list[str] = field(default_factory=list)

    @property
    def label(self) -> str:
        return self.case.label


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


def measured(case: Case, answer: dict[str, Any]) -> Measurement:
    """A row from the answer of the process that measured it."""
    timing = Timing(Warmup(**answer["warmup"]), answer["steps_per_block"], answer["block_seconds"])
    images = case.batch * case.devices
    telemetry = Telemetry(**answer["telemetry"])
    if telemetry.energy_joules is not None:
        steps = timing.steps_per_block * len(timing.block_seconds)
        telemetry.joules_per_image = telemetry.energy_joules / (steps * case.batch)
    return Measurement(
        case,
        state="measured",
        images_per_second=summarise(timing.rates(images)),
        step_seconds=timing.step_seconds,
        block_seconds=timing.block_seconds,
        steps_per_block=timing.steps_per_block,
        warmup=timing.warmup,
        latency=latency(answer["latency"]) if answer["latency"] else None,
        split=None if answer["split"] is None else Split(**answer["split"]),
        work=None if answer["work"] is None else _work(answer["work"], case, timing),
        telemetry=telemetry,
        peer=None if answer.get("peer") is None else _peer(answer["peer"]),
        peak_memory=answer["peak_memory"],
        facts=answer["facts"],
        settings=answer["settings"],
        others_cpu=answer["others_cpu"],
    )


def _peer(found: dict[str, Any]) -> Peer:
    peer = Peer(**found)
    if peer.our_seconds:
        peer.times_as_fast = paired_ratio(peer.our_seconds, peer.their_seconds)
    return peer


def _work(found: dict[str, float], case: Case, timing: Timing) -> Work:
    rate = found["flops"] / timing.step_seconds.median
    return Work(
        flops_per_image=found["flops"] / case.batch,
        flops_per_second=rate,
        peak_flops_per_second=found["peak_flops"],
        peak_copy_bytes_per_second=found["peak_copy"],
        fraction=rate / found["peak_flops"],
    )


def write(path: Path, record: Record) -> None:
    """Replaces `path` atomically. Raises UserError where it cannot be written."""
    write_json(path, asdict(record))


def read(path: Path) -> Record:
    """Raises UserError where the file is missing, damaged, or of another protocol."""
    found = read_any(path)
    if found.protocol != PROTOCOL:
        raise UserError(
            f"{path} is not a benchmark record of protocol {PROTOCOL}",
            f"It states protocol {found.protocol}: measure again.",
        )
    return found


def read_any(path: Path) -> Record:
    """Of whatever protocol, if its fields are as today's. Raises UserError where the file is no such record."""
    try:
        found = read_json(path)
    except UserError as error:
        if isinstance(error.__cause__, OSError):
            raise
        raise UserError(
            f"{path} is not a benchmark record: it is not JSON", "mrbench gpu-bench writes them."
        ) from error
    if found is None:
        raise UserError(f"There is no {path}")
    try:
        return _record(found)
    except (TypeError, KeyError, AttributeError) as error:
        protocol = found.get("protocol") if isinstance(found, dict) else None
        raise UserError(
            f"{path} is not a benchmark record of protocol {PROTOCOL}",
            f"It states protocol {protocol}: measure again." if protocol else "mrbench gpu-bench writes them.",
        ) from error


def _record(found: dict[str, Any]) -> Record:
    return Record(
        **{
            **found,
            "plan": _plan(found["plan"]),
            "measurements": [_measurement(m) for m in found["measurements"]],
            "searches": [_search(s) for s in found["searches"]],
        }
    )


def is_finished(path: Path) -> bool:
    """Whether `path` holds something that must not be written over: anything but an unfinished record."""
    try:
        return read(path).state != "running"
    except UserError:
        return True


def _plan(found: dict[str, Any]) -> Plan:
    of_cases = {name: [Case(**case) for case in found.get(name, [])] for name in ("cases", "left_out")}
    return Plan(**{**found, **of_cases})


def _search(found: dict[str, Any]) -> Search:
    worst = None if found["worst"] is None else Worst(**found["worst"])
    tries = [Try(**one) for one in found["tries"]]
    return Search(**{**found, "case": Case(**found["case"]), "worst": worst, "tries": tries})


def _measurement(found: dict[str, Any]) -> Measurement:
    kinds: dict[str, Any] = {
        "case": Case,
        "images_per_second": Summary,
        "step_seconds": Summary,
        "warmup": Warmup,
        "latency": Latency,
        "split": Split,
        "work": Work,
        "telemetry": Telemetry,
    }
    typed = {name: kind(**found[name]) for name, kind in kinds.items() if found[name] is not None}
    if peer := found.get("peer"):
        times = peer["times_as_fast"]
        typed["peer"] = Peer(**{**peer, "times_as_fast": None if times is None else PairedRatio(**times)})
    return Measurement(**{**found, **typed})
