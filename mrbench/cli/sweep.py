"""`mrbench sweep`: every run of a study, brought to its end."""

import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mrbench.cli.common import ConfigDir, Root, root_folder
from mrbench.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from mrbench.launch.progress import RunView
    from mrbench.study.ablation import Study
    from mrbench.study.plan import Plan
    from mrbench.study.record import StudyRecord

What = Annotated[
    list[str] | None,
    typer.Argument(
        help="An ablation file or the name of one that comes with mrbench, then overrides for all its runs; "
        "or a grid in Hydra's sweep syntax.",
        metavar="STUDY|KEY=VALUES",
    ),
]


def sweep_command(
    what: What = None,
    scale: Annotated[
        str | None, typer.Option(help="full or small, for studies that have both.", show_default="small")
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Seeds instead of the study's, as 0-4 or 0,1,2.")] = None,
    parallel: Annotated[
        int | None, typer.Option(min=1, help="Runs at once.", show_default="one a GPU, or one a core without a GPU")
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Run failed runs again.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the runs, which of them exist, and what is left. Runs nothing.")
    ] = False,
    status: Annotated[bool, typer.Option("--status", help="Show how the study stands. Runs nothing.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON; progress goes to stderr.")
    ] = False,
    name: Annotated[
        str | None, typer.Option(help="The study's name on disk, instead of the file's or grid's.")
    ] = None,
    root: Root = None,
    config_dir: ConfigDir = None,
) -> None:
    """Run a study: all its arms with all its seeds, several runs at once.

    A study is an ablation file (ablations/*.yaml: question, baseline, arms, seeds), or a grid given here. Runs that
    are complete are not run again, interrupted ones go on where they stopped, and one that fails does not stop the
    others. Failed runs are run again only with --retry. Ctrl-C ends the runs with a checkpoint; the same command
    goes on with them.

    Exit code 0: all complete. 1: some failed or were cut off; each is named with its log. 2: a mistake in what was
    asked for. 130: stopped.

    Examples:

      mrbench sweep ablations/demo.yaml

      mrbench sweep norm --scale full --seeds 0-2 data.root=COCO --dry-run

      mrbench sweep model.norm=gn,bn seed=0,1,2 --name norms

      mrbench sweep demo --status
    """
    from rich.console import Console

    console = Console(stderr=as_json)
    folder = root_folder(root)
    study, extra = _study(what or [], name, scale, seeds if not status else None)
    if status:
        _status(folder, study.name, as_json, console)
        return

    from mrbench.study.plan import make_plan
    from mrbench.study.seeds import parse_seeds

    plan = make_plan(study, extra, parse_seeds(seeds) if seeds else None, config_dir)
    if dry_run:
        _dry_run(folder, plan, as_json, console)
        return
    code = _sweep(folder, plan, parallel, retry, as_json, console, root)
    if code:
        raise typer.Exit(code)


def _study(what: list[str], name: str | None, scale: str | None, seeds: str | None) -> "tuple[Study, tuple[str, ...]]":
    """The study that the arguments mean, and the overrides that hold for all its runs."""
    from dataclasses import replace

    from mrbench.study.ablation import load_study, study_names
    from mrbench.study.grid import grid_study, only_fixed

    if not what:
        raise UserError(
            "What is to be swept?",
            f"Give an ablation file, the name of one ({', '.join(study_names())}), or a grid: model.norm=gn,bn",
        )
    if name is not None and (not name or Path(name).name != name):
        raise UserError(f"--name {name}: not a name", "Use letters, digits, - and _.")
    if "=" in what[0]:
        if scale:
            raise UserError(
                "--scale is for ablation files", "A grid says itself what runs, as schedule.iterations=100."
            )
        if seeds and any(text.startswith("seed=") for text in what):
            raise UserError("Seeds are given twice, by seed= and --seeds", "Leave one of them out.")
        return grid_study(what, name), ()
    study = load_study(what[0]).at_scale(scale)
    return replace(study, name=name or study.name), only_fixed(what[1:])


def _status(folder: Path, name: str, as_json: bool, console: "Console") -> None:
    from mrbench.launch.progress import Watcher
    from mrbench.launch.table import as_json as json_of
    from mrbench.launch.table import states_table, summary
    from mrbench.runs.record import Run
    from mrbench.study.record import read_study

    record = read_study(folder, name)
    watcher = Watcher(record.metrics[0])
    views = {r: watcher.view(Run(folder / "runs" / r), 0) for r in record.run_ids()}
    if as_json:
        typer.echo(json.dumps(json_of(record, views), indent=1))
        return
    console.print(states_table(record, views))
    console.print(summary(views), highlight=False)
    _tell_failures(record, views, console)


def _dry_run(folder: Path, plan: "Plan", as_json: bool, console: "Console") -> None:
    from rich.table import Table

    from mrbench.launch.progress import COMPLETED, Watcher
    from mrbench.launch.table import describe
    from mrbench.runs.record import Run

    watcher = Watcher(plan.study.metrics[0])
    unique = plan.unique()
    views = {
        run_id: watcher.view(Run(folder / "runs" / run_id), planned.config.schedule.iterations)
        for run_id, planned in unique.items()
    }
    left = {r: 0 if v.state == COMPLETED else v.iterations - v.iteration for r, v in views.items()}
    if as_json:
        runs = [
            {"arm": p.arm, "seed": p.seed, "run": p.run_id, "state": views[p.run_id].state,
             "iterations_left": left[p.run_id], "overrides": list(p.overrides)}
            for p in plan.runs
        ]  # fmt: skip
        typer.echo(
            json.dumps({"study": plan.study.name, "runs": runs, "iterations_left": sum(left.values())}, indent=1)
        )
        return
    table = Table(title=plan.study.name, title_justify="left")
    for column in ("arm", "seed", "run", "state", "iterations left"):
        table.add_column(column, no_wrap=column == "run")
    for planned in plan.runs:
        view = views[planned.run_id]
        table.add_row(planned.arm, str(planned.seed), planned.run_id, describe(view), f"{left[planned.run_id]:,}")
    console.print(table)
    exist = sum(v.state == COMPLETED for v in views.values())
    console.print(
        f"{_runs(len(unique))}, {exist} complete; {sum(left.values()):,} iterations left. Nothing was run.",
        highlight=False,
    )


def _sweep(
    folder: Path, plan: "Plan", parallel: int | None, retry: bool, as_json: bool, console: "Console", root: Path | None
) -> int:
    """Runs the plan; returns the exit code: 0, 1 when runs did not complete, 130 when it was stopped."""
    from mrbench.launch.devices import divide
    from mrbench.launch.local import LocalExecutor
    from mrbench.launch.progress import COMPLETED
    from mrbench.launch.sweep import Sweep, run_sweep, stop_signals
    from mrbench.launch.table import Display, states_table, summary
    from mrbench.launch.table import as_json as json_of
    from mrbench.study.record import write_study

    runs = plan.unique()
    slots = divide([planned.config for planned in runs.values()], parallel)
    record, notes = write_study(folder, plan)
    for note in notes:
        console.print(note, style="yellow", markup=False)
    sweep = Sweep(folder, runs, LocalExecutor(folder, slots), retry, record.metrics[0])
    where = "GPU" if slots.on_gpus else "CPU"
    console.print(
        f"{record.study}: {_runs(len(runs))}, {slots.parallel} at once on the {where}, in {folder / 'runs'}",
        markup=False,
        highlight=False,
    )
    with stop_signals() as request, Display(record, slots.parallel, console) as display:

        def show(views: "dict[str, RunView]") -> None:
            if request.count:
                display.stopping = "Stopping: checkpoints are written. Ctrl-C again ends at once."
            display.show(views)

        stopped = run_sweep(sweep, request, show)
    views = sweep.views()
    if as_json:
        typer.echo(json.dumps(json_of(record, views, stopped=stopped), indent=1))
    if not console.is_terminal:
        console.print(states_table(record, views))
    console.print(summary(views), highlight=False)
    _tell_failures(record, views, console)
    complete = all(v.state == COMPLETED for v in views.values())
    if not complete:
        console.print(
            f"go on: {shlex.join(['mrbench', *sys.argv[1:]])}", markup=False, highlight=False, soft_wrap=True
        )
    where_root = f" --root {shlex.quote(str(root))}" if root else ""
    console.print(f"report: mrbench report {record.study}{where_root}", markup=False, highlight=False, soft_wrap=True)
    return 130 if stopped else 0 if complete else 1


def _runs(count: int) -> str:
    return f"{count} run{'s' * (count != 1)}"


def _tell_failures(record: "StudyRecord", views: "Mapping[str, RunView]", console: "Console") -> None:
    """One line for each run that failed or was cut off: which, why, and where its log is."""
    from mrbench.launch.progress import FAILED, INTERRUPTED

    told: set[str] = set()
    failed = False
    for name, arm in record.arms.items():
        for seed, run_id in arm.runs.items():
            view = views.get(run_id)
            if view is None or run_id in told or view.state not in (FAILED, INTERRUPTED):
                continue
            told.add(run_id)
            failed = failed or view.state == FAILED
            reason = view.error or f"stopped at iteration {view.iteration} of {view.iterations}"
            line = f"{view.state}: {name} seed {seed}: {reason}" + (f" (log: {view.log})" if view.log else "")
            console.print(line, style="red" if view.state == FAILED else "yellow", **_plain())
    if failed:
        console.print("Failed runs are run again with --retry.", **_plain())


def _plain() -> dict[str, Any]:
    return {"markup": False, "highlight": False, "soft_wrap": True}
