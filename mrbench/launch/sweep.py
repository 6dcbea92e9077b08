"""The runs of a study, brought to their places and watched: whoever watches may leave, the runs go on."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from mrbench.launch import progress
from mrbench.launch.executor import TRAIN, Job, JobState, Limits
from mrbench.launch.places import Places
from mrbench.launch.progress import RunView, Watcher
from mrbench.launch.record import stop_file
from mrbench.runs.record import Run, open_run
from mrbench.study.plan import PlannedRun


@dataclass
class _Entry:
    """A run of the sweep. `ours`: this process submitted it; `final`: nothing more will be done for it."""

    run: Run
    planned: PlannedRun
    ours: bool = False
    final: bool = False
    view: RunView = field(default_factory=lambda: RunView("", progress.PENDING))


class Sweep:
    """The runs of a study at their places.

    Completed runs are not run again; interrupted ones go on; failed ones are run again only with `retry`. A run that
    is in a queue or at work already, whoever submitted it, is waited for, and submitted here should it be left
    unfinished. `entry` is what a job calls, see `executor.TRAIN`.
    """

    def __init__(
        self,
        root: Path,
        planned: Mapping[str, PlannedRun],
        limits: Limits = Limits(),
        retry: bool = False,
        metric: str = "box/AP",
        entry: str = TRAIN,
    ) -> None:
        self.places = Places(root, entry)
        self.limits = limits
        self.watcher = Watcher(metric)
        self.entries = {run_id: _Entry(open_run(root, p.config), p) for run_id, p in planned.items()}
        self._look()
        for e in self.entries.values():
            if e.view.state == progress.FAILED and retry:
                e.run.update(state="pending", error=None)
                e.view = replace(e.view, state=progress.PENDING)
            e.final = e.view.state in (progress.COMPLETED, progress.FAILED)

    @property
    def finished(self) -> bool:
        return all(entry.final for entry in self.entries.values())

    def views(self) -> dict[str, RunView]:
        return {run_id: entry.view for run_id, entry in self.entries.items()}

    def submit(self) -> int:
        """Submits the runs that nobody has, each at the place of its configuration; returns how many."""
        return self._submit([e for e in self.entries.values() if not e.final and not _is_taken(e)])

    def step(self) -> None:
        """Looks at every run that has not ended."""
        self._look()
        left = []
        for e in self.entries.values():
            if e.final or _is_taken(e):
                continue
            e.final = (
                e.ours or e.view.state in (progress.COMPLETED, progress.FAILED) or stop_file(e.run.folder).exists()
            )
            if not e.final:
                left.append(e)  # whoever had it has left it unfinished
        self._submit(left)

    def _submit(self, entries: list[_Entry]) -> int:
        kinds: dict[str, list[_Entry]] = {}
        for e in entries:
            kinds.setdefault(e.planned.config.launcher.kind, []).append(e)
        for kind, group in kinds.items():
            jobs = [Job(e.run.folder, e.planned.config, e.planned.command) for e in group]
            self.places.of(kind).submit(jobs, self.limits)
            for e in group:
                e.ours = True
                e.view = replace(e.view, state=progress.QUEUED)
        return len(entries)

    def _look(self) -> None:
        going = {run_id: entry for run_id, entry in self.entries.items() if not entry.final}
        jobs = self.places.states(list(going))
        for run_id, entry in going.items():
            schedule = entry.planned.config.schedule
            job = jobs.get(run_id)
            entry.view = self.watcher.view(entry.run, schedule.iterations, schedule.images_per_batch, job)


def _is_taken(entry: _Entry) -> bool:
    """Whether somebody has it: a job that waits or is at work, or a person's own `mrbench train`."""
    return entry.view.state in (*progress.BUSY, progress.QUEUED, progress.UNKNOWN)


def watch(
    sweep: Sweep,
    show: Callable[[dict[str, RunView]], None] = lambda views: None,
    interval: float = 0.5,
) -> None:
    """Until nothing more will be done for any run; `show` is given all runs' views every `interval` seconds, or
    less often where there are thousands.

    It may be broken off at any moment: the runs go on.
    """
    while True:
        began = time.process_time()
        sweep.step()
        show(sweep.views())
        if sweep.finished:
            return
        time.sleep(max(interval, 10 * (time.process_time() - began)))  # the cores are for the runs


def stop(places: Places, run_ids: list[str], grace: float, interval: float = 0.3) -> dict[str, JobState]:
    """Cancels jobs, and waits for their ends for `grace` seconds at most.

    Returns the states of those that had not ended before: with JobState.ENDED, or as they still are.
    """
    before = {r for r, state in places.states(run_ids).items() if state is not JobState.ENDED}
    places.cancel(before)
    end = time.monotonic() + grace
    while True:
        now = places.states(before)
        if all(state is JobState.ENDED for state in now.values()) or time.monotonic() > end:
            return now
        time.sleep(interval)
