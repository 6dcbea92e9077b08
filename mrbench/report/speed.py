"""What benchmark records say, gathered for tables and charts, and the published figures that can stand beside them."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from mrbench.bench.exporting import hardware_name
from mrbench.bench.matrix import Case
from mrbench.bench.record import Measurement, Record, read
from mrbench.report.published import SpeedRow, sources, speed

PRECISIONS = ("fp32", "tf32", "fp16", "bf16")
NAMES = {"FP32": "fp32", "TF32": "tf32", "FP16": "fp16", "AMP": "fp16 (AMP)", "mixed": "fp16 (mixed)"}
OTHER_NETWORKS = ("GN", "SyncBN", "scratch", "LSJ")
MOST_GPUS = 8  # of a published figure: more are about the network between machines
PICTURES = "COCO's pictures, short edge 800"


@dataclass(frozen=True)
class Source:
    """What a source's figures are of: `start` of its name in speed.csv, its key in sources.csv, what is timed."""

    start: str
    key: str
    timed: str


# As the notes in speed.csv say it.
SOURCES = (
    Source("Mask R-CNN paper", "maskrcnn2017", "whole training; testing without resizing the outputs"),
    Source("detectron2/docs/notes/benchmarks", "d2benchmarks", "training with its loader, iterations 100 to 500"),
    Source("detectron2/", "d2modelzoo", "whole training with its loader"),
    Source("NVIDIA DLE PyTorch", "nvidia_dle", "training with its loader, 500 iterations with the warm-up"),
    Source("NVIDIA DLE TF2", "nvidia_dle", "training with its loader, 200 steps after 100"),
    Source("lambdal/", "lambda", "training with its loader, 200 or 400 iterations, learning rate 0"),
    Source("mlcommons/", "mlperf", "whole training to a target accuracy with its loader, mean of the logs"),
    Source("tensorpack/", "tensorpack", "training with its loader"),
)
MLPERF_YEARS = {"results_v1.1": "2021", "results_v2.1": "2022", "results_v3.0": "2023"}
UNKNOWN = Source("", "survey", "training, as its table has it")


@dataclass(frozen=True)
class Ours:
    """One measured row with what it was measured on."""

    hardware: str
    inputs: str
    case: Case
    row: Measurement

    @property
    def rate(self) -> float:
        assert self.row.images_per_second is not None
        return self.row.images_per_second.mean


@dataclass(frozen=True)
class Theirs:
    """One published throughput of Mask R-CNN R50-FPN."""

    source: str
    model: str
    hardware: str
    gpus: int
    precision: str
    batch: float | None  # images a GPU
    per_gpu: float  # images a second
    mode: str
    timed: str
    when: str  # the year it is from


def read_records(paths: Sequence[Path]) -> dict[str, Record]:
    """Each by the name of its file, or where another has the same by its path. Raises UserError for what is no record
    of today's protocol."""
    names = [path.name for path in dict.fromkeys(paths)]
    return {path.name if names.count(path.name) == 1 else str(path): read(path) for path in paths}


def measured(records: Iterable[Record]) -> list[Ours]:
    """Every row that has a figure."""
    return [
        Ours(hardware_name(record), record.plan.inputs, row.case, row)
        for record in records
        for row in record.measurements
        if row.images_per_second is not None
    ]


def best(rows: Sequence[Ours]) -> list[Ours]:
    """Of rows that differ in their batch only, and of one device, the one with the most images a second."""
    found: dict[Any, Ours] = {}
    for row in rows:
        key = row.hardware, row.inputs, repr(replace(row.case, batch=0))
        if row.case.devices == 1 and (key not in found or row.rate > found[key].rate):
            found[key] = row
    return list(found.values())


def group_name(hardware: str, case: Case, rows: Sequence[Ours]) -> str:
    """What is the same for bars of several precisions, without what is the same everywhere."""
    words = [hardware]
    if len({row.case.model for row in rows}) > 1:
        words.append(case.model)
    if len({tuple(row.case.image_size or ()) for row in rows}) > 1 and case.image_size:
        words.append("x".join(map(str, case.image_size)))
    words += ["channels-last"] * case.channels_last + ["compiled"] * case.compile
    return ", ".join(words)


def is_r50_fpn(config_yaml: str) -> bool:
    """Whether it is the network of the public tables: Mask R-CNN on a ResNet-50 with FPN, frozen batch norm, two fully
    connected layers for boxes and four convolutions for masks, at its usual widths."""
    model = yaml.safe_load(config_yaml)["model"]
    body, neck, head, mask = (model[part] for part in ("backbone", "neck", "box_head", "mask_head"))
    return (
        (body["kind"], body["depth"], body["width"], body["groups"]) == ("resnet", 50, 64, 1)
        and (body["norm"], neck["norm"], head["norm"], mask["norm"]) == ("frozen_bn", "none", "none", "none")
        and not (body["deformable"] or body["non_local"] or body["dilated_c5"])
        and (neck["kind"], neck["channels"], model["rpn"]["mode"]) == ("fpn", 256, "joint")
        and (head["kind"], head["convs"], head["fcs"], head["fc_channels"]) == ("fc", 0, 2, 1024)
        and not head["cascade"]
        and mask["enabled"]
        and (mask["kind"], mask["convs"], mask["channels"]) == ("fcn", 4, 256)
        and not model["keypoint_head"]["enabled"]
    )


def comparable(records: Sequence[Record]) -> list[Ours]:
    """Our rows beside which published ones can stand: R50-FPN, training or detection, one device, the best batch."""
    with_it = [
        replace_cases(record, [m for m in record.measurements if is_r50_fpn(record.plan.configs[m.case.model])])
        for record in records
    ]
    return [row for row in best(measured(with_it)) if row.case.mode in ("train", "infer")]


def replace_cases(record: Record, rows: list[Measurement]) -> Record:
    return replace(record, measurements=rows)


@cache
def published() -> tuple[Theirs, ...]:
    """Every published figure of R50-FPN on at most eight GPUs; the model zoo's test times too."""
    found: list[Theirs] = []
    for row in speed():
        if "R50-FPN" not in row.model or any(word in row.model for word in OTHER_NETWORKS) or not row.gpus:
            continue
        if row.images_per_second is not None and row.gpus <= MOST_GPUS:
            mode = "infer" if "inference" in row.model else "train"
            found.append(_theirs(row, mode, row.images_per_second / row.gpus, row.gpus, _batch(row)))
        waited = re.search(r"\binf (\d\.\d+)", row.note)
        if waited and row.source.startswith("detectron2/"):
            found.append(_theirs(row, "infer", 1 / float(waited[1]), 1, 1.0))
    return tuple(found)


def _theirs(row: SpeedRow, mode: str, per_gpu: float, gpus: int, batch: float | None) -> Theirs:
    source = next((s for s in SOURCES if row.source.startswith(s.start)), UNKNOWN)
    timed = source.timed if mode == "train" else "testing, one batch after the other"
    precision = NAMES.get(row.precision, row.precision)
    return Theirs(
        row.source, row.model, row.hardware, gpus, precision, batch, per_gpu, mode, timed, _when(row, source)
    )


def _when(row: SpeedRow, source: Source) -> str:
    """The year of the log where the row names one, of the release of MLPerf, or of the source."""
    if found := re.search(r"\b\d\d-\d\d-(20\d\d)_", row.note):
        return found[1]
    for release, year in MLPERF_YEARS.items():
        if release in row.source:
            return year
    year_of = {key: one.year for key, one in sources().items()}
    return f"by {year_of['survey']}" if source is UNKNOWN else str(year_of[source.key])


def _batch(row: SpeedRow) -> float | None:
    """Images a GPU; the files count a whole step's, but where they write otherwise."""
    if found := re.fullmatch(r"(\d+)/GPU", row.batch):
        return float(found[1])
    return float(row.batch) / (row.gpus or 1) if row.batch.isdigit() else None


def typical(rows: Sequence[Theirs], ours: Sequence[Ours]) -> list[Theirs]:
    """Few enough to read: of each source, kind of GPU and precision the fastest, and of Lambda's many GPUs only those
    of our kind, or else an A100 and a V100."""
    own = {word for one in ours for word in re.findall(r"[a-z]+\d+", one.hardware.lower())}
    theirs = [row.hardware.lower() for row in rows if row.source.startswith("lambdal/")]
    wanted = [kind for kind in own if any(kind in name for name in theirs)] or ["a100_80gb_sxm4", "v100"]
    found: dict[tuple[str, ...], Theirs] = {}
    for row in rows:
        other = row.gpus > 1 or not any(kind in row.hardware.lower() for kind in wanted)
        if row.source.startswith("lambdal/") and other:
            continue
        key = row.source, _family(row.hardware), row.precision, row.mode
        if key not in found or row.per_gpu > found[key].per_gpu:
            found[key] = row
    return sorted(found.values(), key=lambda row: -row.per_gpu)


def _family(hardware: str) -> str:
    found = re.search(r"[A-Z]+\d+", hardware)
    return found[0] if found else hardware


def differences(theirs: Theirs, ours: Ours) -> list[str]:
    """What else was not the same, besides the program: pictures, what is timed, batch, precision, GPUs, year."""
    case = ours.case
    size = "x".join(map(str, case.image_size)) if case.image_size else "of the data set"
    pictures = "the data set's" if ours.inputs == "data" else "synthetic"
    found = [f"{PICTURES}; ours {pictures}, {size}"]
    if theirs.mode == "train":
        found.append(f"{theirs.timed}; ours without loading")
    if theirs.batch is not None and theirs.batch != case.batch:
        found.append(f"batch {theirs.batch:g} a GPU; ours {case.batch}")
    elif theirs.batch is None:
        found.append(f"batch not stated; ours {case.batch}")
    if theirs.precision.partition(" ")[0] != case.precision:
        found.append(f"{theirs.precision}; ours {case.precision}")
    if theirs.gpus > 1:
        found.append(f"a share of {theirs.gpus} GPUs; ours one")
    if _family(theirs.hardware).lower() not in ours.hardware.lower():
        found.append(f"{theirs.hardware}; ours {ours.hardware}")
    return [*found, f"from {theirs.when}"]


def nearest(theirs: Theirs, ours: Sequence[Ours]) -> Ours | None:
    """Ours of the same mode, and of the same precision and 800 x 1333 where there is one."""
    same_mode = [row for row in ours if row.case.mode == theirs.mode]
    return max(
        same_mode,
        key=lambda row: (
            row.case.precision == theirs.precision.partition(" ")[0],
            row.case.image_size == [800, 1333],
            row.rate,
        ),
        default=None,
    )
