"""A table as text: Markdown, CSV and HTML."""

import csv
import io
import re
from html import escape

from mrbench.report.table import Cell, Column, Row, Table


def grouped(table: Table) -> list[tuple[str, list[Row]]]:
    """The rows under their headings, in order."""
    groups: dict[str, list[Row]] = {}
    for row in table.rows:
        groups.setdefault(row.group, []).append(row)
    return list(groups.items())


def one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def markdown_escape(text: str) -> str:
    """Plain text inside Markdown: pipes would end a cell; stars, underscores, brackets would be markup."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", one_line(text))


def markdown(table: Table) -> str:
    """GitHub's tables, one a group."""
    parts = []
    for heading, rows in grouped(table):
        lines = [f"**{markdown_escape(heading)}**", ""] if heading else []
        lines.append("| " + " | ".join(markdown_escape(column.title) for column in table.columns) + " |")
        lines.append("|" + "|".join("---:" if column.numeric else "---" for column in table.columns) + "|")
        lines += ["| " + " | ".join(markdown_escape(cell.text) for cell in row.cells) + " |" for row in rows]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def comma_separated(table: Table) -> str:
    """One header, one line a row, numbers at full precision, nothing for what is not known."""
    names = ([table.group] if table.group else []) + [name for column in table.columns for name in column.values]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: "" if value is None else value for key, value in row.items()} for row in table.records())
    return stream.getvalue()


def html(table: Table, caption: str) -> str:
    """A table that a screen reader can walk: caption, column and row headings with their scope."""
    width = len(table.columns)
    lines = [
        f'<div class="scroll" role="region" aria-label="{escape(table.title)}" tabindex="0">',
        f'<table class="{escape(table.name)}">',
        f"<caption>{escape(caption)}</caption>" if caption else "",
        "<thead><tr>",
        *(f'<th scope="col"{_classes(column)}>{escape(column.title)}</th>' for column in table.columns),
        "</tr></thead>",
    ]
    for heading, rows in grouped(table):
        lines.append("<tbody>")
        if heading:
            lines.append(f'<tr class="group"><th scope="rowgroup" colspan="{width}">{escape(heading)}</th></tr>')
        for row in rows:
            lines.append(f'<tr class="{escape(row.mark.replace(" ", "-"))}">' if row.mark else "<tr>")
            for position, (column, cell) in enumerate(zip(table.columns, row.cells, strict=True)):
                tag = 'th scope="row"' if position == 0 else "td"
                lines.append(f"<{tag}{_classes(column)}{_value(column, cell)}>{escape(cell.text)}</{tag.split()[0]}>")
            lines.append("</tr>")
        lines.append("</tbody>")
    return "\n".join([*filter(None, lines), "</table></div>"])


def _classes(column: Column) -> str:
    name = escape(column.values[0].replace("/", "-"))
    return f' class="{name}{" n" if column.numeric else ""}{" wide" if column.wide else ""}"'


def _value(column: Column, cell: Cell) -> str:
    """A number at full precision, by which the page sorts."""
    value = cell.values[0]
    return f' data-v="{value!r}"' if column.numeric and isinstance(value, int | float) else ""
