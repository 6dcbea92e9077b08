"""The numbers of the literature in results/published: accuracy, speed, spread over seeds, and where they come from.

Four CSV files, read with the standard library. Accuracy rows have an id (`lsj/table/gn`) by which an arm of a
study names the number that it is to be compared with.
"""

import csv
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mrbench.config.paths import published_dir
from mrbench.config.suggest import did_you_mean
from mrbench.errors import UserError

OOM = "OOM"  # in speed.csv, in place of a throughput
KINDS = ("box", "mask", "kp")
_PREFIX = {"box": "box", "mask": "mask", "kp": "keypoint"}  # the files' prefix -> ours
_CHANGE = re.compile(r"published change ([+-]?\d+(?:\.\d+)?)\s*/\s*([+-]?\d+(?:\.\d+)?)")


@dataclass(frozen=True)
class AccuracyRow:
    """One published result. Metrics in percent under our names (`box/AP`), only those that were published."""

    id: str
    source: str
    where: str
    architecture: str
    change: str
    train: str
    test: str
    metrics: dict[str, float]
    note: str

    @property
    def table(self) -> str:
        """The id without its last part: rows of one table share it, and a common baseline."""
        return self.id.rpartition("/")[0]

    @property
    def published_change(self) -> dict[str, float]:
        """Change of box and mask AP against the table's baseline where the source prints one (rounded by it)."""
        found = _CHANGE.search(self.note)
        return {"box/AP": float(found[1]), "mask/AP": float(found[2])} if found else {}


@dataclass(frozen=True)
class SpeedRow:
    """One published throughput. Where a source says it in words, `batch` is that text.

    `out_of_memory`: the source tried that batch and it did not fit.
    """

    source: str
    model: str
    hardware: str
    gpus: int | None
    precision: str
    batch: str
    images_per_second: float | None
    seconds_per_iteration: float | None
    out_of_memory: bool
    note: str


@dataclass(frozen=True)
class SeedRow:
    """One evaluation of one public MLPerf run of Mask R-CNN R50-FPN; runs of one recipe differ by the seed."""

    batch_size: int
    base_lr: float
    lr_decay_steps: str
    warmup_steps: int
    release: str
    submitter: str
    system: str
    run: int
    epoch: int
    box_ap: float
    mask_ap: float

    @property
    def recipe(self) -> tuple[int, float, str, int]:
        return self.batch_size, self.base_lr, self.lr_decay_steps, self.warmup_steps

    @property
    def diverged(self) -> bool:
        """A few public runs ended with no detection at all; a spread over seeds must not take them for noise."""
        return self.box_ap == 0


@dataclass(frozen=True)
class Source:
    source: str
    title: str
    year: int
    what: str


def _rows(name: str, folder: Path | None) -> list[dict[str, str]]:
    path = (folder or published_dir()) / name
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))
    except OSError as error:
        raise UserError(f"Cannot read the published numbers in {path}: {error.strerror}.") from error


def _number(text: str) -> float | None:
    return float(text) if text.strip() else None


@cache
def accuracy(folder: Path | None = None) -> dict[str, AccuracyRow]:
    """All rows of accuracy.csv by id, in the file's order."""
    found = {}
    for row in _rows("accuracy.csv", folder):
        metrics = {
            f"{_PREFIX[kind]}/{metric}": float(text)
            for column, text in row.items()
            if text and (kind := column.partition("_")[0]) in KINDS and (metric := column.partition("_")[2])
        }
        plain = {key: row[key] for key in ("id", "source", "where", "architecture", "change", "train", "test", "note")}
        found[row["id"]] = AccuracyRow(metrics=metrics, **plain)
    return found


@cache
def speed(folder: Path | None = None) -> tuple[SpeedRow, ...]:
    """All rows of speed.csv."""
    return tuple(
        SpeedRow(
            source=row["source"],
            model=row["model"],
            hardware=row["hardware"],
            gpus=int(row["gpus"]) if row["gpus"].strip() else None,
            precision=row["precision"],
            batch=row["batch"],
            images_per_second=None if row["images_per_s"] == OOM else _number(row["images_per_s"]),
            seconds_per_iteration=_number(row["s_per_iter"]),
            out_of_memory=row["images_per_s"] == OOM,
            note=row["note"],
        )
        for row in _rows("speed.csv", folder)
    )


@cache
def seed_variance(folder: Path | None = None) -> tuple[SeedRow, ...]:
    """All rows of seed_variance.csv."""
    return tuple(
        SeedRow(
            batch_size=int(row["batch_size"]),
            base_lr=float(row["base_lr"]),
            lr_decay_steps=row["lr_decay_steps"],
            warmup_steps=int(row["warmup_steps"]),
            release=row["release"],
            submitter=row["submitter"],
            system=row["system"],
            run=int(row["run"]),
            epoch=int(row["epoch"]),
            box_ap=float(row["box_AP"]),
            mask_ap=float(row["mask_AP"]),
        )
        for row in _rows("seed_variance.csv", folder)
    )


@cache
def sources(folder: Path | None = None) -> dict[str, Source]:
    """What the short names in accuracy.csv's `source` column stand for."""
    return {
        row["source"]: Source(row["source"], row["title"], int(row["year"]), row["what"])
        for row in _rows("sources.csv", folder)
    }


def lookup(row_id: str) -> AccuracyRow:
    """The accuracy row of that id; UserError with the nearest ids where there is none."""
    rows = accuracy()
    if row_id not in rows:
        hint = did_you_mean(row_id, rows, "The first column of results/published/accuracy.csv lists them.")
        raise UserError(f"There is no published row {row_id!r}.", hint)
    return rows[row_id]


def change(row_id: str, baseline_id: str | None, metric: str) -> float | None:
    """The published change of `metric` from the baseline's row to this row, in points; None where not published.

    The change that the source prints is preferred, because it was taken before rounding; it counts only where
    the study's baseline is a row of the same table.
    """
    if baseline_id is None or row_id == baseline_id:
        return None
    row, baseline = lookup(row_id), lookup(baseline_id)
    if row.table == baseline.table and not baseline.published_change and metric in row.published_change:
        return row.published_change[metric]
    if metric in row.metrics and metric in baseline.metrics:
        return round(row.metrics[metric] - baseline.metrics[metric], 6)
    return None
