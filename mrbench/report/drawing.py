"""The charts of a report, each drawn once: for the page and for the files beside the Markdown."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mrbench.report import charts, charts_cost, charts_curves, charts_detail, charts_factor
from mrbench.report.build import Report, charted
from mrbench.report.charts import Chart


@dataclass(frozen=True)
class Drawing:
    """Charts by subject and by the name of their file; those that have nothing to show are left out. `report` has the
    arms that they show (`build.charted`)."""

    report: Report
    factors: Mapping[str, Chart]
    curves: Mapping[str, Chart]
    cost: Mapping[str, Chart]
    detail: Mapping[str, Chart]


def draw(report: Report) -> Drawing:
    """What page and files share. Accuracy is not in it: the page has a chart for each metric, a file has them all."""
    shown = charted(report)
    return Drawing(
        shown,
        factors=charts_factor.figures(shown),
        curves=charts_curves.figures(shown),
        cost=charts_cost.figures(shown),
        detail=charts_detail.figures(shown),
    )


def save(drawing: Drawing, folder: Path) -> list[Path]:
    """All charts as SVG and PNG; the files that were written."""
    report = drawing.report
    found: dict[str, Chart] = {}
    if any(summary.n for answer in report.answers for summary in answer.summaries.values()):
        found["accuracy"] = Chart(charts.accuracy(report), "Accuracy by arm.")
        if any(change.mean is not None for answer in report.answers for change in answer.differences.values()):
            found["differences"] = Chart(charts.differences(report), f"Accuracy less {report.study.baseline}'s.")
    for part in (drawing.factors, drawing.curves, drawing.cost, drawing.detail):
        found |= part
    for name, chart in found.items():
        charts.save(chart, folder / name)
    return [folder / f"{name}{suffix}" for name in found for suffix in (".svg", ".png")]
