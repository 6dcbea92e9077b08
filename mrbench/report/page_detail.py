"""The page's section on where arms differ: errors, sizes, IoU thresholds, classes."""

from collections.abc import Mapping
from html import escape

from mrbench.report import charts, detail_table, formats
from mrbench.report.build import Report
from mrbench.report.charts import Chart
from mrbench.report.table import Table

OPEN_UP_TO = 40  # rows of a table that is not folded away


def render(report: Report, drawn: Mapping[str, Chart]) -> str:
    """A section, or nothing where no run says anything of the kind and none is expected to."""
    notes = detail_table.notes(report.detail)
    if not notes:
        return ""
    found = detail_table.overviews(report)
    classes = detail_table.classes(report)
    shown = {name: figure(chart, name, chart.caption) for name, chart in drawn.items()}
    of_classes = [text for name, text in shown.items() if name.startswith("classes-")]
    others = [text for text in shown.values() if text not in of_classes]
    return "\n".join(
        [
            '<section aria-labelledby="detail">',
            '<h2 id="detail">Where the arms differ</h2>',
            *(f'<p class="note">{escape(line)}</p>' for line in notes),
            _charts(others),
            *(_folded(table) for table in [*found, *([classes] if classes else [])]),
            f"<details><summary>Classes, drawn</summary>\n{_charts(of_classes)}\n</details>" if of_classes else "",
            "</section>",
        ]
    )


def figure(chart: Chart, name: str, description: str) -> str:
    """A chart as the page has it, with its caption; the description is for those who do not see it."""
    svg = charts.inline_svg(chart, name, description)
    return f"<figure>\n{svg}\n<figcaption>{escape(chart.caption)}</figcaption>\n</figure>"


def _charts(figures: list[str]) -> str:
    return f'<div class="charts">\n{"".join(figures)}\n</div>' if figures else ""


def _folded(table: Table) -> str:
    opened = " open" if len(table.rows) <= OPEN_UP_TO else ""
    return f"<details{opened}><summary>{escape(table.title)}</summary>\n{formats.html(table, '')}\n</details>"
