"""A report as files in a folder: tables in every format, charts, and the page. Each file is whole or not there."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mrbench import __version__
from mrbench.errors import UserError
from mrbench.report import (
    caveats,
    cost,
    detail_table,
    earlier,
    formats,
    latex,
    origin,
    table,
    words,
)
from mrbench.report.build import Report
from mrbench.report.collect import Arm
from mrbench.report.detail import SECTIONS
from mrbench.report.table import Table
from mrbench.runs.files import write_text

MARKDOWN_CLASSES = 5  # at either end, of an arm
FORMATS = ("terminal", "markdown", "csv", "json", "latex", "html")


def write(report: Report, folder: Path, kinds: Sequence[str], pictures: int) -> list[Path]:
    """Writes the formats named in `kinds` (of `FORMATS`; `terminal` is no file) and returns what was written.

    report.md with charts/ beside it, a CSV for each table, report.json, report.tex, report.html with `pictures` for an
    arm. What an earlier report of the same study left there of these formats is removed where it is not written again.
    Raises UserError where the folder cannot be written.
    """
    old_charts, old_tables = earlier.stale(folder, report.study)
    texts: dict[str, str] = {}
    drawn: list[Path] = []
    tables = all_tables(report) if {"csv", "json"} & set(kinds) else ()
    if {"html", "markdown"} & set(kinds):
        from mrbench.report import drawing, page  # with matplotlib, which takes longer than a small report's tables

        charts = drawing.draw(report)
        if "html" in kinds:
            texts["report.html"] = page.render(report, charts, pictures)
        if "markdown" in kinds:
            drawn = drawing.save(charts, folder / "charts")
            texts["report.md"] = markdown(report, [path.stem for path in drawn if path.suffix == ".svg"])
    if "csv" in kinds:
        texts |= {f"{found.name}.csv": formats.comma_separated(found) for found in tables}
    if "json" in kinds:
        texts["report.json"] = as_json(report, tables)
    if "latex" in kinds:
        texts["report.tex"] = for_papers(report)
    for name, content in texts.items():
        write_text(folder / name, content)
    if "markdown" in kinds:
        earlier.remove(old_charts.difference(drawn))
    if "csv" in kinds:
        earlier.remove(old_tables.difference(folder / name for name in texts))
    return [folder / name for name in texts] + drawn


def text(report: Report, kind: str, pictures: int) -> str:
    """One format as text, for standard output. CSV is the accuracy table, Markdown comes without charts."""
    makers = {
        "markdown": lambda: markdown(report, []),
        "csv": lambda: formats.comma_separated(table.accuracy(report)),
        "json": lambda: as_json(report, all_tables(report)),
        "latex": lambda: for_papers(report),
        "html": lambda: _page(report, pictures),
    }
    if kind not in makers:
        raise UserError(f"There is no text of format {kind!r}.", f"There are: {', '.join(makers)}.")
    return makers[kind]()


def _page(report: Report, pictures: int) -> str:
    from mrbench.report import drawing, page

    return page.render(report, drawing.draw(report), pictures)


def _arm(report: Report, arm: Arm) -> str:
    note = f" ({formats.markdown_escape(arm.note)})" if arm.note else ""
    return f"- **{formats.markdown_escape(arm.name)}**{note}: {formats.markdown_escape(words.sentence(report, arm))}"


def markdown(report: Report, drawn: Sequence[str]) -> str:
    """The report for GitHub; `drawn` are the names of charts in the folder charts/."""
    study, escape = report.study, formats.markdown_escape
    parts = [f"# {escape(study.title)}"]
    if study.question:
        parts.append(f"*{escape(study.question)}*")
    parts.append(f"**{escape(words.headline(report))}**")
    parts.append("\n".join(_arm(report, arm) for arm in study.arms))
    problems, mixed = words.problems(report), origin.warnings(study)
    if problems:
        parts.append("Without a result:\n\n" + _items(problems))
    if mixed:
        parts.append("The runs were not made under the same conditions:\n\n" + _items(mixed))
    parts += ["## Accuracy", formats.markdown(table.accuracy(report)).strip()]
    parts.append(_items([*caveats.interval_notes(report), *caveats.evaluation_notes(report)]))
    detailed = [name for name in drawn if name.partition("-")[0] in SECTIONS]
    parts += [_image(name) for name in drawn if name not in detailed]
    parts += _in_detail(report, detailed)
    if lines := caveats.cannot_answer(report):
        parts += ["## What this study cannot answer", _items(lines)]
    if beside := table.published(report):
        parts += ["## Beside the literature", formats.markdown(beside).strip()]
    parts += ["## Cost", formats.markdown(table.cost(report)).strip(), _items(cost.notes(report))]
    settings = origin.settings(study)
    if settings.rows:
        parts += ["## What differs between the arms", formats.markdown(settings).strip()]
    if commands := words.commands(report):
        parts += ["## To run it again", "```sh\n" + "\n".join(commands) + "\n```"]
    environment = origin.environment(study)
    if environment.rows:
        parts += ["## Where it ran", formats.markdown(environment).strip()]
    parts.append(f"What each column means, and what not to conclude: `{words.GUIDE}` of mrbench.")
    return "\n\n".join(parts) + "\n"


def _in_detail(report: Report, drawn: Sequence[str]) -> list[str]:
    """Where the arms differ: the overviews, and the classes that changed most."""
    notes = detail_table.notes(report.detail)
    if not notes:
        return []
    classes = detail_table.classes(report, MARKDOWN_CLASSES)
    parts = ["## Where the arms differ", _items(notes)]
    for found in [*detail_table.overviews(report), *([classes] if classes else [])]:
        parts += [f"### {formats.markdown_escape(found.title)}", formats.markdown(found).strip()]
        parts += [_image(name) for name in drawn if name.startswith(f"{found.name}-")]
    return parts


def _image(name: str) -> str:
    return f"![{name.replace('-', ' ')}](charts/{name}.png)"


def _items(lines: Sequence[str]) -> str:
    return "\n".join(f"- {formats.markdown_escape(line)}" for line in lines)


def for_papers(report: Report) -> str:
    """Accuracy, cost and the breakdown by errors as tables of a paper (booktabs), to be \\input."""
    study = report.study
    captions = [(_results(table.accuracy(report)), f"{study.title}. {' '.join(caveats.interval_notes(report))}")]
    captions.append((table.cost(report), study.title))
    explained = " ".join(detail_table.how_to_read(report.detail))
    captions += [(found, f"{study.title}. {found.title}. {explained}") for found in detail_table.errors(report)]
    parts = [f"% mrbench report {formats.one_line(study.name)}; needs \\usepackage{{booktabs}}"]
    label = "".join(c for c in study.name if c.isalnum() or c in "-.")
    parts += [
        f"\\begin{{table}}\n\\centering{latex.SET}\n"
        f"{latex.tabular(found)}\\caption{{{latex.escape(formats.one_line(caption))}}}\n"
        f"\\label{{tab:{label}-{found.name}}}\n\\end{{table}}"
        for found, caption in captions
    ]
    return "\n\n".join(parts) + "\n"


def _results(accuracy: Table) -> Table:
    """Without the column that plans further runs."""
    keep = [i for i, column in enumerate(accuracy.columns) if column.values != ("more_seeds",)]
    rows = tuple(replace(row, cells=tuple(row.cells[i] for i in keep)) for row in accuracy.rows)
    return replace(accuracy, columns=tuple(accuracy.columns[i] for i in keep), rows=rows)


def all_tables(report: Report) -> tuple[Table, ...]:
    """Those for programs: every number of the report, the breakdown among them."""
    return *table.tables(report), detail_table.everything(report)


def as_json(report: Report, tables: Sequence[Table]) -> str:
    """`all_tables` at full precision with what the intervals hold; null for what is not known."""
    study = report.study
    noise: dict[str, Any] = {
        answer.metric: {
            "pairs": _spread(answer.pairs.sd, answer.pairs.df),
            "within_arms": _spread(answer.within.sd, answer.within.df),
            "prior": _spread(answer.noise.prior.sd, answer.noise.prior.df) if answer.noise.prior else None,
        }
        for answer in report.answers
    }
    content = {
        "mrbench": __version__,
        "study": study.name,
        "title": study.title,
        "question": study.question,
        "baseline": study.baseline,
        "command": study.command or None,
        "answer": words.headline(report),
        "arms": {
            arm.name: {
                "says": words.sentence(report, arm),
                "overrides": list(arm.overrides),
                "published": arm.published,
                "note": arm.note,
                "diverged": arm.count("diverged"),
                "failed": arm.count("failed"),
                "command": words.command(report, arm),
            }
            for arm in study.arms
        },
        "confidence": 0.95,
        "prior": report.prior.kind,
        "seed_noise": noise,
        "settling": {"difference": report.aim.difference, "power": report.aim.power},
        "image_resamples": report.resamples,
        **{found.name: found.records() for found in tables},
        "detail_notes": detail_table.notes(report.detail),
        "settings": origin.settings(study).records(),
        "environment": origin.environment(study).records(),
        "warnings": origin.warnings(study),
        "problems": words.problems(report),
        "cost_notes": cost.notes(report),
        "notes": [*caveats.interval_notes(report), *caveats.evaluation_notes(report)],
        "cannot_answer": caveats.cannot_answer(report),
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _spread(sd: float, df: int) -> dict[str, float | int | None]:
    return {"sd": sd if df else None, "df": df}
