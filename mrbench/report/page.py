"""The report as one HTML page that needs nothing but itself: no network, no scripts, charts and style inside."""

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from string import Template

from mrbench import __version__
from mrbench.report import charts, cost, formats, origin, page_detail, table, words
from mrbench.report.build import Answer, Report, charted
from mrbench.report.collect import Arm


def render(report: Report) -> str:
    """The whole page as text. `page.html` is its frame, `page.css` its looks."""
    study = report.study
    here = files("mrbench.report")
    frame = Template(here.joinpath("page.html").read_text(encoding="utf-8"))
    settings = origin.settings(study)
    environment = origin.environment(study)
    return frame.substitute(
        title=escape(study.title),
        css=here.joinpath("page.css").read_text(encoding="utf-8").strip(),
        question=f'<p class="question">{escape(study.question)}</p>' if study.question else "",
        answer=escape(words.headline(report)),
        warning=_warnings(report),
        arms="\n".join(
            f"<dt>{escape(arm.name)}{' (baseline)' if arm.name == study.baseline else ''}</dt>"
            f"<dd>{escape(words.sentence(report, arm))}{_note(arm)}</dd>"
            for arm in study.arms
        ),
        accuracy=formats.html(table.accuracy(report), ""),
        notes=_paragraphs([*words.interval_notes(report), *words.evaluation_notes(report)]),
        charts=_accuracy_charts(charted(report)),
        detail=page_detail.render(report),
        open=_open_questions(report),
        curves=_curves(charted(report)),
        cost=_beside(report)
        + formats.html(table.cost(report), "Cost: means over an arm's runs; memory is the highest.")
        + _paragraphs(cost.notes(report)),
        settings=formats.html(settings, "") if settings.rows else "<p>No difference is on record.</p>",
        commands=_commands(report),
        runs=formats.html(table.runs(report), ""),
        environment=formats.html(environment, "") if environment.rows else "<p>No run recorded it.</p>",
        version=escape(__version__),
        count=words.plural(len(study.runs), "run"),
    )


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
        figure = charts.accuracy(report, [answer])
        caption = f"{name} by arm. Dashed: {report.study.baseline}, the baseline."
        found.append(
            page_detail.figure(charts.inline_svg(figure, f"accuracy{position}", _describe(report, answer)), caption)
        )
    if report.challengers:
        for position, answer in enumerate(report.answers):
            if not any(difference.mean is not None for difference in answer.differences.values()):
                continue
            name = words.metric_name(answer.metric)
            figure = charts.differences(report, [answer])
            caption = f"{name} less that of {report.study.baseline}. Arrows: decided; hollow: not."
            svg = charts.inline_svg(figure, f"difference{position}", f"{caption} The numbers are in the table above.")
            found.append(page_detail.figure(svg, caption))
    return "\n".join(found)


def _describe(report: Report, answer: Answer) -> str:
    levels = [
        f"{arm.name} {words.number(answer.summaries[arm.name].mean, answer.digits)}" for arm in report.study.arms
    ]
    return f"{words.metric_name(answer.metric)} by arm: {', '.join(levels)}."


def _curves(report: Report) -> str:
    found = []
    for position, metric in enumerate((None, *(answer.metric for answer in report.answers))):
        figure = charts.curves(report, metric)
        if figure is not None:
            name = words.metric_name(metric) if metric else "Training loss"
            caption = f"{name} over iterations: mean over seeds; the band reaches from the lowest seed to the highest."
            found.append(page_detail.figure(charts.inline_svg(figure, f"curve{position}", caption), caption))
    return "\n".join(found) or "<p>No run has logged two points yet.</p>"


def _beside(report: Report) -> str:
    found = table.published(report)
    return formats.html(found, "Beside the literature.") if found else ""


def _open_questions(report: Report) -> str:
    lines = words.cannot_answer(report)
    if not lines:
        return ""
    heading = '<h2 id="open">What this study cannot answer</h2>'
    return f'<section aria-labelledby="open">\n{heading}\n{_items(lines)}\n</section>'


def _commands(report: Report) -> str:
    lines = words.commands(report)
    return f"<pre><code>{escape(chr(10).join(lines))}</code></pre>" if lines else "<p>No command is on record.</p>"
