"""All that a report writes says the same: each output is read back from its file, and held against the CSV."""

import csv
import io
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from mrbench.report import terminal, words, write
from mrbench.report.build import Report, build
from mrbench.report.collect import load_study

Line = dict[str, str]  # as it stands in a CSV
Rows = list[list[str]]  # texts of a table's cells

# What the cells of a column show of a line of the CSV, in order. Differences show half of their interval.
SHOWN: dict[str, dict[str, Callable[[Line], list[str | float]]]] = {
    "accuracy": {
        "mean ± sd": lambda r: [r["mean"], r["sd"]],
        "95 % interval": lambda r: [r["low"], r["high"]],
        "difference": lambda r: [r["difference"], half(r, "difference")],
        "p (Holm)": lambda r: [r["p_holm"]],
        "more seeds": lambda r: [r["more_seeds"]],
        "published": lambda r: [r["published"], r["published_change"]],
    },
    "published": {
        "ours": lambda r: [r["mean"]],
        "published": lambda r: [r["published"]],
        "our change": lambda r: [r["difference"]],
        "published change": lambda r: [r["published_change"]],
        "change less theirs": lambda r: [r["gap"], half(r, "gap")],
    },
    "cost": {
        "images/s": lambda r: [r["images_per_second"]],
        "peak memory": lambda r: [float(r["peak_memory"]) / 2**20],
        "time a run": lambda r: [float(r["hours"]) * 3600],
    },
    "runs": {
        "seed": lambda r: [r["seed"]],
        "box AP": lambda r: [r["box/AP"]],
        "mask AP": lambda r: [r["mask/AP"]],
        "images/s": lambda r: [r["images_per_second"]],
    },
}


def half(line: Line, name: str) -> str | float:
    low, high = line[f"{name}_low"], line[f"{name}_high"]
    return (float(high) - float(low)) / 2 if low and high else ""


@pytest.fixture(scope="module")
def report(make_study: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Three seeds, with a run that is missing and one that failed: rows of every kind."""
    root = make_study(tmp_path_factory.mktemp("agreement"))
    status = root / "runs" / "mask_rcnn_small-shapes-bn000001" / "status.json"
    status.write_text(json.dumps(json.loads(status.read_text()) | {"state": "failed", "error": {"kind": "memory"}}))
    status.with_name("evaluation.json").unlink()
    for run in (root / "runs").glob("*-long*"):
        run.rename(run.with_name(f"away-{run.name}"))
    return build(load_study(root, "demo"), resamples=20)


@pytest.fixture(scope="module")
def folder(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("files")
    write.write(report, place, write.FORMATS, pictures=0)
    return place


@pytest.fixture(scope="module")
def lines(folder: Path) -> dict[str, list[Line]]:
    return {name: list(csv.DictReader((folder / f"{name}.csv").open(encoding="utf-8"))) for name in SHOWN}


class Tables(HTMLParser):
    """Headings, cells and data-v of a page's tables, by the table's class."""

    def __init__(self) -> None:
        super().__init__()
        self.heads: dict[str, list[str]] = {}
        self.rows: dict[str, Rows] = {}
        self.values: dict[str, list[list[str | None]]] = {}
        self._name = self._part = ""
        self._open = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "table":
            self._name = given["class"] or ""
            self.heads[self._name], self.rows[self._name], self.values[self._name] = [], [], []
        elif tag in ("thead", "tbody"):
            self._part = tag
        elif tag == "tr" and self._part == "tbody":
            self.rows[self._name].append([])
            self.values[self._name].append([])
        elif tag in ("td", "th"):
            self._open = True
            (self.heads if self._part == "thead" else {self._name: self.rows[self._name][-1]})[self._name].append("")
            if self._part == "tbody":
                self.values[self._name][-1].append(given.get("data-v"))

    def handle_endtag(self, tag: str) -> None:
        self._open = self._open and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._open:
            (self.heads[self._name] if self._part == "thead" else self.rows[self._name][-1])[-1] += data


def page_tables(folder: Path) -> Tables:
    found = Tables()
    found.feed((folder / "report.html").read_text(encoding="utf-8"))
    return found


def without_groups(rows: Rows) -> Rows:
    return [row for row in rows if len(row) > 1]


def markdown_tables(folder: Path) -> dict[tuple[str, ...], Rows]:
    """Rows by their headings; of tables with the same ones (one a metric) one after the other."""
    found: dict[tuple[str, ...], Rows] = {}
    for block in re.findall(r"(?:^\|.*\n)+", (folder / "report.md").read_text(encoding="utf-8"), re.MULTILINE):
        head, _, *body = (
            [re.sub(r"\\(.)", r"\1", cell.strip()) for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            for line in block.splitlines()
        )
        found.setdefault(tuple(head), []).extend(body)
    return found


def latex_tables(folder: Path) -> dict[tuple[str, ...], Rows]:
    plain = (folder / "report.tex").read_text(encoding="utf-8")
    for written, meant in ((r"$\pm$", "±"), ("$-$", "−"), (r"$\dagger$", "†"), (r"\textless{}", "<"), ("--", "–")):
        plain = plain.replace(written, meant)
    plain = re.sub(r"\\([%_&#{}])", r"\1", plain)
    found = {}
    plain = re.sub(r"\\shortstack\[[lr]\]{((?:[^{}]|{[^{}]*})*)}", lambda cell: cell[1].replace(r"\\", ""), plain)
    for block in re.findall(r"\\begin{tabular}.*?\\end{tabular}", plain, re.DOTALL):
        head, *body = [line.removesuffix(r" \\").split(" & ") for line in block.splitlines() if " & " in line]
        found[tuple(head)] = body
    return found


def same(value: float, shown: str) -> bool:
    """Whether a number stands there to as many decimals as are shown."""
    decimals = len(shown.partition(".")[2])
    return f"{value:.{decimals}f}".lstrip("+").replace("-0.0", "0.0") in (shown, shown.replace("-0.0", "0.0"))


def check_column(texts: list[str], lines: list[Line], shown: Callable[[Line], list[str | float]]) -> int:
    """That every text has the numbers of its line of the CSV. Returns how many numbers there were."""
    count = 0
    for text, line in zip(texts, lines, strict=True):
        expected = [float(value) for value in shown(line) if value != ""]
        if text.startswith("<"):
            assert expected[0] < float(text[1:])
            continue
        found = re.findall(r"-?\d[\d,]*(?:\.\d+)?", text.replace("−", "-"))
        assert len(found) == len(expected), (text, line)
        for number, value in zip(found, expected, strict=True):
            assert same(value, number.replace(",", "")), (text, value)
        count += len(found)
    return count


def scaled(name: str, title: str, texts: list[str]) -> list[str]:
    """Memory in MiB and times in seconds, in which the test's runs have them."""
    if (name, title) == ("cost", "peak memory"):
        return [text.removesuffix(" MiB") for text in texts]
    return [text.removesuffix(" s") for text in texts] if (name, title) == ("cost", "time a run") else texts


@pytest.mark.parametrize("name", list(SHOWN))
def test_the_page_shows_the_numbers_of_the_csv(name: str, folder: Path, lines: dict[str, list[Line]]) -> None:
    found = page_tables(folder)
    rows = without_groups(found.rows[name])
    values = [row for row in found.values[name] if len(row) > 1]
    assert len(rows) == len(lines[name]) > 0
    counts = []
    for title, shown in SHOWN[name].items():
        place = found.heads[name].index(title)
        known = [i for i, row in enumerate(rows) if row[place] != words.NOTHING]
        texts = scaled(name, title, [rows[i][place] for i in known])
        counts.append(check_column(texts, [lines[name][i] for i in known], shown))
        if name != "cost":  # what the page sorts by is the CSV's number, to the last digit
            for i in known:
                assert values[i][place] in (str(shown(lines[name][i])[0]), None)
                assert values[i][place] or not shown(lines[name][i])[0]
    assert all(counts[:3])


def test_latex_and_markdown_have_the_page_s_cells(folder: Path) -> None:
    found = page_tables(folder)
    markdown, latex = markdown_tables(folder), latex_tables(folder)
    for name in ("accuracy", "published", "cost"):
        assert markdown[tuple(found.heads[name])] == without_groups(found.rows[name])
    for name in ("accuracy", "cost"):
        keep = [i for i, title in enumerate(found.heads[name]) if title != "more seeds"]
        rows = [[row[i] for i in keep] for row in without_groups(found.rows[name])]
        assert latex[tuple(found.heads[name][i] for i in keep)] == rows


def test_the_terminal_has_the_page_s_cells(folder: Path, report: Report) -> None:
    console = Console(width=250, file=io.StringIO(), record=True)
    terminal.show(report, console)
    printed = [line.split() for line in console.export_text().splitlines()]
    found = page_tables(folder)
    for name in ("accuracy", "published", "cost"):
        for row in [found.heads[name], *without_groups(found.rows[name])]:
            assert [word for cell in row for word in cell.split()] in printed


def test_json_has_the_csv_s_values(folder: Path, lines: dict[str, list[Line]]) -> None:
    content = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    for name, expected in lines.items():
        records = [{key: "" if value is None else str(value) for key, value in row.items()} for row in content[name]]
        assert records == expected


def test_every_sentence_has_the_table_s_numbers(folder: Path, report: Report) -> None:
    """On the page, in Markdown and in JSON: an arm's sentence shows the differences that its rows show."""
    rows = without_groups(page_tables(folder).rows["accuracy"])
    page = (folder / "report.html").read_text(encoding="utf-8")
    says = json.loads((folder / "report.json").read_text(encoding="utf-8"))["arms"]
    place = page_tables(folder).heads["accuracy"].index("difference")
    for arm in report.challengers:
        told = [row[place] for row in rows if row[0] == arm and row[place] != words.NOTHING]
        assert all(text in says[arm]["says"] for text in told)
        assert f"<dd>{says[arm]['says']}" in page
