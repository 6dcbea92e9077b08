"""`mrbench runs list`: the runs on disk, those that fit what is asked."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mrbench.cli.common import Root, root_folder
from mrbench.errors import UserError

if TYPE_CHECKING:
    from mrbench.runs.listing import Entry, Place

COLOURS = {
    "completed": "green",
    "running": "cyan",
    "failed": "red",
    "damaged": "red",
    "preempted": "yellow",
    "interrupted": "yellow",
}
DEFAULT = ("run", "study", "arm", "seed", "state", "progress", "box/AP", "mask/AP", "when")
TEXT = ("run", "folder", "study", "arm", "state", "host", "error", "started", "updated", "ended", "when")

WHOLE = ("state", "started", "updated", "ended", "when")  # are not folded


def list_command(
    filters: Annotated[
        list[str] | None,
        typer.Argument(
            help="Which runs: KEY=VALUE, KEY=A,B, KEY=LOW..HIGH, KEY!=VALUE, KEY<NUMBER, <=, >, >= for any key of the "
            "configuration, any metric (box/AP) and any column; * stands for anything in a text.",
            metavar="[FILTER]...",
        ),
    ] = None,
    sort: Annotated[
        str, typer.Option(help="Columns to sort by, as study,-box/AP; - is from the highest.", metavar="COLUMNS")
    ] = "run",
    columns: Annotated[
        str | None, typer.Option(help="What to show, as run,seed,model.norm,box/AP.", metavar="COLUMNS")
    ] = None,
    study: Annotated[str | None, typer.Option(help="Only the runs of this study.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Show no more than so many.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print them as JSON.")] = False,
    root: Root = None,
) -> None:
    """Runs with their study, state, progress and AP; those for which all filters hold.

    A run that says `running` but whose process is gone is `interrupted`; one whose record cannot be read is
    `damaged`, and what is wrong is told on standard error.

    Examples:

      mrbench runs list model.norm=gn 'box/AP>30' state=completed seed=0..4 --sort -box/AP

      mrbench runs list --study demo --columns run,seed,optimizer.lr,box/AP --json
    """
    from mrbench.runs.query import check_names, check_values, parse_condition, select
    from mrbench.runs.query import sort as sort_entries

    folder = root_folder(root)
    conditions = [parse_condition(text) for text in filters or ()]
    by = [name.strip() for name in sort.split(",") if name.strip()]
    shown = [name.strip() for name in (columns or "").split(",") if name.strip()]
    found = everything(folder, study)
    check_names([*(c.name for c in conditions), *(name.lstrip("-+") for name in by), *shown], found)
    check_values(conditions, found)
    chosen = sort_entries(select(found, conditions), by)
    some = chosen[:limit]
    if as_json:
        typer.echo(json.dumps([_as_json(entry, shown) for entry in some], indent=1))
    elif chosen:
        _print(some, shown)
        if len(some) < len(chosen):
            typer.echo(f"{len(some)} of {len(chosen)} runs")
    elif found:
        typer.echo(f"None of {len(found)} runs in '{folder / 'runs'}' fits.")
    else:
        typer.echo(f"No runs in '{folder / 'runs'}'.")
    tell_problems(some)


def everything(folder: Path, study: str | None = None) -> "list[Entry]":
    """All runs under the root with their places in its studies, or those of one study. Raises UserError where there
    is no such study."""
    from mrbench.runs.listing import entries

    named = places(folder, study)
    found = list(entries(folder, named))
    return found if study is None else [entry for entry in found if entry.places]


def places(folder: Path, study: str | None) -> "dict[str, list[Place]]":
    """run id -> where studies name it. A study that cannot be read is told of and passed over."""
    from mrbench.runs.listing import Place
    from mrbench.study.record import read_study

    names = [study] if study else sorted(path.stem for path in (folder / "studies").glob("*.json"))
    found: dict[str, list[Place]] = {}
    for name in names:
        try:
            record = read_study(folder, name)
        except UserError as error:
            if study:
                raise
            typer.secho(error.what, fg=typer.colors.YELLOW, err=True)
            continue
        for arm_name, arm in record.arms.items():
            for seed, run_id in arm.runs.items():
                found.setdefault(run_id, []).append(Place(name, arm_name, seed))
    return found


def tell_problems(some: "Sequence[Entry]") -> None:
    """What is wrong with the records that cannot be read, on standard error."""
    for entry in some:
        if entry.problem:
            typer.secho(f"{entry.run.run_id}: {entry.problem}", fg=typer.colors.YELLOW, err=True)


def _as_json(entry: "Entry", names: Sequence[str]) -> dict[str, Any]:
    from mrbench.runs.listing import MISSING

    if names:
        values = ((name, entry.value(name)) for name in names)
        return {name: None if value is MISSING else value for name, value in values}
    of_record = ("state", "iteration", "iterations", "attempt", "started", "updated", "ended", "host", "pid")
    metrics = entry.metrics  # first: reading them may find the record damaged
    return {
        "run": entry.run.run_id,
        "folder": str(entry.run.folder),
        "studies": [place.__dict__ for place in entry.places],
        "seed": entry.value("seed"),
        **{name: entry.value(name) for name in of_record},
        "error": entry.value("error"),
        "images_per_second": entry.status.images_per_second,
        "peak_memory": entry.status.peak_memory,
        "metrics": {name: entry.value(name) for name in metrics},
    }


def _print(some: "Sequence[Entry]", asked: Sequence[str]) -> None:
    """The table, as wide as the terminal: columns that were not asked for give way before names are folded."""
    from mrbench.cli.text_table import fitting, lines

    names = list(asked or DEFAULT)
    cells = {name: _cells(some, name) for name in names}
    if not asked:
        names = [name for name in names if name in ("run", "state") or any(cells[name])]
        cells["when"] = [text[:16] for text in cells["when"]]
        if "mask/AP" in names and not fitting([[name, *cells[name]] for name in names]):
            names.remove("mask/AP")
    if not fitting([[name, *cells[name]] for name in names]):
        if "run" in names:  # the hash alone finds a run as well
            cells["run"] = [text.rpartition("-")[2] for text in cells["run"]]
        if not asked:
            cells["when"] = [text[5:] for text in cells["when"]]
    colours = [COLOURS.get(entry.state) for entry in some]
    table = list(zip(*(cells[name] for name in names), strict=True))
    left = [name in TEXT or "." in name for name in names]
    state = {names.index("state"): colours} if "state" in names else {}
    whole = [i for i, name in enumerate(names) if name in WHOLE]
    typer.echo("\n".join(lines(names, table, left, state, whole)))


def _cells(some: "Sequence[Entry]", name: str) -> list[str]:
    """A column as text; empty where a run has no such value."""
    from mrbench.cli.common import plain
    from mrbench.runs.listing import MISSING

    values = [entry.value(name) for entry in some]
    if "/" in name:
        return ["" if value is None else f"{value:.1f}" for value in values]
    if name in ("when", "started", "updated", "ended"):
        return [_local_time(value) for value in values]
    if name in ("study", "arm"):
        more = (len(entry.places) - 1 for entry in some)
        return [f"{value or ''}{f' +{n}' if n > 0 else ''}" for value, n in zip(values, more, strict=True)]
    null = "null" if "." in name else ""
    texts = (null if v is None else "" if v is MISSING else v if isinstance(v, str) else plain(v) for v in values)
    return [text.replace("\n", " ") for text in texts]


def _local_time(text: str | None) -> str:
    from datetime import datetime

    try:
        return datetime.fromisoformat(text or "").astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return text or ""
