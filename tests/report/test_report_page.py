"""The page is well-formed, says what the tables say, and needs nothing from anywhere else."""

import re
import shutil
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from mrbench.report import charts, charts_curves, charts_detail, detail_table, drawing, page, table, words, write
from mrbench.report.build import Report, build
from mrbench.report.collect import load_study

VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """Checks that tags nest; gathers ids, references and loads."""

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in VOID:
            self.stack.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "action", "data", "srcset", "poster"):
                self.references.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.stack.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.stack, f"</{tag}> closes nothing"
        assert self.stack.pop() == tag


@pytest.fixture(scope="module")
def report(demo: Path) -> Report:
    return build(load_study(demo, "demo"), resamples=30)


@pytest.fixture(scope="module")
def text(report: Report) -> str:
    return page.render(report, drawing.draw(report))


def check(text: str) -> Page:
    parser = Page()
    parser.feed(text)
    assert parser.stack == []
    assert len(parser.ids) == len(set(parser.ids))
    return parser


def test_the_page_nests_and_its_references_stay_inside(text: str) -> None:
    found = check(text)
    assert {"table", "caption", "svg", "figcaption", "main", "h1"} <= found.tags
    assert not {"link", "img", "iframe"} & found.tags
    assert all(reference.startswith("#") for reference in found.references)
    assert {reference[1:] for reference in found.references} <= set(found.ids)


def test_the_page_loads_nothing(text: str) -> None:
    assert not re.search(r"https?://|@import|url\((?!#)", text)
    assert len(text) < 1_000_000


def test_the_page_begins_with_question_and_answer(text: str, report: Report) -> None:
    body = text[text.index("<body>") :]
    assert body.index(report.study.question) < body.index(words.headline(report)) < body.index("<table")
    for arm in report.study.arms:
        assert words.sentence(report, arm) in body


def test_the_page_holds_every_cell_of_every_table(text: str, report: Report) -> None:
    for found in table.tables(report):
        for row in found.rows:
            for cell in row.cells:
                assert f">{cell.text.replace('<', '&lt;')}</t" in text


def test_the_page_names_scale_settings_commands_and_environment(text: str, report: Report) -> None:
    for part in (
        "500 iterations say nothing about long schedules.",
        '<span class="note">Published gains need long training.</span>',
        "model.pooler.kind",
        words.command(report, report.study.arm("bn")),
        "2.11.0",
        "prefers-color-scheme: dark",
        "@media print",
    ):
        assert part is not None
        assert part in text
    assert "same conditions" not in text


def test_what_is_not_the_same_for_all_runs_is_marked(demo: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(demo, root)
    path = next(root.glob("runs/*-bn000001")) / "provenance.json"
    path.write_text(path.read_text().replace("2.11.0", "2.12.0"))
    report = build(load_study(root, "demo"), resamples=0)
    text = page.render(report, drawing.draw(report))
    marked = re.findall(r'<tr class="mixed">\n<th[^>]*>([^<]*)</th>\n<td[^>]*>([^<]*)', text)
    assert marked == [("torch", "2.12.0 (bn); 2.11.0 (5 other arms)")]
    assert text.index("not made under the same conditions") < text.index("<table")


def test_the_page_names_its_sections_and_every_arm_s_command(text: str, report: Report) -> None:
    contents = re.findall(r'<a href="#([^"]+)">', text[text.index("<nav") : text.index("</nav>")])
    assert contents == re.findall(r'<h2 id="([^"]+)"', text)
    assert {"accuracy", "settings", "again", "environment"} <= set(contents)
    named = dict(re.findall(r"<h3>([^<]*)</h3><pre><code>([^<]*)</code>", text))
    for arm in report.study.arms:
        assert named[arm.name] == words.command(report, arm)


def test_markup_in_names_is_text(make_study: Callable[..., Path], tmp_path: Path) -> None:
    root = make_study(tmp_path, seeds=1)
    path = root / "studies" / "demo.json"
    path.write_text(
        path.read_text().replace("What a small", "<script>alert(1)</script> & $cost").replace('"bn"', '"<i>$x^2$"')
    )
    report = build(load_study(root, "demo"), resamples=0)
    text = page.render(report, drawing.draw(report))
    check(text)
    assert "<script>alert" not in text
    assert "<i>" not in text
    drawing.save(drawing.draw(report), tmp_path / "charts")


def test_partial_studies_make_a_page_with_the_missing_runs_first(
    make_study: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_study(tmp_path, seeds=2)
    for folder in (root / "runs").glob("*-bn*"):
        shutil.rmtree(folder)
    report = build(load_study(root, "demo"), resamples=0)
    text = page.render(report, drawing.draw(report))
    check(text)
    assert text.index("2 of 10 runs without a result") < text.index("<table")


@pytest.mark.parametrize("state", ["pending", "failed"])
def test_studies_without_results_make_a_page(make_study: Callable[..., Path], tmp_path: Path, state: str) -> None:
    root = make_study(
        tmp_path, seeds=1, state=state, iteration=0, error={"kind": "memory"} if state == "failed" else None
    )
    report = build(load_study(root, "demo"))
    check(page.render(report, drawing.draw(report)))
    assert drawing.save(drawing.draw(report), tmp_path / "charts") == []


def test_charts_are_files_that_other_programs_read(report: Report, tmp_path: Path) -> None:
    written = drawing.save(drawing.draw(report), tmp_path)
    names = [
        "accuracy",
        "differences",
        "curve-loss",
        "curve-lr",
        "curve-box-AP",
        "curve-mask-AP",
        "speed-box-AP",
        "speed-mask-AP",
    ]
    names += ["thresholds-box", "thresholds-mask"]
    assert [path.name for path in written] == [f"{name}{suffix}" for name in names for suffix in (".svg", ".png")]
    for path in written:
        if path.suffix == ".svg":
            assert ElementTree.parse(path).getroot().tag.endswith("svg")
        else:
            assert path.read_bytes().startswith(b"\x89PNG")


def test_every_chart_and_table_is_made_once_for_all_formats(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: Counter[tuple[str, ...]] = Counter()

    def count(module: object, name: str) -> None:
        make = getattr(module, name)

        def counted(*arguments: object) -> object:
            made[name, *map(str, arguments[1:])] += 1
            return make(*arguments)

        monkeypatch.setattr(module, name, counted)

    count(detail_table, "everything")
    count(charts_curves, "curves")
    count(charts_detail, "thresholds")
    written = write.write(report, tmp_path, write.FORMATS, pictures=0)
    assert {"report.html", "report.md", "detail.csv", "report.json"} <= {path.name for path in written}
    assert len(made) == 1 + 4 + 2  # loss, rate and two metrics; boxes and masks
    assert set(made.values()) == {1}


def test_the_same_numbers_draw_the_same_file(report: Report, tmp_path: Path) -> None:
    charts.save(charts.Chart(charts.accuracy(report), ""), tmp_path / "a")
    charts.save(charts.Chart(charts.accuracy(report), ""), tmp_path / "b")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_a_run_that_has_just_begun_does_not_shorten_the_curves(demo: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(demo, root)
    path = root / "runs" / "mask_rcnn_small-shapes-gn000001" / "metrics.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:3]))
    study = load_study(root, "demo")
    found = charts_curves._line(study.arm("gn"), charts_curves.LOSS)
    assert found is not None
    assert found.x[-1] == 500
    assert found.seeds == 2
