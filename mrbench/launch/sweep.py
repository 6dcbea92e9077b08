"""Brings every run of a study to an end, or leaves it so that the next sweep can."""

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType

from mrbench.launch import progress
from mrbench.launch.executor import Executor, Job, JobState
from mrbench.launch.progress import RunView, Watcher, last_line
from mrbench.runs.record import Run, open_run
from mrbench.study.plan import PlannedRun

GRACE = 120.0  # seconds that jobs have to write a checkpoint when the sweep is stopped
STARTS = 3  # how often a job is started that ends without having touched its run


@dataclass
class StopRequest:
    """How often a person has asked the sweep to stop: once is gently, twice is at once."""

    count: int = 0


@contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """Counts Ctrl-C, SIGTERM and a closed terminal instead of dying from them."""
    request = StopRequest()

    def count(signum: int, frame: FrameType | None) -> None:
        request.count += 1

    names = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {name: signal.signal(name, count) for name in names}
    try:
        yield request
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


@dataclass
class _Entry:
    """A run of the sweep. `ours`: a job of ours has it; `final`: nothing more will be done for it here."""

    run: Run
    planned: PlannedRun
    ours: bool = False
    final: bool = False
    starts: int = 0
    view: RunView = field(default_factory=lambda: RunView("", progress.WAITING))


class Sweep:
    """The runs of a study on an executor.

    Completed runs are not run again; interrupted ones go on; failed ones are run again only with `retry`; a run that
    another process has is waited for, and taken over should that process leave it unfinished. One run's failure
    does not touch the others.
    """

    def __init__(
        self,
        root: Path,
        planned: Mapping[str, PlannedRun],
        executor: Executor,
        retry: bool = False,
        metric: str = "box/AP",
    ) -> None:
        self.executor = executor
        self.watcher = Watcher(metric)
        self.entries = {run_id: _Entry(open_run(root, p.config), p) for run_id, p in planned.items()}
        for entry in self.entries.values():
            entry.view = self._look(entry)
            failed = entry.view.state == progress.FAILED
            if failed and retry:
                entry.run.update(state="pending", error=None)
            entry.final = entry.view.state == progress.COMPLETED or (failed and not retry)

    @property
    def finished(self) -> bool:
        return all(entry.final for entry in self.entries.values())

    def views(self) -> dict[str, RunView]:
        return {run_id: entry.view for run_id, entry in self.entries.items()}

    def step(self) -> None:
        """Looks at every run that has not ended, and starts what can be started."""
        states = self.executor.poll()
        ready = []
        for run_id, entry in self.entries.items():
            if entry.final:
                continue
            if entry.ours:
                self._follow(entry, states[run_id])
            else:
                entry.view = self._look(entry)
                entry.final = entry.view.state in (progress.COMPLETED, progress.FAILED)
            if not entry.final and not entry.ours and entry.view.state != progress.ELSEWHERE:
                ready.append(entry)
        for entry in ready:
            entry.ours, entry.starts = True, entry.starts + 1
        self.executor.submit([Job(e.run.folder, e.planned.config, e.planned.command) for e in ready])

    def stop(self, request: StopRequest, show: Callable[[dict[str, RunView]], None]) -> None:
        """Ends all jobs of ours, gently until the grace is over or the request is repeated."""
        asked, end = request.count, time.monotonic() + GRACE
        self.executor.cancel()
        while not self.executor.wait(0.3):
            if request.count > asked or time.monotonic() > end:
                self.executor.kill()
            for entry in self.entries.values():
                if entry.ours and not entry.final:
                    self._follow(entry, self.executor.poll()[entry.run.run_id])
                    if entry.ours:
                        entry.view = replace(entry.view, state=progress.STOPPING, remaining=None)
            show(self.views())
        for entry in self.entries.values():
            entry.view = self._look(entry)

    def _look(self, entry: _Entry, active: bool = False) -> RunView:
        schedule = entry.planned.config.schedule
        return self.watcher.view(entry.run, schedule.iterations, schedule.images_per_batch, active)

    def _follow(self, entry: _Entry, job: JobState) -> None:
        """Brings an entry of ours up to date; the record says what became of the run."""
        if job is JobState.QUEUED:
            entry.view = replace(self._look(entry, active=True), state=progress.WAITING)
            return
        entry.view = self._look(entry, active=job is JobState.ACTIVE)
        if job is JobState.ACTIVE:
            return
        entry.ours = False
        state = entry.view.state
        if state in progress.ENDS:
            entry.final = True
        elif state == progress.WAITING and entry.starts >= STARTS:
            entry.final = True
            said = last_line(self.executor.output(entry.run.run_id)) or "its process ended before it began"
            entry.view = replace(entry.view, state=progress.FAILED, error=said)
        if entry.view.state in (progress.FAILED, progress.INTERRUPTED) and entry.view.log is None:
            output = self.executor.output(entry.run.run_id)
            entry.view = replace(entry.view, log=str(output) if output else None)


def run_sweep(
    sweep: Sweep,
    request: StopRequest,
    show: Callable[[dict[str, RunView]], None] = lambda views: None,
    interval: float = 0.5,
) -> bool:
    """Runs the sweep to its end; True when it was asked to stop before. No job of it is left running.

    `show` is given all runs' views after each look at them, every `interval` seconds.
    """
    try:
        while not sweep.finished and not request.count:
            sweep.step()
            show(sweep.views())
            if not sweep.finished:
                time.sleep(interval)
        stopped = not sweep.finished
        if stopped:
            sweep.stop(request, show)
        show(sweep.views())
        return stopped
    finally:
        sweep.executor.cancel()
        if not sweep.executor.wait(GRACE if not request.count else 0.0):
            sweep.executor.kill()
            sweep.executor.wait(5.0)
