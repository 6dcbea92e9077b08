"""The report on a terminal: what fits in 80 columns and answers the question."""

from rich.console import Console
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from mrbench.report import caveats, cost, detail_table, origin, table, words
from mrbench.report.build import Report
from mrbench.report.formats import grouped

STYLES = {"better": "green", "worse": "red", "baseline": "bold", "inside the noise": "dim", "too few seeds": "yellow"}
TERMINAL_CLASSES = 3  # at either end, of an arm
ROOMY = 110  # columns from which on the wide ones are shown


def show(report: Report, console: Console) -> None:
    """Prints title, answer, accuracy and cost tables, runs without a result, and what the intervals hold."""
    study = report.study
    console.print(Text(study.title, style="bold"))
    if study.question:
        console.print(Text(study.question, style="italic"))
    console.print()
    console.print(Text(words.headline(report)))
    console.print()
    _table(console, table.accuracy(report))
    for line in (*caveats.interval_notes(report), *caveats.settling(report)):
        console.print(Padding(Text(line, style="dim"), (0, 0, 0, 0)))
    console.print()
    if beside := table.published(report):
        console.print(Text(beside.title, style="bold"))
        _table(console, beside)
    _table(console, table.cost(report))
    for line in cost.notes(report):
        console.print(Text(line, style="dim"))
    for line in origin.warnings(study):
        console.print(Text(f"Not the same for all runs: {line}", style="yellow"))
    lines = words.problems(report)
    if lines:
        console.print(Text(f"{words.plural(len(lines), 'run')} without a result:", style="yellow"))
        for line in lines[:20]:
            console.print(Padding(Text(line), (0, 0, 0, 2)))
        if len(lines) > 20:
            console.print(f"  and {len(lines) - 20} more, in the table of runs")
        console.print()


def show_detail(report: Report, console: Console) -> None:
    """Prints what errors cost, AP by size, and the few classes that changed most."""
    for found in detail_table.overviews(report):
        if found.name != "thresholds":  # ten columns
            console.print(Text(found.title, style="bold"))
            _table(console, found)
    classes = detail_table.classes(report, TERMINAL_CLASSES)
    if classes is not None:
        console.print(Text(classes.title, style="bold"))
        _table(console, classes)
    for line in detail_table.notes(report.detail):
        console.print(Text(line, style="dim"))
    console.print()


def _table(console: Console, source: table.Table) -> None:
    roomy = console.width >= ROOMY
    shown = [i for i, column in enumerate(source.columns) if roomy or not column.wide]
    rich_table = RichTable(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold", show_edge=False)
    for i in shown:
        column = source.columns[i]
        rich_table.add_column(
            column.title,
            justify="right" if column.numeric else "left",
            overflow="fold",
            no_wrap=column.numeric,
            min_width=12 if i == 0 else None,
        )
    for heading, rows in grouped(source):
        if heading:
            rich_table.add_row(Text(heading, style="underline"))
        for row in rows:
            style = STYLES.get(row.mark, "")
            rich_table.add_row(*(Text(row.cells[i].text) for i in shown), style=style)
        if heading:
            rich_table.add_row("")
    console.print(rich_table)
    if not source.group:
        console.print()
