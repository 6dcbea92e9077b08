"""The page in a real browser, which is Chromium (Debian's `chromium`): sorting, choosing columns, enlarging, copying;
and nothing is asked of the network."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from mrbench.report import page, table
from mrbench.report.build import Report, build
from mrbench.report.collect import load_study
from mrbench.report.drawing import draw

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; mrbench[dev] has it")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

DESKTOP, PHONE = (1280, 850), (390, 844)


@dataclass
class Opened:
    """A page, with what it said and asked for since it was opened."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def column(self, title: str) -> list[list[str]]:
        """The cells below a heading of the first table, group by group."""
        return self.page.evaluate(
            """title => {
              const table = document.querySelector("table.accuracy");
              const place = [...table.tHead.rows[0].cells].findIndex(head => head.textContent === title);
              return [...table.tBodies].map(body => [...body.rows].slice(1).map(row => row.cells[place].textContent));
            }""",
            title,
        )

    def heading(self, title: str) -> Any:
        return self.page.locator("table.accuracy thead").get_by_role("button", name=title, exact=True)

    def sorted(self, title: str) -> str | None:
        return self.page.locator("table.accuracy thead th").filter(has_text=title).get_attribute("aria-sort")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def report(demo: Path) -> Report:
    return build(load_study(demo, "demo"), resamples=30)


@pytest.fixture(scope="module")
def files(report: Report, pictured: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    (folder / "demo.html").write_text(page.render(report, draw(report)), encoding="utf-8")
    pictures = build(load_study(pictured, "pictured"), resamples=0)
    (folder / "pictured.html").write_text(page.render(pictures, draw(pictures)), encoding="utf-8")
    return {name: folder / f"{name}.html" for name in ("demo", "pictured")}


def open_page(browser: Any, file: Path, size: tuple[int, int] = DESKTOP, scheme: str = "light") -> Opened:
    found = Opened(browser.new_page(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme))
    found.page.on("console", lambda message: found.complaints.append(message.text))
    found.page.on("pageerror", lambda error: found.complaints.append(str(error)))
    found.page.on("request", lambda request: found.requests.append(request.url))
    found.page.goto(file.as_uri())
    return found


@pytest.fixture
def desk(browser: Any, files: dict[str, Path]) -> Iterator[Opened]:
    found = open_page(browser, files["demo"])
    yield found
    assert found.complaints == []
    found.page.close()


@pytest.mark.parametrize("name", ["demo", "pictured"])
@pytest.mark.parametrize("size, scheme", [(DESKTOP, "light"), (PHONE, "dark")])
def test_the_page_fits_says_nothing_and_asks_the_network_for_nothing(
    browser: Any, files: dict[str, Path], name: str, size: tuple[int, int], scheme: str
) -> None:
    opened = open_page(browser, files[name], size, scheme)
    opened.page.evaluate("document.querySelectorAll('details').forEach(element => { element.open = true })")
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert opened.complaints == []
    assert [url for url in opened.requests if not url.startswith(("file:", "data:"))] == []
    assert opened.page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    paper = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 27)")
    opened.page.close()


def test_headings_sort_inside_their_metric_by_click_and_by_key(desk: Opened, report: Report) -> None:
    first = desk.column("arm")
    expected = []
    for answer in report.answers:
        means = {arm.name: answer.summaries[arm.name].mean or 0.0 for arm in report.study.arms}
        expected.append(sorted(means, key=lambda name: -means[name]))
    assert first != expected
    desk.heading("mean ± sd").click()
    assert desk.column("arm") == expected
    assert desk.sorted("mean ± sd") == "descending"
    desk.page.keyboard.press("Enter")
    assert desk.column("arm") == [names[::-1] for names in expected]
    assert desk.sorted("mean ± sd") == "ascending"
    desk.page.keyboard.press("Space")
    assert desk.column("arm") == first
    assert desk.sorted("mean ± sd") == "none"
    desk.heading("arm").click()
    assert desk.column("arm") == [sorted(names) for names in first]
    assert "Sorted by arm" in desk.page.locator("#said").inner_text()


def test_rows_without_a_number_stay_below(desk: Opened, report: Report) -> None:
    for _ in range(2):
        desk.heading("difference").click()
        assert [names[-1] for names in desk.column("arm")] == [report.study.baseline] * 2


def test_columns_are_chosen_and_wide_ones_wait_on_a_phone(
    desk: Opened, browser: Any, files: dict[str, Path], report: Report
) -> None:
    wide = [column.title for column in table.accuracy(report).columns if column.wide]
    head = "table.accuracy thead th:visible"

    def shown(opened: Opened) -> list[str]:
        return [text.strip() for text in opened.page.locator(head).all_text_contents()]

    titles = [column.title for column in table.accuracy(report).columns]
    assert shown(desk) == titles
    desk.page.locator("section[aria-labelledby=accuracy] .columns summary").click()
    desk.page.get_by_label("p (Holm)").first.uncheck()
    assert shown(desk) == [title for title in titles if title != "p (Holm)"]
    assert desk.page.locator("table.accuracy td.p_holm:visible").count() == 0
    desk.page.get_by_label("p (Holm)").first.check()
    assert shown(desk) == titles
    phone = open_page(browser, files["demo"], PHONE)
    assert shown(phone) == [title for title in titles if title not in wide]
    phone.page.close()


def test_charts_enlarge_and_come_back_where_they_were(desk: Opened) -> None:
    figure = desk.page.locator("figure").first
    small = figure.locator("svg").bounding_box()["width"]
    figure.get_by_role("button", name="Enlarge").focus()
    desk.page.keyboard.press("Enter")
    assert desk.page.locator("dialog[open] svg").bounding_box()["width"] > 1.5 * small
    assert figure.locator("svg").count() == 0
    desk.page.keyboard.press("Escape")
    assert desk.page.locator("dialog[open]").count() == 0
    assert figure.locator("svg").bounding_box()["width"] == small
    assert desk.page.evaluate("document.activeElement.className") == "enlarge"
    figure.locator("svg").click()
    desk.page.get_by_role("button", name="Close").click()
    figure.locator("svg").wait_for()
    assert figure.locator("svg").count() == 1


def test_pictures_enlarge(browser: Any, files: dict[str, Path]) -> None:
    opened = open_page(browser, files["pictured"])
    opened.page.locator("#pictures ~ details figure .large").first.click()
    assert opened.page.locator("dialog[open] img").count() == 3
    assert opened.complaints == []
    opened.page.close()


def test_a_command_is_copied(desk: Opened, report: Report) -> None:
    desk.page.evaluate("navigator.clipboard.writeText = async text => { window.copied = text }")
    desk.page.evaluate("window.setTimeout = () => 0")  # or the button says `Copy` again after a while
    command = desk.page.locator(".command").first
    command.get_by_role("button").click()
    assert desk.page.evaluate("window.copied") == command.locator("code").inner_text()
    assert command.get_by_role("button").inner_text() == "Copied"


def test_everything_that_acts_is_named_and_reached_by_keys(desk: Opened) -> None:
    assert desk.page.evaluate("[...document.querySelectorAll('button')].every(b => b.innerText || b.ariaLabel)")
    desk.page.keyboard.press("Tab")
    assert desk.page.evaluate("document.activeElement.className") == "skip"
    assert desk.page.locator(".skip").bounding_box()["x"] > 0
    landmarks = desk.page.evaluate("['header', 'nav', 'main', 'footer'].map(n => document.querySelectorAll(n).length)")
    assert landmarks == [1, 1, 1, 1]
    levels = desk.page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map(h => +h.tagName[1])")
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(browser: Any, files: dict[str, Path], scheme: str) -> None:
    """4.5 to 1, as the guidelines of accessibility ask for text (WCAG 2.1, 1.4.3)."""
    opened = open_page(browser, files["demo"], DESKTOP, scheme)
    names = ["paper", "band", "ink", "faint", "better", "worse"]
    values = opened.page.evaluate(
        "names => names.map(n => getComputedStyle(document.documentElement).getPropertyValue('--' + n).trim())", names
    )
    colours = dict(zip(names, values, strict=True))
    for text in names[2:]:
        assert contrast(colours[text], colours["paper"]) >= 4.5
    assert contrast(colours["ink"], colours["band"]) >= 4.5
    opened.page.close()


def contrast(one: str, other: str) -> float:
    low, high = sorted(map(luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    """WCAG 2.1's relative luminance of `#rrggbb` or `#rgb`."""
    digits = colour.removeprefix("#")
    digits = digits if len(digits) == 6 else "".join(2 * digit for digit in digits)
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_on_paper_everything_is_open_and_buttons_are_gone(desk: Opened) -> None:
    desk.page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert desk.page.locator("details:not([open]):not(.columns)").count() == 0
    desk.page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    desk.page.set_viewport_size({"width": 680, "height": 960})  # A4 within its margins
    desk.page.emulate_media(media="print")
    assert desk.page.evaluate("document.documentElement.scrollWidth") <= 680
    assert desk.page.evaluate("[...document.querySelectorAll('table')].every(t => t.offsetWidth <= 680)")
    assert desk.page.locator("button.copy:visible, button.enlarge:visible, nav:visible, .columns:visible").count() == 0
    assert desk.page.locator("table.accuracy thead th:visible").count() > 5
