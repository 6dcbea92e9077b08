"""`mrbench runs remove`: takes runs off the disk, after it has shown which."""

from typing import TYPE_CHECKING, Annotated

import typer

from mrbench.cli.common import Root, root_folder
from mrbench.errors import UserError

if TYPE_CHECKING:
    from mrbench.runs.listing import Entry

MANY = 20  # of them are shown


def remove_command(
    what: Annotated[
        list[str],
        typer.Argument(
            help="Runs by name, a unique beginning of it or of its hash; or filters, as of `mrbench runs list`, "
            "which must all hold.",
            metavar="RUN|FILTER...",
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    root: Root = None,
) -> None:
    """Remove runs from the disk: shows which and how much disk they free, and asks.

    A run that a process works on is refused, and then nothing is removed. Links are not followed. Studies keep the
    names of their runs; sweeping one again runs what is gone.

    Exit code 0: removed. 1: the answer was no. 2: a mistake in what was asked for.

    Example: mrbench runs remove state=failed 'started<2026-01-01'
    """
    from mrbench.runs.remove import check_removable, freed_bytes, remove

    chosen = _chosen(what, root)
    for entry in chosen:
        check_removable(entry.run)
    sizes = {entry.run.run_id: freed_bytes(entry.run.folder) for entry in chosen}
    _show(chosen, sizes)
    if not yes and not typer.confirm("Remove?"):
        typer.echo("Nothing was removed.")
        raise typer.Exit(1)
    for entry in chosen:
        remove(entry.run)
    typer.echo(f"Removed {_runs(len(chosen))}: {size(sum(sizes.values()))} are free.")


def _chosen(what: list[str], root: "Root") -> "list[Entry]":
    from mrbench.cli.runs_list import everything
    from mrbench.runs.query import check_names, check_values, is_condition, parse_condition, select
    from mrbench.runs.record import find_runs

    folder = root_folder(root)
    found = everything(folder)
    conditions = [parse_condition(text) for text in what if is_condition(text)]
    check_names([c.name for c in conditions], found)
    check_values(conditions, found)
    named = find_runs(folder, [text for text in what if not is_condition(text)])
    names = {run.folder.absolute() for run in named}
    outside = [str(name) for name in names if name.parent != (folder / "runs").absolute()]
    if outside:
        raise UserError(f"{outside[0]} is no run of '{folder / 'runs'}'", "--root names another folder.")
    if names:
        found = [entry for entry in found if entry.run.folder.absolute() in names]
    chosen = select(found, conditions)
    if not chosen:
        raise UserError("No run fits", "mrbench runs list shows them.")
    return chosen


def _show(chosen: "list[Entry]", sizes: dict[str, int]) -> None:
    for entry in chosen[:MANY]:
        at = ", ".join(f"{place.study} ({place.arm}, seed {place.seed})" for place in entry.places)
        named = f", named by the study {at}" if at else ""
        typer.echo(f"{entry.run.run_id}  {entry.state}  {size(sizes[entry.run.run_id])}{named}")
    if len(chosen) > MANY:
        typer.echo(f"and {len(chosen) - MANY} more")
    studies = sorted({place.study for entry in chosen for place in entry.places})
    if studies:
        typer.echo(f"What is gone, a sweep of its study runs again: {', '.join(studies)}")
    typer.echo(f"{_runs(len(chosen))}, {size(sum(sizes.values()))}")


def _runs(count: int) -> str:
    return f"{count} run{'s' * (count != 1)}"


def size(count: int) -> str:
    """Bytes, for a person."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
