"""Every format says the same, cell by cell; each keeps to its own grammar."""

import csv
import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from mrbench.report import formats, table, terminal, words, write
from mrbench.report.build import Report, build
from mrbench.report.collect import load_study
from mrbench.report.latex import tabular
from mrbench.report.table import Cell, Column, Row, Table

ODD = Table(
    "odd",
    "Odd",
    (Column("arm", ("arm",)), Column("a|b", ("x",), numeric=True)),
    (Row((Cell("50% of_it & {more} \\ ~^ #1 $ <b>|", ("a",)), Cell("−1.0 ± 0.2", (-1.0,)))),),
)


@pytest.fixture(scope="module")
def report(demo: Path) -> Report:
    return build(load_study(demo, "demo"), resamples=30)


@pytest.fixture(scope="module")
def partial(make_study: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Report:
    root = make_study(tmp_path_factory.mktemp("partial"), seeds=1)
    for folder in (root / "runs").glob("*-bn*"):
        shutil.rmtree(folder)
    return build(load_study(root, "demo"), resamples=30)


class Cells(HTMLParser):
    """The texts of all body rows of all tables."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self._open = self._body = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._body = self._body or tag == "tbody"
        if tag == "tr" and self._body:
            self.rows.append([])
        if tag in ("td", "th") and self._body:
            self._open = True
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._open = False
        if tag == "tbody":
            self._body = False

    def handle_data(self, data: str) -> None:
        if self._open:
            self.rows[-1][-1] += data


def texts(found: Table) -> list[list[str]]:
    return [[cell.text for cell in row.cells] for row in found.rows]


@pytest.mark.parametrize("name", ["report", "partial"])
@pytest.mark.parametrize("index", [0, 1, 2])
def test_markdown_html_latex_hold_the_same_cells(name: str, index: int, request: pytest.FixtureRequest) -> None:
    found = table.tables(request.getfixturevalue(name))[index]
    lines = [line for line in formats.markdown(found).splitlines() if line.startswith("| ")]
    heads = len(found.columns) and len(formats.grouped(found))
    bodies = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if "arm |" not in line]
    assert len(lines) == len(bodies) + heads
    assert [[re.sub(r"\\(.)", r"\1", cell) for cell in row] for row in bodies] == texts(found)
    parser = Cells()
    parser.feed(formats.html(found, ""))
    assert [row for row in parser.rows if len(row) > 1] == texts(found)
    whole = re.sub(
        r"\\shortstack\[[lr]\]{((?:[^{}]|{[^{}]*})*)}", lambda cell: cell[1].replace(r"\\", ""), tabular(found)
    )
    latex = [line[: -len(r" \\")] for line in whole.splitlines() if " & " in line][1:]
    plain = [
        [
            cell.replace(r"$\pm$", "±")
            .replace("$-$", "−")
            .replace("--", "–")
            .replace(r"\%", "%")
            .replace(r"\_", "_")
            .replace(r"\textless{}", "<")
            for cell in line.split(" & ")
        ]
        for line in latex
    ]
    assert plain == texts(found)


def test_csv_and_json_round_to_what_is_printed(report: Report) -> None:
    found = table.accuracy(report)
    from_csv = list(csv.DictReader(io.StringIO(formats.comma_separated(found))))
    from_json = json.loads(write.as_json(report, write.all_tables(report)))["accuracy"]
    digits = {words.metric_name(answer.metric): answer.digits for answer in report.answers}
    assert len(from_csv) == len(from_json) == len(found.rows) == 10
    for line, record, row in zip(from_csv, from_json, found.rows, strict=True):
        assert {key: "" if value is None else str(value) for key, value in record.items()} == line
        d = digits[record["metric"]]
        cells = dict(zip((column.title for column in found.columns), (cell.text for cell in row.cells), strict=True))
        assert cells["arm"] == record["arm"]
        assert cells["mean ± sd"] == f"{record['mean']:.{d}f} ± {record['sd']:.{d}f}"
        assert cells["95 % interval"] == f"{record['low']:.{d}f} to {record['high']:.{d}f}"
        if record["difference"] is not None:
            half = (record["difference_high"] - record["difference_low"]) / 2
            assert cells["difference"].replace("−", "-") == f"{record['difference']:+.{d}f} ± {half:.{d}f}"
        assert cells["decision"] == record["decision"]


@pytest.mark.parametrize("name", ["report", "partial"])
def test_the_terminal_shows_the_same_cells_in_80_columns(name: str, request: pytest.FixtureRequest) -> None:
    report = request.getfixturevalue(name)
    console = Console(width=80, file=io.StringIO(), record=True)
    terminal.show(report, console)
    shown = console.export_text()
    assert max(len(line.rstrip()) for line in shown.splitlines()) <= 80
    lines = [line.split() for line in shown.splitlines()]
    for found in (table.accuracy(report), table.cost(report)):
        keep = [i for i, column in enumerate(found.columns) if not column.wide]
        for row in found.rows:
            assert [part for i in keep for part in row.cells[i].text.split()] in lines


def test_a_long_arm_name_folds_and_no_number_is_lost(demo: Path) -> None:
    study = load_study(demo, "demo")
    long = "a_name_that_goes_on_and_on_beyond_what_any_table_can_hold_in_a_line"
    arms = tuple(type(arm)(**{**arm.__dict__, "name": long if arm.name == "bn" else arm.name}) for arm in study.arms)
    report = build(type(study)(**{**study.__dict__, "arms": arms}), resamples=0)
    console = Console(width=80, file=io.StringIO(), record=True)
    terminal.show(report, console)
    shown = console.export_text()
    assert max(len(line.rstrip()) for line in shown.splitlines()) <= 80
    cells = next(row.cells for row in table.accuracy(report).rows if row.cells[0].text == long)
    for cell in (cells[2], cells[4]):
        assert cell.text in shown


def test_what_means_something_to_latex_is_escaped() -> None:
    assert (
        r"50\% of\_it \& \{more\} \textbackslash{} \textasciitilde{}\textasciicircum{} \#1 \$ "
        r"\textless{}b\textgreater{}\textbar{} & $-$1.0 $\pm$ 0.2 \\"
    ) in tabular(ODD)


def test_what_means_something_to_markdown_and_html_is_escaped() -> None:
    assert r"\<b\>\|" in formats.markdown(ODD)
    assert r"| a\|b |" in formats.markdown(ODD)
    assert "&lt;b&gt;|" in formats.html(ODD, "")
    assert "<b>" not in formats.html(ODD, "")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles(report: Report, tmp_path: Path) -> None:
    (tmp_path / "report.tex").write_text(write.for_papers(report))
    (tmp_path / "odd.tex").write_text(tabular(ODD))
    (tmp_path / "main.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\\input{report}\\input{odd}\\end{document}\n"
    )
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "main.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:]


def test_values_of_one_metric_share_their_decimals_and_small_noise_gets_two(report: Report) -> None:
    assert all(answer.digits == 1 for answer in report.answers)
    assert words.number(-0.04, 1) == "0.0"
    assert words.signed(-0.04, 1) == "0.0"
    assert words.signed(0.36, 1) == "+0.4"
    assert words.signed(-1.7, 1) == "−1.7"
    assert words.number(None, 1) == "–"
    assert [words.speed(value) for value in (None, 186.4, 32.41, 0.5)] == ["–", "186", "32.4", "0.50"]
    assert [words.duration(value) for value in (None, 0.01, 0.5, 5.3)] == ["–", "36 s", "30 min", "5.3 h"]
    assert [words.gibibytes(value) for value in (None, 900 * 2**20, 3.4 * 2**30)] == ["–", "900 MiB", "3.4 GiB"]
