"""The report of benchmark records as files: Markdown with charts, CSV of the rows and of the published figures."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from mrbench.bench.comparing import check_comparable
from mrbench.bench.exporting import comma_separated
from mrbench.bench.matrix import label
from mrbench.bench.record import Measurement, Record
from mrbench.bench.telling import STATES, comparison_lines, heading, left_out_lines, number, search_text
from mrbench.errors import UserError
from mrbench.report import charts, charts_speed
from mrbench.report.formats import markdown_escape
from mrbench.report.speed import Ours, Theirs, comparable, differences, nearest, published, typical
from mrbench.runs.files import write_text

GIB = 2**30


def write(named: Mapping[str, Record], folder: Path) -> list[Path]:
    """speed.md with charts/ beside it, speed.csv, and published.csv where the literature has the same network. Raises
    UserError where the folder cannot be written."""
    records = list(named.values())
    figures = charts_speed.figures(records)
    texts = {"speed.md": markdown(named, {name: chart.caption for name, chart in figures.items()})}
    texts["speed.csv"] = comma_separated(records)
    if comparable(records):
        texts["published.csv"] = _published_csv()
    for name, content in texts.items():
        write_text(folder / name, content)
    for name, chart in figures.items():
        charts.save(chart, folder / "charts" / name)
    drawn = [folder / "charts" / f"{name}{suffix}" for name in figures for suffix in (".svg", ".png")]
    return [folder / name for name in texts] + drawn


def markdown(named: Mapping[str, Record], drawn: dict[str, str]) -> str:
    """The whole report, a section a file; `drawn` are charts in the folder charts/, each with its description."""
    records = list(named.values())
    parts = ["# Speed", "Measured by `mrbench gpu-bench`; docs/gpu-bench.md says what each figure is."]
    for name, record in named.items():
        parts += _of_record(name, record)
    if several := _not_alike(records):
        parts.append(f"Not all records were measured alike, so compare them with care: {several}")
    parts += [f"![{told}](charts/{name}.png)" for name, told in drawn.items() if name != "published"]
    parts += _beside_published(records, drawn)
    return "\n\n".join(part for part in parts if part) + "\n"


def _of_record(name: str, record: Record) -> list[str]:
    parts = [f"## {markdown_escape(f'{name}: {heading(record)}')}"]
    driver = ", ".join(f"{name} {record.device[name]}" for name in ("cuda", "cudnn") if record.device.get(name))
    known = [f"Protocol {record.protocol}", record.started[:10]] + [driver] * bool(driver)
    parts.append(markdown_escape(f"{', '.join(known)}{_lacking(record)}."))
    cases = [row.case for row in record.measurements]
    rows = [
        "| row | images/s | 95 % interval | spread | step, ms | peak memory, GiB |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    rows += [_line(row, label(row.case, cases)) for row in record.measurements]
    if record.measurements:
        parts.append("\n".join(rows))
    lines = [search_text(search, record.plan) for search in record.searches]
    lines += comparison_lines(record.measurements) + left_out_lines(record.plan, record.plan.largest_batch)
    lines += [f"Warning: {warning}" for warning in record.warnings]
    for row in record.measurements:
        lines += [f"Warning, {label(row.case, cases)}: {warning}" for warning in row.warnings]
    return [*parts, "\n".join(f"- {markdown_escape(line)}" for line in lines)]


def _lacking(record: Record) -> str:
    """What is not in the record, and why if it says so: refused rows, or an end before its time."""
    completed = record.state == "completed"
    if any(row.images_per_second for row in record.measurements) or (completed and not record.plan.cases):
        return "" if completed else "; interrupted: not all was measured"
    refusals = record.device.get("refusals") or {}
    whys = [row.note for row in record.measurements] + [search.note for search in record.searches]
    whys += [refusals.get(case.precision) or "" for case in record.plan.cases]
    told = "; ".join(dict.fromkeys(filter(None, whys)))
    return "; no row was measured" + (f": {told}" if told else "")


def _line(row: Measurement, title: str) -> str:
    rate, step = row.images_per_second, row.step_seconds
    if rate is None or step is None:
        return f"| {markdown_escape(title)} | {STATES[row.state]}: {markdown_escape(row.note)} | | | | |"
    within = " … ".join(number(bound) for bound in rate.interval) if rate.interval else ""
    spread = f"{100 * rate.spread:.1f} %" if rate.spread is not None else ""
    peak = row.peak_memory.get("allocated", row.peak_memory.get("resident"))
    held = f"{peak / GIB:.2f}" if peak is not None else ""
    return (
        f"| {markdown_escape(title)} | {number(rate.mean)} | {within} | {spread} | {1000 * step.median:.4g} | {held} |"
    )


def _not_alike(records: Sequence[Record]) -> str:
    for record in records[1:]:
        try:
            check_comparable(records[0], record)
        except UserError as error:
            return markdown_escape(error.what.partition(": ")[2]) + "."
    return ""


def _beside_published(records: Sequence[Record], drawn: dict[str, str]) -> list[str]:
    ours = comparable(records)
    if not ours:
        return [
            "## Beside the literature",
            "Nothing here stands beside it: the public tables are of Mask R-CNN R50-FPN "
            "(`model=mask_rcnn_r50_fpn`, `--mode train,infer`).",
        ]
    lines = ["| published | hardware | precision | images/s and GPU | ours | ours over theirs | what else differs |"]
    lines.append("|---|---|---|---:|---:|---:|---|")
    lines += [_published_line(row, ours) for row in typical(published(), ours) if nearest(row, ours)]
    parts = ["## Beside the literature"]
    parts.append(
        "No two of these figures are of the same protocol, so a ratio is no verdict on either program; the last "
        "column names what else differs. Ours is the fastest batch of the same mode, in the same precision where it "
        "was measured. Of each source, kind of GPU and precision the fastest is shown; published.csv has all."
    )
    if "published" in drawn:
        parts.append(f"![{drawn['published']}](charts/published.png)")
    return [*parts, "\n".join(lines)]


def _published_line(row: Theirs, ours: Sequence[Ours]) -> str:
    own = nearest(row, ours)
    assert own is not None
    cells = [f"{row.mode}: {row.source}", f"{row.hardware} ({row.gpus})", row.precision, number(row.per_gpu)]
    cells += [number(own.rate), f"{own.rate / row.per_gpu:.2f}", "; ".join(differences(row, own))]
    return "| " + " | ".join(markdown_escape(cell) for cell in cells) + " |"


def _published_csv() -> str:
    stream = io.StringIO()
    rows = [asdict(row) for row in published()]
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def summary(named: Mapping[str, Record]) -> str:
    """For the terminal: every record's rows in one line each, and what compares them."""
    lines = []
    for name, record in named.items():
        lines.append(f"{name}: {heading(record)}{_lacking(record)}")
        cases = [row.case for row in record.measurements]
        for row in record.measurements:
            rate = row.images_per_second
            if rate is None:
                told = f"{STATES[row.state]}: {row.note}"
            else:
                told = (
                    f"{number(rate.mean)}" + (f" ± {number(rate.std)}" if rate.std is not None else "") + " images/s"
                )
            lines.append(f"  {label(row.case, cases)}: {told}")
        lines += [f"  {line}" for line in comparison_lines(record.measurements)]
    return "\n".join(lines)
