"""The report as one HTML page that needs nothing but itself: charts, pictures, style and script are inside."""

import re
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template

from mrbench import __version__
from mrbench.report import (
    caveats,
    charts,
    cost,
    formats,
    gallery,
    origin,
    page_detail,
    page_gallery,
    table,
    words,
)
from mrbench.report.build import Answer, Report
from mrbench.report.charts import Chart
from mrbench.report.collect import Arm
from mrbench.report.drawing import Drawing

OPEN_COMMANDS = 8  # commands of more arms are folded away
CONTENTS = "<!-- contents -->"


def render(report: Report, drawing: Drawing, pictures: int = gallery.PICTURES) -> str:
    """The whole page as text, with `drawing`, the report's charts, and `pictures` validation pictures for an arm.

    `page.html` is its frame, `page.css` its looks; `page.js` adds what a reader can do with it.
    """
    study = report.study
    here = files("mrbench.report")
    frame = Template(here.joinpath("page.html").read_text(encoding="utf-8"))
    settings = origin.settings(study)
    environment = origin.environment(study)
    text = frame.substitute(
        title=escape(study.title),
        css=here.joinpath("page.css").read_text(encoding="utf-8").strip(),
        script=here.joinpath("page.js").read_text(encoding="utf-8").strip(),
        question=f'<p class="question">{escape(study.question)}</p>' if study.question else "",
        answer=escape(words.headline(report)),
        warning=_warnings(report),
        arms="\n".join(
            f"<dt>{escape(arm.name)}{' (baseline)' if arm.name == study.baseline else ''}</dt>"
            f"<dd>{escape(words.sentence(report, arm))}{_note(arm)}</dd>"
            for arm in study.arms
        ),
        accuracy=formats.html(table.accuracy(report), _over_seeds(report)),
        notes=_paragraphs([*caveats.interval_notes(report), *caveats.evaluation_notes(report)]),
        charts=_accuracy_charts(drawing.report) + _figures(drawing.factors),
        detail=page_detail.render(report, drawing.detail),
        pictures=page_gallery.render(gallery.gather(report, pictures)),
        open=_open_questions(report),
        curves=_charts(drawing.curves),
        cost=_beside(report)
        + _charts(drawing.cost)
        + formats.html(table.cost(report), "Cost: means over an arm's runs; memory is the highest.")
        + _paragraphs(cost.notes(report)),
        settings=formats.html(settings, f"Settings in which an arm differs from {study.baseline}.")
        if settings.rows
        else "<p>No difference is on record.</p>",
        commands=_commands(report),
        runs=formats.html(table.runs(report), "Every run."),
        environment=formats.html(environment, "Code, packages, machines. Marked: not the same for all runs.")
        if environment.rows
        else "<p>No run recorded it.</p>",
        version=escape(__version__),
        guide=words.GUIDE,
        count=words.plural(len(study.runs), "run"),
    )
    return text.replace(CONTENTS, _contents(text), 1)


def _over_seeds(report: Report) -> str:
    against = f", and against {report.study.baseline}" if report.challengers else ""
    return f"Each arm over its seeds{against}."


def _note(arm: Arm) -> str:
    return f' <span class="note">{escape(arm.note)}</span>' if arm.note else ""


def _paragraphs(lines: Sequence[str]) -> str:
    return "\n".join(f'<p class="note">{escape(line)}</p>' for line in lines)


def _items(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def _warnings(report: Report) -> str:
    """Runs without a result, and software or hardware that differ: said before the numbers are read."""
    blocks = []
    if problems := words.problems(report):
        total = words.plural(len(report.study.runs), "run")
        blocks.append((f"{len(problems)} of {total} without a result", problems))
    if mixed := origin.warnings(report.study):
        blocks.append(("The runs were not made under the same conditions", mixed))
    return "\n".join(
        f'<div class="warning" role="note"><p><strong>{escape(title)}</strong></p>{_items(lines)}</div>'
        for title, lines in blocks
    )


def _accuracy_charts(report: Report) -> str:
    """One chart a metric, so that they stand side by side on a desk and below each other on a phone."""
    found = []
    for position, answer in enumerate(report.answers):
        if not any(summary.n for summary in answer.summaries.values()):
            continue
        name = words.metric_name(answer.metric)
        caption = f"{name} by arm. Dashed: {report.study.baseline}, the baseline."
        chart = Chart(charts.accuracy(report, [answer]), caption)
        found.append(page_detail.figure(chart, f"accuracy{position}", _describe(report, answer)))
    if report.challengers:
        for position, answer in enumerate(report.answers):
            if not any(difference.mean is not None for difference in answer.differences.values()):
                continue
            name = words.metric_name(answer.metric)
            caption = f"{name} less that of {report.study.baseline}. Arrows: decided; hollow: not."
            chart = Chart(charts.differences(report, [answer]), caption)
            description = f"{caption} The numbers are in the table above."
            found.append(page_detail.figure(chart, f"difference{position}", description))
    return "\n".join(found)


def _describe(report: Report, answer: Answer) -> str:
    levels = [
        f"{arm.name} {words.number(answer.summaries[arm.name].mean, answer.digits)}" for arm in report.study.arms
    ]
    return f"{words.metric_name(answer.metric)} by arm: {', '.join(levels)}."


def _figures(figures: Mapping[str, Chart]) -> str:
    return "\n".join(page_detail.figure(chart, name, chart.caption) for name, chart in figures.items())


def _charts(figures: Mapping[str, Chart]) -> str:
    """Beside each other; nothing where there are none."""
    return f'<div class="charts">\n{_figures(figures)}\n</div>' if figures else ""


def _beside(report: Report) -> str:
    found = table.published(report)
    return formats.html(found, "Beside the literature.") if found else ""


def _open_questions(report: Report) -> str:
    lines = caveats.cannot_answer(report)
    if not lines:
        return ""
    heading = '<h2 id="open">What this study cannot answer</h2>'
    return f'<section aria-labelledby="open">\n{heading}\n{_items(lines)}\n</section>'


def _commands(report: Report) -> str:
    """The study's one command, and each arm's."""
    parts = [_command("The whole study", report.study.command)] if report.study.command else []
    each = [(arm, command) for arm in report.study.arms if (command := words.command(report, arm))]
    rows = "\n".join(_command(arm.name, command) for arm, command in each)
    if rows:
        opened = " open" if len(each) <= OPEN_COMMANDS else ""
        parts.append(f"<details{opened}><summary>Each arm</summary>\n{rows}\n</details>")
    return "\n".join(parts) or "<p>No command is on record.</p>"


def _command(name: str, command: str) -> str:
    return f'<div class="command"><h3>{escape(name)}</h3><pre><code>{escape(command)}</code></pre></div>'


def _contents(text: str) -> str:
    """Links to the page's sections, in order."""
    found = re.findall(r'<h2 id="([^"]+)">([^<]*)</h2>', text)
    return "\n".join(f'<a href="#{place}">{title}</a>' for place, title in found)
