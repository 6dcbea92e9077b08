"""A benchmark's rows for spreadsheets and other programs: one flat line each, with what they were measured on."""

import csv
import io
from collections.abc import Sequence
from typing import Any

from mrbench.bench.matrix import of_search
from mrbench.bench.record import Measurement, Record
from mrbench.bench.statistics import Latency, Summary

PARTS = ("data", "copy", "backbone", "rpn", "roi_heads", "backward", "optimiser", "communication", "other")


def hardware_name(record: Record) -> str:
    """The GPU's, or without one the processor's."""
    return str(record.device.get("name") or record.provenance.get("hardware", {}).get("cpu") or "cpu")


def row_values(record: Record, row: Measurement) -> dict[str, Any]:
    """A row by column; seconds, bytes and images a second, None for what is not known."""
    case, packages = row.case, record.provenance.get("packages", {})
    rate: Summary | None = row.images_per_second
    waited: Latency | None = row.latency
    largest = next((s.largest for s in record.searches if s.case == of_search(case)), None)
    split = row.split.parts if row.split else {}
    times = row.peer.times_as_fast if row.peer else None
    low, high = rate.interval if rate and rate.interval else (None, None)
    values: dict[str, Any] = {
        "hardware": hardware_name(record),
        "threads": record.device.get("threads"),
        "torch": packages.get("torch"),
        "torchvision": packages.get("torchvision"),
        "cuda": record.device.get("cuda"),
        "protocol": record.protocol,
        "date": record.started[:10],
        "mode": case.mode,
        "model": case.model,
        "precision": case.precision,
        "batch": case.batch,
        "devices": case.devices,
        "height": case.image_size[0] if case.image_size else None,
        "width": case.image_size[1] if case.image_size else None,
        "channels_last": case.channels_last,
        "compile": case.compile,
        "state": row.state,
        "images_per_second": rate.mean if rate else None,
        "std": rate.std if rate else None,
        "low_95": low,
        "high_95": high,
        "median": rate.median if rate else None,
        "blocks": rate.count if rate else None,
        "step_seconds": row.step_seconds.median if row.step_seconds else None,
        "latency_p50": waited.p50 if waited else None,
        "latency_p90": waited.p90 if waited else None,
        "latency_p99": waited.p99 if waited else None,
        **{f"{part}_seconds": split.get(part) for part in PARTS},
        "peak_allocated": row.peak_memory.get("allocated"),
        "peak_reserved": row.peak_memory.get("reserved"),
        "peak_resident": row.peak_memory.get("resident"),
        "largest_batch": largest,
        "flops_per_image": row.work.flops_per_image if row.work else None,
        "fraction_of_peak": row.work.fraction if row.work else None,
        "joules_per_image": row.telemetry.joules_per_image if row.telemetry else None,
        "peer": row.peer.name if row.peer else None,
        "times_as_fast_as_peer": times.value if times else None,
        "warnings": "; ".join(row.warnings) or None,
        "note": row.note or None,
    }
    return values


def comma_separated(records: Sequence[Record]) -> str:
    """A header, and one line a row of all records."""
    lines = [row_values(record, row) for record in records for row in record.measurements]
    stream = io.StringIO()
    if lines:
        writer = csv.DictWriter(stream, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    return stream.getvalue()
