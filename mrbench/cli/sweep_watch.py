"""The runs of `mrbench sweep`, submitted and watched to their end."""

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from mrbench.launch.executor import Limits
    from mrbench.study.plan import PlannedRun
    from mrbench.study.record import StudyRecord


def submit_and_watch(
    folder: Path,
    record: "StudyRecord",
    runs: "dict[str, PlannedRun]",
    limits: "Limits",
    wait: bool,
    retry: bool,
    as_json: bool,
    console: "Console",
    root: Path | None,
) -> int:
    """Submits the runs and watches them; the exit code: 0, 1 when runs did not complete, 130 when Ctrl-C came."""
    from mrbench.cli.sweep_actions import PLAIN, count_runs, tell_failures
    from mrbench.launch.progress import COMPLETED
    from mrbench.launch.sweep import Sweep, watch
    from mrbench.launch.table import Display, states_table, summary
    from mrbench.launch.table import as_json as json_of

    sweep = Sweep(folder, runs, limits, retry, record.metrics[0])
    submitted = sweep.submit()
    where_root = f" --root {shlex.quote(str(root))}" if root else ""
    again = f"mrbench sweep {shlex.quote(record.study)}{where_root}"
    told = f"{count_runs(len(runs))} in folder {folder / 'runs'}/, {submitted} submitted now"
    console.print(f"{record.study}: {told}", **PLAIN)
    for note in sweep.places.notes():
        console.print(note, style="yellow", **PLAIN)
    if not wait:
        console.print(f"look:   {again} --status\ncancel: {again} --cancel", **PLAIN)
        if as_json:
            typer.echo(json.dumps(json_of(record, sweep.views(), submitted=submitted), indent=1))
        return 0
    left = False
    try:
        with Display(record, console) as display:
            watch(sweep, lambda views: display.show(views, sweep.places.notes()))
    except KeyboardInterrupt:
        left = not sweep.finished
    views = sweep.views()
    if as_json:
        typer.echo(json.dumps(json_of(record, views, stopped=left), indent=1))
    if not console.is_terminal:
        console.print(states_table(record, views, console.width))
    console.print(summary(views), highlight=False)
    tell_failures(record, views, console)
    if left:
        console.print(
            f"The runs go on without this terminal.\n"
            f"look:   {again} --status\nwatch:  {shlex.join(['mrbench', *sys.argv[1:]])}\ncancel: {again} --cancel",
            **PLAIN,
        )
        return 130
    complete = all(v.state == COMPLETED for v in views.values())
    if not complete:
        console.print(f"go on: {shlex.join(['mrbench', *sys.argv[1:]])}", **PLAIN)
    console.print(f"report: mrbench report {record.study}{where_root}", **PLAIN)
    return 0 if complete else 1
