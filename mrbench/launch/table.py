"""A sweep as a person sees it: a live table on a terminal, a line for each change elsewhere."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mrbench.launch import progress
from mrbench.launch.progress import RunView
from mrbench.study.record import StudyRecord

STYLES = {
    progress.COMPLETED: "green",
    progress.FAILED: "red",
    progress.INTERRUPTED: "yellow",
    progress.PREEMPTED: "yellow",
    progress.RUNNING: "cyan",
    progress.STOPPING: "yellow",
    progress.UNKNOWN: "magenta",
}
EVALUATING = "evaluating"
QUIET_SECONDS = 30.0  # between two reports on runs that only go on


def duration(seconds: float) -> str:
    """90 -> 1:30, 4000 -> 1:06:40."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _evaluates(view: RunView) -> bool:
    """Whether its iterations are done, and it is at work all the same."""
    return view.state == progress.RUNNING and 0 < view.iterations <= view.iteration


def describe(view: RunView) -> str:
    """A run's state in one short line."""
    if _evaluates(view):
        return EVALUATING
    parts = [view.state]
    if view.iteration and view.state not in (progress.COMPLETED, progress.FAILED, progress.PENDING):
        parts.append(f"{100 * view.done:.0f}%")
    if view.state == progress.RUNNING and view.images_per_second:
        parts.append(f"{view.images_per_second:.1f} img/s")
    if view.remaining is not None:
        parts.append(f"{duration(view.remaining)} left")
    if view.ap is not None:
        parts.append(f"AP {view.ap:.1f}")
    return " ".join(parts)


def states_table(record: StudyRecord, views: Mapping[str, RunView], width: int = 80) -> Table:
    """Arms down and seeds across where `width` columns hold that; else a row for each run. Names are never cut."""
    table = Table(title=record.title or record.study, title_justify="left", caption_justify="left")
    table.add_column("arm", overflow="fold", ratio=1, min_width=10)
    seeds = record.seeds()
    across = width >= 24 + 25 * len(seeds)
    for header in [f"seed {seed}" for seed in seeds] if across else ["seed", "state"]:
        table.add_column(header, overflow="fold", justify="right" if header == "seed" else "left")
    for name, arm in record.arms.items():
        label = Text(name, style="bold" if name == record.baseline else "")
        if name == record.baseline and len(record.arms) > 1:
            label.append(" (baseline)", style="dim")
        cells = {seed: _cell(views.get(arm.runs.get(seed, ""))) for seed in seeds}
        if across:
            table.add_row(label, *cells.values())
        else:
            for i, seed in enumerate(s for s in seeds if s in arm.runs):
                table.add_row(label if i == 0 else "", str(seed), cells[seed])
    return table


def _cell(view: RunView | None) -> Text:
    return Text(describe(view), style=STYLES.get(view.state, "dim")) if view else Text("")


def most_telling(record: StudyRecord, views: Mapping[str, RunView], rows: int) -> StudyRecord:
    """The record with as many arms as `rows` lines hold: those at work, then failed, then pending, then complete."""
    seeds = record.seeds()
    if len(record.arms) * len(seeds) <= rows:
        return record
    ranks = {progress.FAILED: 1, progress.PREEMPTED: 1, progress.INTERRUPTED: 1, progress.COMPLETED: 3}

    def rank(name: str) -> int:
        states = [views[r].state for r in record.arms[name].runs.values() if r in views]
        return min((0 if state in progress.BUSY else ranks.get(state, 2) for state in states), default=4)

    kept = set(sorted(record.arms, key=rank)[: max(1, rows // max(1, len(seeds)))])
    return replace(record, arms={name: arm for name, arm in record.arms.items() if name in kept})


def remaining(views: Mapping[str, RunView]) -> float | None:
    """Seconds to the end of all runs if as many go on at once as do now; None while nothing is known."""
    running = [v for v in views.values() if v.remaining is not None and v.iteration < v.iterations]
    if not running:
        return None
    pace = sum((v.remaining or 0) / (v.iterations - v.iteration) for v in running) / len(running)
    waiting = (progress.QUEUED, progress.STARTING)
    left = sum(v.remaining or 0 for v in running)
    left += sum(pace * (v.iterations - v.iteration) for v in views.values() if v.state in waiting)
    at_once = sum(v.state in progress.BUSY for v in views.values())
    return max(left / at_once, max(v.remaining or 0 for v in running))


def summary(views: Mapping[str, RunView]) -> str:
    """`5 completed, 3 running, 4 pending`."""
    counts = {state: sum(v.state == state for v in views.values()) for state in progress.STATES}
    return ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "no runs"


class Display:
    """Shows a sweep while it goes on. Lines where `console` is no terminal, so that a log stays readable."""

    def __init__(self, record: StudyRecord, console: Console) -> None:
        self.record = record
        self.console = console
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._states: dict[str, str] = {}
        self._lines_told: dict[str, str] = {}
        self._told = time.monotonic()
        self._names = {
            run_id: f"{name} seed {seed}"
            for name, arm in reversed(record.arms.items())
            for seed, run_id in arm.runs.items()
        }

    def __enter__(self) -> "Display":
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def show(self, views: dict[str, RunView], notes: Sequence[str] = ()) -> None:
        if self._live:
            shown = most_telling(self.record, views, self.console.height - 8 - len(notes))
            table = states_table(shown, views, self.console.width)
            self._live.update(Group(table, self._caption(shown, views, notes)), refresh=True)
        else:
            self._lines(views)

    def _caption(self, shown: StudyRecord, views: dict[str, RunView], notes: Sequence[str]) -> Text:
        parts = []
        if len(shown.arms) < len(self.record.arms):
            parts.append(f"{len(self.record.arms) - len(shown.arms)} more arms; all: {summary(views)}")
        parts += notes
        if any(v.state not in (progress.COMPLETED, progress.FAILED) for v in views.values()):
            left = remaining(views)
            text = f"about {duration(left)} left. " if left is not None else ""
            parts.append(text + "Ctrl-C leaves the runs alone.")
        return Text("\n".join(parts), style="dim")

    def _lines(self, views: dict[str, RunView]) -> None:
        quiet = time.monotonic() - self._told < QUIET_SECONDS
        for run_id, view in views.items():
            state = EVALUATING if _evaluates(view) else view.state
            changed = self._states.get(run_id, progress.QUEUED) != state
            going = view.state == progress.RUNNING and not quiet
            self._states[run_id] = state
            line = f"{self._names.get(run_id, run_id)}: {describe(view)}"
            if (changed or going) and self._lines_told.get(run_id) != line:
                self._lines_told[run_id] = line
                self.console.print(line, markup=False, highlight=False, soft_wrap=True)
        if not quiet:
            self._told = time.monotonic()


def as_json(record: StudyRecord, views: Mapping[str, RunView], **more: Any) -> dict[str, Any]:
    """The study and its runs for programs."""
    runs = {
        run_id: {**{k: v for k, v in asdict(view).items() if k != "run_id"}, "metric": record.metrics[0]}
        for run_id, view in views.items()
    }
    return {**asdict(record), "runs": runs, **more}
