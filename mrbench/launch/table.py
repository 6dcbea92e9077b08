"""A sweep as a person sees it: a live table on a terminal, a line for each change elsewhere."""

import time
from collections.abc import Mapping
from dataclasses import asdict
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
    progress.RUNNING: "cyan",
    progress.STOPPING: "yellow",
    progress.ELSEWHERE: "magenta",
}
QUIET_SECONDS = 30.0  # between two reports on runs that only go on


def duration(seconds: float) -> str:
    """90 -> 1:30, 4000 -> 1:06:40."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def describe(view: RunView) -> str:
    """A run's state in one short line."""
    parts = [view.state]
    if view.state in (progress.RUNNING, progress.ELSEWHERE, progress.INTERRUPTED):
        parts.append(f"{100 * view.done:.0f}%")
    if view.state in (progress.RUNNING, progress.ELSEWHERE) and view.images_per_second:
        parts.append(f"{view.images_per_second:.1f} img/s")
    if view.remaining is not None:
        parts.append(f"{duration(view.remaining)} left")
    if view.ap is not None:
        parts.append(f"AP {view.ap:.1f}")
    return " ".join(parts)


def states_table(record: StudyRecord, views: Mapping[str, RunView]) -> Table:
    """Arms down, seeds across."""
    table = Table(title=record.title or record.study, title_justify="left", caption_justify="left")
    table.add_column("arm", overflow="fold")
    for seed in record.seeds():
        table.add_column(f"seed {seed}", overflow="fold")
    for name, arm in record.arms.items():
        label = Text(name, style="bold" if name == record.baseline else "")
        if name == record.baseline:
            label.append(" (baseline)", style="dim")
        cells = []
        for seed in record.seeds():
            view = views.get(arm.runs.get(seed, ""))
            cells.append(Text(describe(view), style=STYLES.get(view.state, "dim")) if view else Text(""))
        table.add_row(label, *cells)
    return table


def remaining(views: Mapping[str, RunView], parallel: int) -> float | None:
    """Seconds to the end of all runs, from the speed of those that run; None while nothing is known."""
    running = [v for v in views.values() if v.remaining is not None and v.iteration < v.iterations]
    if not running:
        return None
    pace = sum((v.remaining or 0) / (v.iterations - v.iteration) for v in running) / len(running)
    waiting = (progress.WAITING, progress.STARTING)
    left = sum(v.remaining or 0 for v in running)
    left += sum(pace * (v.iterations - v.iteration) for v in views.values() if v.state in waiting)
    return max(left / parallel, max(v.remaining or 0 for v in running))


def summary(views: Mapping[str, RunView]) -> str:
    """`5 completed, 3 running, 4 waiting`."""
    order = (progress.COMPLETED, progress.FAILED, progress.INTERRUPTED, progress.STOPPING, progress.RUNNING,
             progress.ELSEWHERE, progress.STARTING, progress.WAITING)  # fmt: skip
    counts = {state: sum(v.state == state for v in views.values()) for state in order}
    return ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "no runs"


class Display:
    """Shows a sweep while it goes on. Lines where `console` is no terminal, so that a log stays readable."""

    def __init__(self, record: StudyRecord, parallel: int, console: Console) -> None:
        self.record = record
        self.parallel = parallel
        self.console = console
        self.stopping = ""
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._states: dict[str, str] = {}
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

    def show(self, views: dict[str, RunView]) -> None:
        if self._live:
            ended = all(v.state in progress.ENDS for v in views.values())
            caption = Text("") if ended else self._caption(views)
            self._live.update(Group(states_table(self.record, views), caption), refresh=True)
        else:
            self._lines(views)

    def _caption(self, views: dict[str, RunView]) -> Text:
        left = remaining(views, self.parallel)
        text = f"about {duration(left)} left. " if left is not None else ""
        return Text(text + (self.stopping or "Ctrl-C stops; the same command goes on."), style="dim")

    def _lines(self, views: dict[str, RunView]) -> None:
        quiet = time.monotonic() - self._told < QUIET_SECONDS
        for run_id, view in views.items():
            changed = self._states.get(run_id, progress.WAITING) != view.state
            going = view.state == progress.RUNNING and not quiet
            if changed or going:
                self._states[run_id] = view.state
                self.console.print(
                    f"{self._names.get(run_id, run_id)}: {describe(view)}", markup=False, highlight=False
                )
        if not quiet:
            self._told = time.monotonic()


def as_json(record: StudyRecord, views: Mapping[str, RunView], **more: Any) -> dict[str, Any]:
    """The study and its runs for programs."""
    runs = {
        run_id: {**{k: v for k, v in asdict(view).items() if k != "run_id"}, "metric": record.metrics[0]}
        for run_id, view in views.items()
    }
    return {**asdict(record), "runs": runs, **more}
