"""`mrbench runs reproduce`: a run once more, from its record, and which of its numbers come out the same."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mrbench.cli.common import Root, root_folder

if TYPE_CHECKING:
    from mrbench.engine.reproduce import Reproduction
    from mrbench.runs.comparison import Pair
    from mrbench.runs.record import Run


def reproduce_command(
    run: Annotated[
        str, typer.Argument(help="The run's name, a unique beginning of it or of its hash, or its folder.")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Where and how it runs: runtime.* and data.root, as key=value.")
    ] = None,
    into: Annotated[
        Path | None, typer.Option("--into", help="Keep the second run in this folder; else it is removed.")
    ] = None,
    root: Root = None,
) -> None:
    """Run a completed run again from its record, and tell which numbers are equal and how far apart the others are.

    It is carried out as its record says, with as many processes and threads. A run of the tier `exact` (a CPU, or a
    GPU with runtime.deterministic=true) gives the same bits on the same machine and versions; one of the tier
    `same-order` sees the same data and samples, and differs by rounding, which grows. What is not as it was then
    (versions, machine, files) is named.

    Exit code 0: every metric, every logged loss and all final weights are equal. 1: something differs, or the run
    failed. 2: a mistake in what was asked for.

    Example: mrbench runs reproduce 74bdd1 --into /tmp/again
    """
    from mrbench.engine.failures import RunFailed
    from mrbench.engine.reproduce import recorded_config, reproduce
    from mrbench.runs.record import find_run

    found = find_run(root_folder(root), run)
    config = recorded_config(found, overrides or [])
    with _folder(into) as folder:
        try:
            result = reproduce(found, config, folder)
        except RunFailed as error:
            typer.secho(f"failed: {error}", fg=typer.colors.RED, err=True)
            raise typer.Exit(1) from error
        _show(found, result)
    if not result.exact:
        raise typer.Exit(1)


@contextmanager
def _folder(given: Path | None) -> Iterator[Path]:
    if given is not None:
        yield given
        return
    with TemporaryDirectory(prefix="mrbench-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _show(run: "Run", result: "Reproduction") -> None:
    from rich.console import Console
    from rich.table import Table

    out = Console(highlight=False, soft_wrap=True)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("", "then", "now", "difference"):
        table.add_column(name, justify="left" if not name else "right", no_wrap=True)
    for pair in result.metrics:
        table.add_row(pair.name, _number(pair.first), _number(pair.second), _difference(pair))
    out.print(table)
    out.print(_history(result), markup=False)
    out.print(_weights(result), markup=False)
    tier = run.provenance().get("determinism", "not recorded")
    verdict = "all numbers are equal" if result.exact else "not all numbers are equal"
    out.print(f"{verdict}; the record's tier is {tier}", markup=False)
    for name, then, now in result.surroundings:
        out.print(f"not as it was then: {name}: {_short(then)} -> {_short(now)}", markup=False)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _difference(pair: "Pair") -> str:
    if pair.equal:
        return "equal"
    return "-" if pair.difference is None else f"{pair.difference:+.2g}"


def _history(result: "Reproduction") -> str:
    pairs = [(iteration, pair) for iteration, line in result.history.items() for pair in line]
    apart = [(iteration, pair) for iteration, pair in pairs if not pair.equal]
    if not apart:
        return f"losses   {len(pairs)} logged numbers at {len(result.history)} iterations: all equal"
    known = [(abs(pair.difference or 0.0) / max(abs(pair.first or 0.0), 1e-12), i, pair.name) for i, pair in apart]
    worst, at, name = max(known)
    return (
        f"losses   {len(pairs) - len(apart)} of {len(pairs)} logged numbers are equal; the first that differs is at "
        f"iteration {apart[0][0]}, the furthest is {name} at {at}, by {worst:.2g} of it"
    )


def _weights(result: "Reproduction") -> str:
    if result.weights is None:
        return "weights  not compared: one of the runs has no final weights"
    then, now = (digest[:12] for digest in result.weights.sha256)
    if result.weights.difference == 0:
        files = f"SHA-256 {then}" if then == now else f"in files of their own: SHA-256 {then} and {now}"
        return f"weights  all equal, {files}"
    return f"weights  differ by {result.weights.difference:.2g} of a tensor's largest; SHA-256 {then} and {now}"


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
