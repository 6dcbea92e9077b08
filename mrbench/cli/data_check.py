"""`mrbench data check`: what is wrong with a data set."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrbench.cli.common import ConfigDir, Overrides, compose
from mrbench.cli.data_counts import counts_table

if TYPE_CHECKING:
    from mrbench.data.check import Report, WeightClasses
    from mrbench.data.findings import Example

EXIT_CODES = {"error": 2, "warning": 1}
COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}


def check_command(
    overrides: Overrides = None,
    decode: Annotated[bool, typer.Option("--decode", help="Read all pixels, not only the files' two ends.")] = False,
    as_json: Annotated[
        Path | None, typer.Option("--json", help="Write counts and findings, with examples, into this file.")
    ] = None,
    sample: Annotated[
        Path | None, typer.Option("--sample", help="Draw 24 training pictures with their masks into this PNG.")
    ] = None,
    config_dir: ConfigDir = None,
) -> None:
    """Looks through all annotations and picture files, and lists what is wrong with them.

    Exit code 2 where there are errors, which stop a training or make its numbers wrong; 1 where there are warnings,
    which are probably mistakes; otherwise 0. docs/data.md explains every finding.

    Pictures are not decoded without --decode: their size, format, orientation and end are read.

    Example: mrbench data check data=coco_folder data.root=../coco2017
    """
    from rich.console import Console

    from mrbench.data.check import check_data

    config = compose(overrides, config_dir)
    weights = config.model.weights
    weight_classes: WeightClasses | None = None
    if weights is not None:
        from mrbench.weights.classes import classes_of

        weight_classes = partial(classes_of, Path(weights))

    report = check_data(config, _progress, decode, weight_classes)
    console = Console(highlight=False)
    for name, split in report.splits.items():
        console.print(f"{name}: {split.annotation_file}, images in {split.image_folder}", soft_wrap=True, markup=False)
    if report.summaries:
        console.print(counts_table(report.summaries, config.evaluation.areas))
    _show_findings(report)
    if as_json is not None:
        from mrbench.runs.files import write_json

        write_json(as_json, report.content())
    if sample is not None:
        from mrbench.cli.data_sample import write_sheet

        config.data.on_error = "skip"
        typer.echo(write_sheet(config.data, "train", 24, 6, 256, sample))
    raise typer.Exit(EXIT_CODES.get(report.worst or "", 0))


def _show_findings(report: "Report") -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False)
    for finding in report.findings:
        colour = COLOURS[finding.severity]
        times = f" x {finding.count:,}" if finding.count > 1 else ""
        console.print(f"\n[{colour}]{finding.severity}[/] [bold]{finding.kind}[/]{times}: {finding.meaning}")
        for example in finding.examples:
            console.print(f"  {escape(_where(example))}: {escape(example.text)}", soft_wrap=True)
        if finding.count > len(finding.examples):
            console.print(f"  and {finding.count - len(finding.examples):,} more")
    counts = {severity: sum(f.count for f in report.findings if f.severity == severity) for severity in COLOURS}
    told = [f"{count:,} {severity}{'s' * (count > 1)}" for severity, count in counts.items() if count]
    if report.worst in EXIT_CODES:
        console.print(f"\n{', '.join(told)}")
        errors = (example for f in report.findings if f.severity == "error" for example in f.examples)
        if any(error.annotation_id is not None for error in errors):
            advice = "A training refuses broken annotations; data.on_error=skip leaves them out and says how many."
            console.print(advice)
    else:
        console.print(f"\nno problems found{f' ({told[0]})' if told else ''}")


def _where(example: "Example") -> str:
    parts = [example.split]
    if example.annotation_id is not None:
        parts.append(f"annotation {example.annotation_id}")
    if example.image_id is not None:
        parts.append(f"image {example.image_id}")
    if example.file is not None:
        parts.append(Path(example.file).name)
    return ", ".join(parts)


@contextmanager
def _progress(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar with rate and remaining time on a terminal's standard error; nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=total, rate="")

        def advance(done: int) -> None:
            speed = progress.tasks[0].speed
            progress.update(task, advance=done, rate=f"{speed:,.0f}/s" if speed else "")

        yield advance
