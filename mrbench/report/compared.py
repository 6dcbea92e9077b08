"""Two runs side by side as files: their metrics, and what was not the same."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mrbench.report import formats, latex, words
from mrbench.report.side_by_side import SideBySide, Value
from mrbench.report.table import Cell, Column, Row, Table

FILES = {"markdown": "compare.md", "csv": "compare.csv", "json": "compare.json", "latex": "compare.tex"}
FORMATS = ("terminal", *FILES)


@dataclass(frozen=True)
class Compared:
    """`result` of two runs, which are called `names`; the settings and the surroundings in which they differ, each
    with the value of either."""

    result: SideBySide
    names: tuple[str, str]
    configuration: Mapping[str, tuple[Any, ...]]
    environment: Mapping[str, tuple[Any, ...]]


def level(value: Value) -> str:
    """`26.6 [25.1, 28.0]`: with the interval over test images."""
    return _within(words.number(value.value, 1), *(words.number(end, 1) for end in (value.low, value.high)))


def change(value: Value) -> str:
    """`+1.2 [−0.3, +2.6]`."""
    return _within(words.signed(value.value, 1), *(words.signed(end, 1) for end in (value.low, value.high)))


def _within(text: str, low: str, high: str) -> str:
    return text if words.NOTHING in (low, high) else f"{text} [{low}, {high}]"


def metrics(compared: Compared) -> Table:
    """A row for each metric: the first run, the second, and the second less the first."""
    columns = (
        Column("metric", ("metric",)),
        Column(compared.names[0], ("first", "first_low", "first_high"), numeric=True),
        Column(compared.names[1], ("second", "second_low", "second_high"), numeric=True),
        Column("difference", ("difference", "difference_low", "difference_high"), numeric=True),
    )
    rows = []
    for name, values in compared.result.metrics.items():
        if any(value.value is not None for value in values):
            own = [(level(value), value) for value in values]
            difference = compared.result.differences[name][0]
            cells = [Cell(text, (v.value, v.low, v.high)) for text, v in (*own, (change(difference), difference))]
            rows.append(Row((Cell(words.metric_name(name), (name,)), *cells)))
    return Table("compare", "Metrics", columns, tuple(rows))


def _different(name: str, title: str, names: Sequence[str], values: Mapping[str, tuple[Any, ...]]) -> Table:
    columns = (Column(title, ("key",)), Column(names[0], ("first",)), Column(names[1], ("second",)))
    texts = {key: [formats.one_line(str(value)) for value in both] for key, both in values.items()}
    rows = [Row(tuple(Cell(text, (text,)) for text in (key, *both))) for key, both in texts.items()]
    return Table(name, title, columns, tuple(rows))


def text(compared: Compared, kind: str) -> str:
    """One of the formats that are files. CSV and LaTeX have the metrics, the others the settings too."""
    makers = {
        "markdown": lambda: _markdown(compared),
        "csv": lambda: formats.comma_separated(metrics(compared)),
        "json": lambda: _json(compared),
        "latex": lambda: latex.tabular(metrics(compared)),
    }
    return makers[kind]()


def _markdown(compared: Compared) -> str:
    result, names = compared.result, compared.names
    parts = [f"# {formats.markdown_escape(' and '.join(result.runs))}"]
    parts.append(formats.markdown(metrics(compared)).strip())
    notes = ["What another seed would have done is not in these numbers."]
    if result.resamples:
        notes[:0] = [f"In brackets: 95 % over {result.images} test images, drawn anew {result.resamples} times."]
    parts.append("\n".join(f"- {formats.markdown_escape(note)}" for note in (*notes, *result.problems)))
    for title, values in (("configuration", compared.configuration), ("environment", compared.environment)):
        same = f"The {title} is the same."
        parts.append(formats.markdown(_different(title, title, names, values)).strip() if values else same)
    return "\n\n".join(parts) + "\n"


def _json(compared: Compared) -> str:
    content = {
        **asdict(compared.result),
        "configuration": [{"key": key, "values": list(values)} for key, values in compared.configuration.items()],
        "environment": [{"key": key, "values": list(values)} for key, values in compared.environment.items()],
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
