"""`mrbench sweep`: every run of a study, brought to its end."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Annotated

import typer

from mrbench.cli.common import ConfigDir, Root, root_folder
from mrbench.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

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


@contextmanager
def _stopped_in_order() -> Iterator[None]:
    """Answers Ctrl-C where nothing inside does: while it plans and submits."""
    try:
        yield
    except KeyboardInterrupt:
        told = "what was submitted goes on without this terminal, and the same command does the rest."
        typer.echo(f"stopped by SIGINT while it started up: {told}", err=True)
        raise typer.Exit(130) from None


@_stopped_in_order()
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
    from mrbench.cli.sweep_watch import submit_and_watch
    from mrbench.cli.sweep_what import is_on_disk_only, study_of
    from mrbench.launch.executor import Limits
    from mrbench.runs.code import environment
    from mrbench.runs.code import snapshot as make_snapshot

    limits = Limits(parallel, 1 if fail_fast else max_failures)

    @cache  # of a study that grows all runs have the same code
    def copy() -> "Path | None":
        made = make_snapshot(folder) if snapshot else None
        os.environ.update(environment(made))  # sbatch hands it on to the jobs
        return made

    def start(runs: "dict[str, PlannedRun]", record: "Callable[[], StudyRecord]") -> int:
        """Writes neither the copy nor the record where the runs are refused. The exit code."""
        actions.check(folder, runs, limits)
        own = replace(limits, snapshot=copy())
        return submit_and_watch(folder, record(), runs, own, wait, retry, as_json, console, root)

    if is_on_disk_only(folder, what or []):
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
        code = start(again.unique(), lambda: record)
        if code:
            raise typer.Exit(code)
        return

    from mrbench.study.plan import make_plan
    from mrbench.study.record import check_same_study, write_study
    from mrbench.study.seeds import parse_seeds

    study, extra = study_of(what or [], name, scale, seeds)
    if on is not None:
        extra = (f"launcher={on}", *extra)
    plan = make_plan(study, extra, parse_seeds(seeds) if seeds else None, config_dir)
    check_same_study(folder, plan)

    def written(plan: "Plan", until: dict[str, int] | None = None) -> "StudyRecord":
        record, notes = write_study(folder, plan, until)
        for note in notes:
            console.print(note, style="yellow", markup=False)
        return record

    if until_decided or max_seeds is not None:
        from mrbench.cli.sweep_until import Design, check_options, sweep_until

        others = {**asked, "--arm": arm is not None, "--seed": seed is not None, "--no-wait": not wait}
        others |= {"--dry-run": False, "--json": as_json and not dry_run}
        design = Design(plan.study.seeds, check_options(until_decided, max_seeds, others))
        if dry_run:
            design.check(folder, study.name)
            show_plan(folder, plan, retry, as_json, make_plan(study, extra, design.seeds(), config_dir))
            return

        def grow(plan: "Plan", until: dict[str, int]) -> int:
            return start(plan.unique(), lambda: written(plan, until))

        code = sweep_until(folder, study, extra, design, config_dir, grow, console)
        if code:
            raise typer.Exit(code)
        return
    if prune:
        prune_study(folder, plan, yes)
        return
    chosen_plan = actions.narrow_plan(plan, arm, seed)
    if dry_run:
        show_plan(folder, chosen_plan, retry, as_json)
        return
    code = start(chosen_plan.unique(), lambda: written(plan))
    if code:
        raise typer.Exit(code)
