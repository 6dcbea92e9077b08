"""A table of many rows, quickly: columns as wide as they need to be, folded where the terminal is narrower."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest

import typer

GAP = 2
NARROWEST = 10  # characters of a column that is folded


def terminal_width() -> int | None:
    """Columns to fit into; None where the output goes to a file or another program."""
    if not sys.stdout.isatty() and "COLUMNS" not in os.environ:
        return None
    import shutil

    return shutil.get_terminal_size().columns


def fitting(columns: Sequence[Sequence[str]]) -> bool:
    """Whether the columns (each with its title) fit side by side without a fold."""
    width = terminal_width()
    return width is None or sum(_widths(columns)) + GAP * (len(columns) - 1) <= width


def _widths(columns: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column), default=0) for column in columns]


def lines(
    titles: Sequence[str],
    rows: Sequence[Sequence[str]],
    left: Sequence[bool],
    colours: Mapping[int, Sequence[str | None]] | None = None,
    whole: Sequence[int] = (),
) -> Iterator[str]:
    """The table's lines. `left`: which columns are set to the left; `colours`: of a column's cells, row by row.

    Where it is too wide the widest of the columns set to the left are folded, never cut, but for those of `whole`.
    """
    widths = _widths([[title, *(row[i] for row in rows)] for i, title in enumerate(titles)])
    room = terminal_width()
    if room is not None:
        _narrow(widths, [to_left and i not in whole for i, to_left in enumerate(left)], room)
    yield from _row(titles, widths, left, ["bold"] * len(titles))
    for number, row in enumerate(rows):
        own = [colours[i][number] if colours and i in colours else None for i in range(len(titles))]
        yield from _row(row, widths, left, own)


def _narrow(widths: list[int], folded: Sequence[bool], room: int) -> None:
    """Takes from the widest of the columns that may be folded until all fit, or no more can be taken."""
    while (over := sum(widths) + GAP * (len(widths) - 1) - room) > 0:
        wide = [i for i, width in enumerate(widths) if folded[i] and width > NARROWEST]
        if not wide:
            return
        widest = max(wide, key=lambda i: widths[i])
        second = max((widths[i] for i in wide if i != widest), default=NARROWEST)
        widths[widest] -= max(1, min(over, widths[widest] - max(second, NARROWEST)))


def _row(
    cells: Sequence[str], widths: Sequence[int], left: Sequence[bool], styles: Sequence[str | None]
) -> Iterator[str]:
    folded = [[text] if len(text) <= width else _fold(text, width) for text, width in zip(cells, widths, strict=True)]
    for parts in zip_longest(*folded, fillvalue=""):
        line = []
        for part, width, to_left, style in zip(parts, widths, left, styles, strict=True):
            padded = part.ljust(width) if to_left else part.rjust(width)
            line.append(_styled(padded, style) if style and part else padded)
        yield (" " * GAP).join(line).rstrip()


def _fold(text: str, width: int) -> list[str]:
    return [text[i : i + width] for i in range(0, len(text), max(1, width))]


def _styled(text: str, style: str) -> str:
    """With colour codes, which typer takes out again where the output is no terminal."""
    return typer.style(text, bold=True) if style == "bold" else typer.style(text, fg=style)
