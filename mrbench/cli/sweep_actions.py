"""What `mrbench sweep` does besides running: how a study stands, its logs, cancelling it and tidying up."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mrbench.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from mrbench.config.schema import RunConfig
    from mrbench.launch.executor import Limits
    from mrbench.launch.progress import RunView
    from mrbench.runs.record import Run
    from mrbench.study.plan import Plan, PlannedRun
    from mrbench.study.record import StudyRecord

GRACE = 120.0  # seconds that `--cancel` waits for checkpoints
MOST_ROWS = 200  # of a study's table: those that tell most
PLAIN: dict[str, Any] = {"markup": False, "highlight": False, "soft_wrap": True}


def count_runs(count: int) -> str:
    return f"{count} run{'s' * (count != 1)}"


def chosen_runs(
    folder: Path, what: Sequence[str], name: str | None, scale: str | None, arm: str | None, seed: int | None
) -> "StudyRecord":
    """The runs on disk that the arguments mean."""
    from mrbench.launch.selection import find_record, narrowed

    if not what and not name:
        raise UserError("Which study or run is meant?", "Name it; mrbench runs list shows the runs.")
    return narrowed(find_record(folder, what, name, scale), arm, seed)


def narrow_plan(plan: "Plan", arm: str | None, seed: int | None) -> "Plan":
    """The plan with the runs of one arm or one seed, where that is asked for. Raises UserError where it has none."""
    from mrbench.config.suggest import did_you_mean

    for what, value, there in (
        ("arm", arm, [a.name for a in plan.study.arms]),
        ("seed", seed, list(plan.study.seeds)),
    ):
        if value is not None and value not in there:
            hint = did_you_mean(str(value), [str(t) for t in there], "--dry-run shows the study.")
            raise UserError(f"'{value}' is no {what} of {plan.study.name}", hint)
    kept = tuple(r for r in plan.runs if arm in (None, r.arm) and seed in (None, r.seed))
    return replace(plan, runs=kept)


def runs_again(folder: Path, record: "StudyRecord", on: str | None) -> "Plan":
    """The runs of a record as they were planned, at another place where one is asked for."""
    from mrbench.config.composer import compose
    from mrbench.launch.selection import planned

    plan = planned(folder, record)
    if on is not None:
        launcher = compose([f"launcher={on}"]).launcher
        runs = tuple(replace(run, config=replace(run.config, launcher=launcher)) for run in plan.runs)
        plan = replace(plan, runs=runs)
    return plan


def check(folder: Path, runs: "Mapping[str, PlannedRun]", limits: "Limits") -> None:
    """Raises UserError for what is known to go wrong before anything is written."""
    from mrbench.config.layout import check_files
    from mrbench.launch.places import Places
    from mrbench.runs.record import Run

    check_files([p.config for r, p in runs.items() if not _is_complete(Run(folder / "runs" / r))])
    places = Places(folder)
    kinds: dict[str, list[RunConfig]] = {}
    for planned in runs.values():
        kinds.setdefault(planned.config.launcher.kind, []).append(planned.config)
    for kind, configs in kinds.items():
        places.of(kind).check(configs, limits)


def _is_complete(run: "Run") -> bool:
    try:
        return run.status().state == "completed"
    except UserError:
        return False  # a damaged record: said where the run is looked at


def look(folder: Path, record: "StudyRecord") -> "tuple[dict[str, RunView], list[str]]":
    """All runs' views, and what is to be told about their places."""
    from mrbench.launch.places import Places
    from mrbench.launch.progress import RUNNING, Watcher
    from mrbench.runs.record import Run

    places, watcher = Places(folder), Watcher(record.metrics[0])
    ids = record.run_ids()
    jobs = places.states(ids)
    views = {r: watcher.view(Run(folder / "runs" / r), 0, job=jobs.get(r)) for r in ids}
    for r in [r for r, view in views.items() if view.state == RUNNING]:  # a configuration takes time to read
        run = Run(folder / "runs" / r)
        views[r] = watcher.view(run, 0, run.config().schedule.images_per_batch, jobs.get(r))
    return views, places.notes()


def show_status(folder: Path, record: "StudyRecord", as_json: bool, console: "Console") -> None:
    from mrbench.launch.table import as_json as json_of
    from mrbench.launch.table import most_telling, states_table, summary

    views, notes = look(folder, record)
    if as_json:
        typer.echo(json.dumps(json_of(record, views, notes=notes), indent=1))
        return
    shown = most_telling(record, views, MOST_ROWS)
    console.print(states_table(shown, views, console.width))
    if len(shown.arms) < len(record.arms):
        console.print(f"... and {len(record.arms) - len(shown.arms):,} more arms: --json has them all", **PLAIN)
    console.print(summary(views), highlight=False)
    for note in notes:
        console.print(note, style="yellow", **PLAIN)
    tell_failures(record, views, console)


def tell_failures(record: "StudyRecord", views: "Mapping[str, RunView]", console: "Console") -> None:
    """One line for each run that failed or was cut off: which, why, and where its log is."""
    from mrbench.launch.progress import FAILED, INTERRUPTED, PREEMPTED

    told: set[str] = set()
    failed = False
    for name, arm in record.arms.items():
        for seed, run_id in arm.runs.items():
            view = views.get(run_id)
            if view is None or run_id in told or view.state not in (FAILED, PREEMPTED, INTERRUPTED):
                continue
            told.add(run_id)
            failed = failed or view.state == FAILED
            reason = view.error or f"stopped at iteration {view.iteration} of {view.iterations}"
            line = f"{view.state}: {name} seed {seed}: {reason}" + (f" (log: {view.log})" if view.log else "")
            console.print(line, style="red" if view.state == FAILED else "yellow", **PLAIN)
    if failed:
        console.print("Failed runs are run again with --retry.", **PLAIN)


def show_logs(folder: Path, record: "StudyRecord", follow: bool) -> None:
    """Prints the runs' logs one after the other, with headings; with `follow` until the runs end, or Ctrl-C."""
    from mrbench.launch.progress import log_of
    from mrbench.runs.record import Run

    told: dict[Path, int] = {}
    last: Path | None = None
    said = False
    try:
        while True:
            busy = follow and _is_going(folder, record)
            for arm in record.arms.values():
                for run_id in arm.runs.values():
                    path = log_of(Run(folder / "runs" / run_id))
                    text = _since(path, told) if path else ""
                    if path and text:
                        if path != last:
                            typer.echo(f"==> {path}")
                        typer.echo(text, nl=False)
                        last = path
            if last is None and not said:
                typer.echo("Nothing was logged yet.")
                said = True
            if not busy:
                break
            time.sleep(0.5)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _since(path: Path, told: dict[Path, int]) -> str:
    """What was added to a log; all of it where it was begun anew."""
    start = told.get(path, 0)
    with path.open("rb") as file:
        if path.stat().st_size < start:
            start = 0
        file.seek(start)
        text = file.read()
    told[path] = start + len(text)
    return text.decode(errors="replace")


def _is_going(folder: Path, record: "StudyRecord") -> bool:
    from mrbench.launch.progress import BUSY, QUEUED

    return any(view.state in (*BUSY, QUEUED) for view in look(folder, record)[0].values())


def cancel(folder: Path, record: "StudyRecord", now: bool, wait: bool, console: "Console") -> None:
    """Cancels the runs' jobs. A run in a person's own `mrbench train` is not a job, and is left alone."""
    from mrbench.launch.executor import JobState
    from mrbench.launch.places import Places
    from mrbench.launch.sweep import stop

    places = Places(folder)
    ids = record.run_ids()
    going = [r for r, state in places.states(ids).items() if state is not JobState.ENDED]
    if not going:
        console.print(f"{record.study}: no run is queued or at work", **PLAIN)
        return
    console.print(f"{record.study}: cancelling {count_runs(len(going))}", **PLAIN)
    if now:
        places.kill(going)
    try:
        states = stop(places, going, GRACE if wait else 0.0)
    except KeyboardInterrupt:
        states = places.states(going)
    for note in places.notes():
        console.print(note, style="yellow", **PLAIN)
    left = sum(state is not JobState.ENDED for state in states.values())
    if left:
        console.print(
            f"{count_runs(left)} will end after a checkpoint; --cancel --now ends without one", style="yellow", **PLAIN
        )
    else:
        console.print("all have ended; the next sweep goes on with them", **PLAIN)
