"""`mrbench sweep`: every run of a study, brought to its end."""

import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrbench.cli.common import ConfigDir, Root, root_folder
from mrbench.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from mrbench.launch.executor import Limits
    from mrbench.study.ablation import Study
    from mrbench.study.plan import Plan, PlannedRun
    from mrbench.study.record import StudyRecord

RUNNING, WHICH, LOOKING, ENDING = "Running", "Which runs", "Looking", "Stopping and tidying up"
What = Annotated[
    list[str] | None,
    typer.Argument(
        help="An ablation file or the name of one that comes with mrbench, then overrides for all its runs; a grid "
        "in Hydra's sweep syntax; or the name of a study or a run that is on disk.",
        metavar="STUDY|KEY=VALUES|RUN",
    ),
]


def sweep_command(
    what: What = None,
    on: Annotated[
        str | None,
        typer.Option(
            help="local (this machine's devices) or slurm.", show_default="launcher.kind", rich_help_panel=RUNNING
        ),
    ] = None,
    parallel: Annotated[
        int | None,
        typer.Option(
            min=1, help="Runs at once.", show_default="one a GPU, or one a core without a GPU", rich_help_panel=RUNNING
        ),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Watch the runs until they end.", rich_help_panel=RUNNING)
    ] = True,
    retry: Annotated[bool, typer.Option("--retry", help="Run failed runs again.", rich_help_panel=RUNNING)] = False,
    max_failures: Annotated[
        int | None, typer.Option(min=1, help="Begin no more runs once so many have failed.", rich_help_panel=RUNNING)
    ] = None,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="The same as --max-failures 1.", rich_help_panel=RUNNING)
    ] = False,
    until_decided: Annotated[
        bool,
        typer.Option(
            "--until-decided",
            help="Add seeds to arms that are neither better nor worse by the first metric, up to --max-seeds.",
            rich_help_panel=RUNNING,
        ),
    ] = False,
    max_seeds: Annotated[
        int | None,
        typer.Option(
            min=1, help="With --until-decided: most seeds an arm. Fixed once begun.", rich_help_panel=RUNNING
        ),
    ] = None,
    snapshot: Annotated[
        bool,
        typer.Option(
            "--snapshot", help="Run from a copy of the code, made now (ROOT/snapshots).", rich_help_panel=RUNNING
        ),
    ] = False,
    scale: Annotated[
        str | None,
        typer.Option(help="full or small, for studies that have both.", show_default="small", rich_help_panel=WHICH),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(help="Seeds instead of the study's, as 0-4 or 0,1,2.", rich_help_panel=WHICH),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="The study's name on disk, instead of the file's or grid's.", rich_help_panel=WHICH),
    ] = None,
    arm: Annotated[str | None, typer.Option(help="Only this arm's runs.", rich_help_panel=WHICH)] = None,
    seed: Annotated[int | None, typer.Option(help="Only runs with this seed.", rich_help_panel=WHICH)] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Show the runs, which of them exist, and what is left.", rich_help_panel=LOOKING
        ),
    ] = False,
    status: Annotated[
        bool, typer.Option("--status", help="Show how the study stands.", rich_help_panel=LOOKING)
    ] = False,
    logs: Annotated[
        str | None,
        typer.Option(help="Print the logs of an arm's runs.", metavar="ARM", rich_help_panel=LOOKING),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="With --logs: go on as they grow.", rich_help_panel=LOOKING)
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print the result as JSON; progress goes to stderr.", rich_help_panel=LOOKING),
    ] = False,
    cancel: Annotated[
        bool,
        typer.Option("--cancel", help="Drop queued runs; others write a checkpoint and end.", rich_help_panel=ENDING),
    ] = False,
    now: Annotated[
        bool, typer.Option("--now", help="With --cancel: end runs without a checkpoint.", rich_help_panel=ENDING)
    ] = False,
    prune: Annotated[
        bool,
        typer.Option(
            "--prune",
            help="Remove runs that the study no longer asks for, or RUN; shows them and asks.",
            rich_help_panel=ENDING,
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --prune: do not ask.", rich_help_panel=ENDING)] = False,
    root: Root = None,
    config_dir: ConfigDir = None,
) -> None:
    """Run a study: all its arms with all its seeds, several runs at once.

    A study is an ablation file (ablations/*.yaml: question, baseline, arms, seeds), or a grid given here. Complete
    runs are not run again, interrupted ones go on where they stopped, and one that fails does not stop the others.
    The runs do not need this terminal: Ctrl-C leaves them alone, and the same command watches them again.

    Exit code 0: all complete, or submitted with --no-wait. 1: some failed or were cut off; each is named with its
    log. 2: a mistake in what was asked for. 130: Ctrl-C.

    Examples:

      mrbench sweep norm --scale full --seeds 0-2 data.root=COCO --dry-run

      mrbench sweep model.norm=gn,bn seed=0,1,2 --name norms --no-wait

      mrbench sweep norm --until-decided --max-seeds 8

      mrbench sweep norms --status

      mrbench sweep norms --logs model.norm=gn --seed 0 --follow
    """
    from rich.console import Console

    from mrbench.cli import sweep_actions as actions

    console = Console(stderr=as_json)
    folder = root_folder(root)
    asked = {
        "--dry-run": dry_run,
        "--status": status,
        "--logs": logs is not None,
        "--cancel": cancel,
        "--prune": prune,
    }
    chosen = [option for option, given in asked.items() if given]
    if len(chosen) > 1:
        raise UserError(f"{chosen[0]} and {chosen[1]} do not go together", "Ask for one after the other.")
    if status or cancel or logs is not None:
        record = actions.chosen_runs(folder, what or [], name, scale, logs if logs is not None else arm, seed)
        if status:
            actions.show_status(folder, record, as_json, console)
        elif cancel:
            actions.cancel(folder, record, now, wait, console)
        else:
            actions.show_logs(folder, record, follow)
        return

    from mrbench.cli.sweep_dry_run import show_plan
    from mrbench.cli.sweep_prune import prune_run, prune_study
    from mrbench.launch.executor import Limits
    from mrbench.runs.code import environment
    from mrbench.runs.code import snapshot as make_snapshot

    copy = make_snapshot(folder) if snapshot and not dry_run and not prune else None
    os.environ.update(environment(copy))  # sbatch hands it on to the jobs
    limits = Limits(parallel, 1 if fail_fast else max_failures, copy)
    if _is_on_disk_only(folder, what or []):
        growth = {"--seeds": seeds, "--until-decided": until_decided or None, "--max-seeds": max_seeds}
        for option in (option for option, given in growth.items() if given is not None):
            raise UserError(f"{option} needs the study's file or its grid, not its name on disk")
        record = actions.chosen_runs(folder, what or [], name, scale, arm, seed)
        if prune:
            prune_run(folder, record, yes)
            return
        again = actions.runs_again(folder, record, on)
        if dry_run:
            show_plan(folder, again, retry, as_json)
            return
        runs = again.unique()
        actions.check(folder, runs, limits)
        code = _sweep(folder, record, runs, limits, wait, retry, as_json, console, root)
        if code:
            raise typer.Exit(code)
        return

    from mrbench.study.plan import make_plan
    from mrbench.study.record import check_same_study, write_study
    from mrbench.study.seeds import parse_seeds

    study, extra = _study(what or [], name, scale, seeds)
    if on is not None:
        extra = (f"launcher={on}", *extra)
    plan = make_plan(study, extra, parse_seeds(seeds) if seeds else None, config_dir)
    if until_decided or max_seeds is not None:
        from mrbench.cli.sweep_until import Design, check_options, sweep_until

        others = {**asked, "--arm": arm is not None, "--seed": seed is not None, "--no-wait": not wait}
        others |= {"--dry-run": False, "--json": as_json and not dry_run}
        design = Design(plan.study.seeds, check_options(until_decided, max_seeds, others))
        design.check(folder, study.name)
        if dry_run:
            check_same_study(folder, plan)
            show_plan(folder, plan, retry, as_json, make_plan(study, extra, design.seeds(), config_dir))
            return

        def start(plan: "Plan", until: dict[str, int]) -> int:
            actions.check(folder, plan.unique(), limits)
            record, notes = write_study(folder, plan, until)
            for note in notes:
                console.print(note, style="yellow", markup=False)
            return _sweep(folder, record, plan.unique(), limits, wait, retry, as_json, console, root)

        code = sweep_until(folder, study, extra, design, config_dir, start, console)
        if code:
            raise typer.Exit(code)
        return
    if prune:
        prune_study(folder, plan, yes)
        return
    chosen_plan = actions.narrow_plan(plan, arm, seed)
    if dry_run:
        check_same_study(folder, plan)
        show_plan(folder, chosen_plan, retry, as_json)
        return
    runs = chosen_plan.unique()
    actions.check(folder, runs, limits)
    record, notes = write_study(folder, plan)
    for note in notes:
        console.print(note, style="yellow", markup=False)
    code = _sweep(folder, record, runs, limits, wait, retry, as_json, console, root)
    if code:
        raise typer.Exit(code)


def _is_on_disk_only(folder: Path, what: list[str]) -> bool:
    """Whether a study or a run is meant that is known from the disk alone: a grid that was given a name, or a run."""
    from mrbench.launch.selection import names_run
    from mrbench.study.ablation import study_names
    from mrbench.study.record import study_file

    if len(what) != 1 or "=" in what[0] or what[0] in study_names() or Path(what[0]).suffix in (".yaml", ".yml"):
        return False
    return study_file(folder, what[0]).exists() or names_run(folder, what[0])


def _study(what: list[str], name: str | None, scale: str | None, seeds: str | None) -> "tuple[Study, tuple[str, ...]]":
    """The study that the arguments mean, and the overrides that hold for all its runs."""
    from dataclasses import replace

    from mrbench.study.ablation import load_study
    from mrbench.study.grid import grid_study, only_fixed

    if not what:
        raise UserError(
            "What is to be swept?",
            "Give a study that `mrbench studies list` shows, an ablation file, or a grid: model.norm=gn,bn seed=0,1",
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
    found = load_study(what[0])
    study = found.at_scale(scale)
    if found.scales and scale is None:
        others = " or ".join(s for s in found.scales if s != study.scale)
        typer.echo(
            f"At scale {study.scale}" + (f"; --scale {others} asks for the other." if others else "."), err=True
        )
    return replace(study, name=name or study.name), only_fixed(what[1:])


def _sweep(
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
