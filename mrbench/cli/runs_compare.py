"""`mrbench runs diff` and `compare`: what is different between runs, and what came of it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mrbench.cli.common import Root, plain, root_folder
from mrbench.errors import UserError

if TYPE_CHECKING:
    from mrbench.report.side_by_side import SideBySide
    from mrbench.runs.record import Run

NAME = "The run's name, a unique beginning of it or of its hash, or its folder."
AsJson = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]


def diff_command(
    first: Annotated[str, typer.Argument(help=NAME, metavar="A")],
    second: Annotated[str, typer.Argument(help=NAME, metavar="B")],
    as_json: AsJson = False,
    root: Root = None,
) -> None:
    """What is different between two runs: configuration, environment, code. Example: mrbench runs diff 74bdd1 1ac0"""
    from mrbench.runs.comparison import compare_surroundings
    from mrbench.runs.record import find_runs

    folder = root_folder(root)
    one, other = find_runs(folder, [first, second])
    configuration = configurations([one, other])
    around = list(compare_surroundings(one, other))
    code = [entry for entry in around if entry[0].startswith("code.")]
    environment = [entry for entry in around if not entry[0].startswith("code.")]
    if as_json:
        parts = {"configuration": [(key, *values) for key, values in configuration.items()]}
        parts |= {"environment": environment, "code": code}
        runs = {"a": one.run_id, "b": other.run_id}
        rows = {
            part: [dict(zip(("key", "a", "b"), row, strict=True)) for row in found] for part, found in parts.items()
        }
        typer.echo(json.dumps(runs | rows, indent=1))
        return
    lacking = [run.run_id for run in (one, other) if not run.provenance()]
    titles = ("", *short_names([one, other]))
    _section("configuration", titles, [(key, *values) for key, values in configuration.items()], "is the same")
    unknown = f"is not known: {' and '.join(lacking)} {'have' if len(lacking) > 1 else 'has'} not begun"
    _section("environment", titles, environment, unknown if lacking else "is the same")
    _section("code", titles, code, unknown if lacking else "is the same")
    for line in _how_to_see_code(code, one, other):
        typer.echo(line)


def _how_to_see_code(code: Sequence[tuple[str, Any, Any]], one: "Run", other: "Run") -> Iterator[str]:
    found = {name: values for name, *values in code}
    if None not in (commits := found.get("code.commit", [None])):
        yield f"see: git diff {' '.join(str(commit)[:12] for commit in commits)} -- mrbench conf"
    if "code.uncommitted_sha256" in found:
        files = " and ".join(str(run.provenance_file) for run in (one, other))
        yield f"uncommitted changes are in {files}, as code.uncommitted_change"


def compare_command(
    runs: Annotated[list[str], typer.Argument(help=f"Two runs or more. {NAME}", metavar="RUN RUN...")],
    resamples: Annotated[
        int | None, typer.Option(min=0, help="Draws of the test images; 0: no intervals.", show_default="400")
    ] = None,
    as_json: AsJson = False,
    root: Root = None,
) -> None:
    """Metrics of runs side by side, with what the choice of test images may have done, and how they were configured.

    A difference is from the first run, with the middle 95 % of it over images drawn anew, the same for both. It says
    nothing of other seeds: `mrbench report` compares arms over seeds.

    Example: mrbench runs compare 74bdd1 1ac0
    """
    from mrbench.evaluation.bootstrap import RESAMPLES
    from mrbench.report.side_by_side import side_by_side
    from mrbench.runs.record import find_runs

    folder = root_folder(root)
    found = find_runs(folder, runs)
    if len({run.folder for run in found}) < 2:
        raise UserError("One run is nothing to compare", "Give two or more: mrbench runs list shows them.")
    result = side_by_side(found, RESAMPLES if resamples is None else resamples)
    configuration = configurations(found)
    if as_json:
        keys = [{"key": key, "values": list(values)} for key, values in configuration.items()]
        typer.echo(json.dumps({**asdict(result), "configuration": keys}, indent=1))
        return
    show(result, found, configuration)


def show(result: "SideBySide", runs: "Sequence[Run]", configuration: Mapping[str, Sequence[Any]]) -> None:
    """Metrics side by side, and the settings that are not the same."""
    names = short_names(runs)
    _print(result, names)
    rows = [(key, *values) for key, values in configuration.items()]
    _section("configuration", ("", *names), rows, "is the same")


def _print(result: "SideBySide", names: Sequence[str]) -> None:
    """All runs in one table where the terminal is wide enough, else each beside the first."""
    from mrbench.cli.text_table import fitting, lines

    others = list(range(1, len(names)))
    titles, rows = _table(result, names, others)
    if fitting(list(zip(titles, *rows, strict=True))):
        tables = [(titles, rows)]
    else:
        tables = [_table(result, names, [i]) for i in others]
    for number, (titles, rows) in enumerate(tables):
        if number:
            typer.echo()
        for line in lines(titles, rows, [True] + [False] * (len(titles) - 1)):
            typer.echo(line)
    if result.resamples:
        typer.echo(
            f"95 % intervals: {result.images} test images drawn anew {result.resamples} times; "
            "other seeds are not in them, and move AP as well"
        )
    for problem in result.problems:
        typer.secho(problem, fg=typer.colors.YELLOW, err=True)
    typer.echo()


def _table(result: "SideBySide", names: Sequence[str], others: Sequence[int]) -> tuple[list[str], list[list[str]]]:
    """Titles and rows of the first run, some others, and their differences from it."""
    from mrbench.report.compared import change, level

    rows = []
    for metric, values in result.metrics.items():
        if any(value.value is not None for value in values):
            shown = [level(values[i]) for i in (0, *others)]
            rows.append([metric, *shown, *(change(result.differences[metric][i - 1]) for i in others)])
    return ["", *(names[i] for i in (0, *others)), *(_less(names[i], names[0], len(others)) for i in others)], rows


def _less(name: str, first: str, others: int) -> str:
    return "difference" if others == 1 else f"{name} − {first}"


def short_names(runs: "Sequence[Run]") -> list[str]:
    """Hashes where they tell the runs apart, else whole names."""
    hashes = [run.run_id.rpartition("-")[2] for run in runs]
    return hashes if len(set(hashes)) == len(hashes) else [run.run_id for run in runs]


def configurations(runs: "Sequence[Run]") -> dict[str, tuple[Any, ...]]:
    """Every key that is not the same in all, with each run's value; those of `runtime` and `launcher` come last.

    The files are read as they were written: another version's are compared too.
    """
    from mrbench.runs.listing import flat_config

    flat = [flat_config(run) for run in runs]
    keys = sorted({key for one in flat for key in one}, key=lambda key: (key.startswith(("runtime", "launcher")), key))
    found = {key: tuple(one.get(key) for one in flat) for key in keys}
    lacking = object()
    return {key: found[key] for key in keys if any(f.get(key, lacking) != flat[0].get(key, lacking) for f in flat)}


def _section(title: str, titles: Sequence[str], rows: Sequence[Sequence[Any]], otherwise: str) -> None:
    from mrbench.cli.text_table import lines

    if not rows:
        typer.echo(f"{title} {otherwise}")
        return
    table = [[str(row[0]), *(_cell(value) for value in row[1:])] for row in rows]
    for line in lines([title, *titles[1:]], table, [True] * len(titles)):
        typer.echo(line)


def _cell(value: Any) -> str:
    if isinstance(value, str | Path):
        return str(value)
    return json.dumps(value) if isinstance(value, dict) else plain(value)
