"""`mrbench runs`: the runs on disk."""

from typing import Annotated

import typer

from mrbench.cli.common import Root, root_folder
from mrbench.cli.reproduce import reproduce_command
from mrbench.errors import UserError

app = typer.Typer(help="Look at the runs on disk, and run one again.", no_args_is_help=True)
app.command("reproduce")(reproduce_command)

COLOURS = {
    "completed": "green",
    "running": "cyan",
    "failed": "red",
    "preempted": "yellow",
    "interrupted": "yellow",
}


@app.command("list")
def list_command(root: Root = None) -> None:
    """All runs with their state, progress and AP. Example: mrbench runs list --root /data/me"""
    from rich.console import Console
    from rich.table import Table

    from mrbench.runs.record import list_runs
    from mrbench.runs.state import state_of

    folder = root_folder(root)
    found = list_runs(folder)
    if not found:
        typer.echo(f"No runs in {folder / 'runs'}.")
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("run", "state", "iteration", "box AP", "mask AP"):
        table.add_column(name, no_wrap=True, justify="left" if name in ("run", "state") else "right")
    for run in found:
        try:
            status, evaluation = run.status(), run.evaluation()
        except UserError as error:
            table.add_row(run.run_id, "[red]damaged", "", "", "")
            typer.echo(error.what, err=True)
            continue
        state = state_of(run, status)
        metrics = (evaluation or {}).get("metrics", {})
        values = [metrics.get(key) for key in ("box/AP", "mask/AP")]
        table.add_row(
            run.run_id,
            f"[{COLOURS.get(state, 'default')}]{state}",
            f"{status.iteration}/{status.iterations}",
            *("" if v is None else f"{v:.1f}" for v in values),
        )
    Console().print(table)


@app.command("show")
def show_command(
    run: Annotated[str, typer.Argument(help="The run's name, or a unique beginning of it or of its hash.")],
    root: Root = None,
) -> None:
    """A run's state, result, configuration and provenance. Example: mrbench runs show 74bdd1"""
    from rich.console import Console

    from mrbench.runs.record import find_run
    from mrbench.runs.state import state_of

    found = find_run(root_folder(root), run)
    status, provenance = found.status(), found.provenance()
    out = Console(highlight=False, soft_wrap=True)
    state = state_of(found, status)
    out.print(f"[bold]{found.run_id}[/]  [{COLOURS.get(state, 'default')}]{state}[/]", markup=True)
    out.print(f"folder       {found.folder}")
    out.print(f"iteration    {status.iteration} of {status.iterations}, attempt {status.attempt}")
    for name in ("started", "updated", "ended", "host", "pid"):
        if getattr(status, name) is not None:
            out.print(f"{name:<12} {getattr(status, name)}")
    if status.images_per_second:
        out.print(f"speed        {status.images_per_second:.1f} images/s")
    if status.peak_memory:
        out.print(f"peak memory  {status.peak_memory / 2**30:.2f} GiB")
    if status.error:
        out.print(f"error        {status.error.get('message')}", markup=False)
    evaluation = found.evaluation()
    if evaluation:
        for key, value in evaluation["metrics"].items():
            out.print(f"{key:<12} {'-' if value is None else f'{value:.2f}'}")
    if provenance:
        out.print(f"command      {provenance.get('command')}", markup=False)
        out.print(f"commit       {provenance.get('code', {}).get('commit') or 'not a clone'}")
        if provenance.get("code", {}).get("uncommitted_change"):
            out.print("             with uncommitted changes: provenance.json holds them")
    out.print("\n# config.yaml")
    out.print(found.config_file.read_text(encoding="utf-8").rstrip(), markup=False)
