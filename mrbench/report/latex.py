"""A table for a paper: LaTeX in the manner of booktabs, no wider than a page's text where its cells can be broken."""

from itertools import combinations, pairwise

from mrbench.report.formats import grouped, one_line
from mrbench.report.table import Table

TEXT_WIDTH = 345.0  # points: article, 10 pt, one column
SET = r"\footnotesize\setlength{\tabcolsep}{4pt}"  # what the widths below are of
GAP = 8.0  # points between two columns
EM = 8.5  # points of a thousand units below, in cmr8 (units are those of cmr10, which is a sixteenth narrower)
MOST_LINES = 4  # of a cell
_UNITS = {
    **dict.fromkeys(".,:;il'", 278),
    **dict.fromkeys(" fjI-", 333),
    **dict.fromkeys("rst()_", 392),
    **dict.fromkeys("acegoz*†–/0123456789", 500),
    **dict.fromkeys("bdhknpquvxy", 556),
    **dict.fromkeys("mw%±−+<>=MW&", 833),
}
_OTHER = 740  # capitals, most of all
_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "±": r"$\pm$",
    "−": r"$-$",
    "–": "--",
    "†": r"$\dagger$",
    "×": r"$\times$",
}

Lines = list[str]


def escape(text: str) -> str:
    """Text that LaTeX prints as it stands; characters beyond Latin-1 that it may not have become question marks."""
    escaped = "".join(_LATEX.get(character, character) for character in text)
    return escaped.encode("latin-1", "replace").decode("latin-1")


def tabular(table: Table) -> str:
    """A `tabular` (\\usepackage{booktabs}), to be put into a table environment set as `SET` says.

    Where it would be wider than `TEXT_WIDTH` titles are broken, then cells, into up to `MOST_LINES` lines.
    """
    columns = [
        [one_line(text) for text in (column.title, *(row.cells[i].text for row in table.rows))]
        for i, column in enumerate(table.columns)
    ]
    sides = ["r" if column.numeric else "l" for column in table.columns]
    fitted = _fitted(columns)
    head, *body = [[_cell(*cell) for cell in zip(line, sides, strict=True)] for line in zip(*fitted, strict=True)]
    lines = [rf"\begin{{tabular}}{{@{{}}{''.join(sides)}@{{}}}}", r"\toprule", " & ".join(head) + r" \\"]
    texts = iter(body)
    for heading, rows in grouped(table):
        lines.append(r"\midrule")
        if heading:
            title = escape(one_line(heading))
            lines += [rf"\multicolumn{{{len(sides)}}}{{@{{}}l}}{{\emph{{{title}}}}} \\", r"\addlinespace[2pt]"]
        lines += [" & ".join(next(texts)) + r" \\" for _ in rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _cell(lines: Lines, side: str) -> str:
    if len(lines) == 1:
        return escape(lines[0])
    stacked = r"\\".join(map(escape, lines))
    return rf"\shortstack[{side}]{{{stacked}}}"


def _fitted(columns: list[list[str]]) -> list[list[Lines]]:
    """Columns of a title and cells, each as lines. As long as the table is too wide the column that gains most is
    broken, first all that gain by their title alone."""
    levels = [[_broken(column, level) for level in range(MOST_LINES + 1)] for column in columns]
    widths = [[max(_width(line) for cell in column for line in cell) for column in own] for own in levels]
    chosen = [0] * len(columns)
    while sum(own[level] for own, level in zip(widths, chosen, strict=True)) + GAP * (len(columns) - 1) > TEXT_WIDTH:
        steps = []
        for place, (own, at) in enumerate(zip(widths, chosen, strict=True)):
            level = next((level for level in range(at + 1, len(own)) if own[level] < own[at]), None)
            if level is not None:
                steps.append((level > 1, own[level] - own[at], place, level))
        if not steps:
            break
        _, _, place, level = min(steps)
        chosen[place] = level
    return [own[level] for own, level in zip(levels, chosen, strict=True)]


def _broken(column: list[str], level: int) -> list[Lines]:
    """At level 1 the title alone is broken, from 2 on the cells too."""
    title, *cells = column
    return [_wrapped(title, level + 1), *(_wrapped(cell, max(level, 1)) for cell in cells)]


def _wrapped(text: str, most: int) -> Lines:
    """In at most so many lines, the widest of them as narrow as can be; not more lines than that takes."""
    breaks = [i for i in range(1, len(text)) if _may_break(text, i)]
    if most == 1 or not breaks:
        return [text]
    pieces = [text[start:end] for start, end in pairwise([0, *breaks, len(text)])]
    widths = {_width("".join(pieces[start:end])) for start, end in combinations(range(len(pieces) + 1), 2)}
    limits = sorted(width for width in widths if width >= max(map(_width, pieces)))
    return next(lines for limit in limits if len(lines := _filled(pieces, limit)) <= most)


def _filled(pieces: list[str], limit: float) -> Lines:
    lines = [""]
    for piece in pieces:
        if _width(lines[-1] + piece) > limit:
            lines.append("")
        lines[-1] += piece
    return lines


def _may_break(text: str, place: int) -> bool:
    """After a space, but that of `± 0.3`, and within names after what joins their words."""
    before, after = text[:place], text[place:]
    if before[-1] == " ":
        return not before.endswith("± ")
    return (
        len(before) > 1 and len(after) > 1 and (before[-1] in "_/=" or (before[-1] == "-" and not after[0].isdigit()))
    )


def _width(text: str) -> float:
    """Points, about."""
    return EM * sum(_UNITS.get(character, _OTHER) for character in text.rstrip()) / 1000
