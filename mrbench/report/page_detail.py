"""The page's section on where arms differ: errors, sizes, IoU thresholds, classes."""

from html import escape

from mrbench.report import charts, charts_detail, detail_table, formats
from mrbench.report.build import Report
from mrbench.report.table import Table

OPEN_UP_TO = 40  # rows of a table that is not folded away


def render(report: Report) -> str:
    """A section, or nothing where no run says anything of the kind and none is expected to."""
    notes = detail_table.notes(report.detail)
    if not notes:
        return ""
    found = detail_table.overviews(report)
    classes = detail_table.classes(report)
    figures = [
        f"<figure>\n{charts.inline_svg(figure, name, caption)}\n<figcaption>{escape(caption)}</figcaption>\n</figure>"
        for name, (figure, caption) in charts_detail.figures(report).items()
    ]
    return "\n".join(
        [
            '<section aria-labelledby="detail">',
            '<h2 id="detail">Where the arms differ</h2>',
            *(f'<p class="note">{escape(line)}</p>' for line in notes),
            f'<div class="charts">\n{"".join(figures)}\n</div>' if figures else "",
            *(_folded(table) for table in [*found, *([classes] if classes else [])]),
            "</section>",
        ]
    )


def _folded(table: Table) -> str:
    opened = " open" if len(table.rows) <= OPEN_UP_TO else ""
    return f"<details{opened}><summary>{escape(table.title)}</summary>\n{formats.html(table, '')}\n</details>"
