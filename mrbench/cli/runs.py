"""`mrbench runs`: the runs on disk."""

from typing import TYPE_CHECKING, Annotated

import typer

from mrbench.cli.common import Root, root_folder
from mrbench.cli.reproduce import reproduce_command
from mrbench.cli.runs_compare import compare_command, diff_command
from mrbench.cli.runs_list import COLOURS, list_command
from mrbench.cli.runs_remove import remove_command

if TYPE_CHECKING:
    from mrbench.runs.record import Run

app = typer.Typer(help="Look at the runs on disk, compare, remove or repeat them.", no_args_is_help=True)
app.command("list")(list_command)


@app.command("show")
def show_command(
    run: Annotated[str, typer.Argument(help="The run's name, or a unique beginning of it or of its hash.")],
    root: Root = None,
) -> None:
    """A run's state, result, configuration and provenance. Example: mrbench runs show 74bdd1"""
    from rich.console import Console

    from mrbench.runs.record import find_run
    from mrbench.runs.state import iteration_of, state_of

    folder = root_folder(root)
    found = find_run(folder, run)
    status = found.status()
    out = Console(highlight=False, soft_wrap=True)
    state = state_of(found, status)
    out.print(f"[bold]{found.run_id}[/]  [{COLOURS.get(state, 'default')}]{state}[/]", markup=True)
    out.print(f"folder       {found.folder}", markup=False)
    for line in _studies(folder, found):
        out.print(f"study        {line}", markup=False)
    out.print(f"iteration    {iteration_of(found, status)} of {status.iterations}, attempt {status.attempt}")
    for name in ("started", "updated", "ended", "host", "pid"):
        if getattr(status, name) is not None:
            out.print(f"{name:<12} {getattr(status, name)}", markup=False)
    if status.images_per_second:
        out.print(f"speed        {status.images_per_second:.1f} images/s")
    if status.peak_memory:
        out.print(f"peak memory  {status.peak_memory / 2**30:.2f} GiB")
    if status.energy:
        out.print(f"energy       {status.energy / 3.6e6:.3f} kWh, of the GPUs")
    if status.error:
        out.print(f"error        {status.error.get('message')}", markup=False)
    evaluation = found.evaluation()
    for key, value in (evaluation or {}).get("metrics", {}).items():
        out.print(f"{key:<12} {f'{value:.2f}' if isinstance(value, int | float) else '-'}", markup=False)
    for name, text in _origin(found):
        out.print(f"{name:<12} {text}", markup=False)
    out.print("\n# config.yaml")
    out.print(found.config_file.read_text(encoding="utf-8", errors="replace").rstrip(), markup=False)


def _studies(folder: "Root", run: "Run") -> list[str]:
    from mrbench.cli.runs_list import places

    assert folder is not None
    return [f"{p.study}, arm {p.arm}, seed {p.seed}" for p in places(folder, None).get(run.run_id, [])]


def _origin(run: "Run") -> list[tuple[str, str]]:
    """The network's size, the command and the code, as provenance.json has them."""
    provenance = run.provenance()
    if not provenance:
        return []
    code = provenance.get("code") or {}
    lines = []
    if isinstance(provenance.get("parameters"), int):
        trained = provenance.get("trained_parameters")
        beside = f", {trained:,} trained" if isinstance(trained, int) else ""
        lines.append(("parameters", f"{provenance['parameters']:,}{beside}"))
    lines += [("command", str(provenance.get("command"))), ("commit", str(code.get("commit") or "not a clone"))]
    if code.get("uncommitted_change"):
        lines.append(("", "with uncommitted changes: provenance.json holds them"))
    if code.get("snapshot"):
        lines.append(("snapshot", str(code["snapshot"])))
    if code.get("submitted"):
        lines.append(("", "other code than was submitted: provenance.json holds both"))
    if provenance.get("earlier_code"):
        lines.append(("", "an earlier attempt ran other code: provenance.json holds it"))
    return lines


app.command("diff")(diff_command)
app.command("compare")(compare_command)
app.command("remove")(remove_command)
app.command("reproduce")(reproduce_command)
