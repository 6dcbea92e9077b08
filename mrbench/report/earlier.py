"""What a folder holds of an earlier report: another study's is not written over, and the same one's leaves nothing
stale behind."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mrbench.errors import UserError
from mrbench.report.collect import Study
from mrbench.runs.files import cannot_write, read_json

_CHART = re.compile(r"\]\(charts/([^/)]+)\.png\)")
TABLES = ("accuracy", "published", "cost", "runs", "detail")  # that a report writes as CSV


def check_folder(folder: Path, study: Study) -> None:
    """Raises UserError where the folder's report.json is of other runs: numbers that nobody asked to replace."""
    earlier = _runs(read_json(folder / "report.json"))
    if earlier and earlier.isdisjoint(run.run_id for run in study.runs):
        raise UserError(
            f"'{folder}' holds a report of other runs: none of {study.name!r} is in its report.json.",
            "Choose another folder with --out, another root with --root, or remove that report.",
        )


def stale(folder: Path, study: Study) -> tuple[set[Path], set[Path]]:
    """The charts and CSV tables in the folder that an earlier report of the same study may have written: charts are
    those that its report.md shows."""
    content = read_json(folder / "report.json")
    if not isinstance(content, dict) or content.get("study") != study.name:
        return set(), set()
    page = folder / "report.md"
    names = _CHART.findall(page.read_text(encoding="utf-8", errors="replace")) if page.is_file() else []
    charts = {folder / "charts" / f"{name}{suffix}" for name in names for suffix in (".svg", ".png")}
    return charts, {folder / f"{name}.csv" for name in TABLES}


def remove(files: Iterable[Path]) -> None:
    for file in files:
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            raise cannot_write(file, error) from error


def _runs(content: Any) -> set[str]:
    """The runs that a report.json names; none where it is not of this form."""
    rows = content.get("runs") if isinstance(content, dict) else None
    return {row["run"] for row in rows or () if isinstance(row, dict) and row.get("run")}
