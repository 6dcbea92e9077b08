"""`mrbench studies`: the ablations that come along."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="The studies that come with mrbench.", no_args_is_help=True)


@app.command("list")
def list_studies() -> None:
    """Every study: its name, arms and seeds, scales, and question.

    Example: mrbench studies list
    """
    from mrbench.cli.text_table import lines
    from mrbench.study.ablation import load_study, study_names

    studies = [load_study(name) for name in study_names()]
    rows = [
        (study.name, f"{len(study.arms)} x {len(study.seeds)}", " ".join(study.scales) or "one", study.question)
        for study in studies
    ]
    titles = ("study", "arms x seeds", "scales", "question")
    typer.echo("\n".join(lines(titles, rows, left=(True, False, True, True))))


@app.command("show")
def show_study(name: Annotated[str, typer.Argument(help="As `mrbench studies list` names it, or a file.")]) -> None:
    """A study: its question, scales, seeds, and arms with what they change and the published rows they answer to.

    Example: mrbench studies show norm
    """
    from mrbench.report.published import accuracy
    from mrbench.study.ablation import load_study
    from mrbench.study.page import told_row

    study = load_study(name)
    published = {row.id: row.metrics for row in accuracy().values()}
    typer.echo(f"{study.name}: {study.title}")
    for line in filter(None, (study.question, study.note)):
        typer.echo(line)
    typer.echo(f"file: {study.source}")
    typer.echo(f"seeds: {', '.join(map(str, study.seeds))}; metrics: {', '.join(study.metrics)}")
    if study.base:
        typer.echo(f"base: {' '.join(study.base)}")
    for scale, at in study.scales.items():
        runs = f"{len(study.arms) - len(at.without)} arms x {len(study.seeds)} seeds"
        typer.echo(f"\n--scale {scale}: {runs}. {at.note}".rstrip())
        typer.echo(f"  base: {' '.join(at.base)}")
        if at.without:
            typer.echo(f"  without: {', '.join(at.without)}")
    typer.echo("\narms:")
    for arm in study.arms:
        typer.echo(f"  {arm.name}{' (baseline)' if arm.name == study.baseline else ''}")
        scaled = (f"at {scale}: {' '.join(more)}" for scale, more in arm.at_scales.items() if more)
        row = told_row(arm, published)
        for line in (" ".join(arm.overrides), *scaled, row and f"published {row}", arm.note):
            if line:
                typer.echo(f"    {line}")


@app.command("table")
def write_table(
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The file to write; else standard output.")] = None,
) -> None:
    """All studies with their arms and the published rows that these answer to, as Markdown: docs/ablations.md.

    Example: mrbench studies table -o docs/ablations.md
    """
    from mrbench.report.published import accuracy
    from mrbench.runs.files import write_text
    from mrbench.study.ablation import load_study, study_names
    from mrbench.study.page import page

    published = {row.id: row.metrics for row in accuracy().values()}
    text = page([load_study(name) for name in study_names()], published)
    if out is None:
        typer.echo(text, nl=False)
    else:
        write_text(out, text)
        typer.echo(f"{out} is written.")
