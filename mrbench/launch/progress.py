"""What a run's record says of it at this moment, in the few values that a table shows."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mrbench.errors import UserError
from mrbench.launch.executor import JobState
from mrbench.launch.record import output_file, read_job, stop_file
from mrbench.runs.lock import is_locked
from mrbench.runs.record import Run, Status
from mrbench.runs.state import INTERRUPTED, iteration_of

# What a person wants to know of a run: the words of `runs.state`, and of a run that has a job what the job does.
PENDING = "pending"  # nobody has it
QUEUED = "queued"
STARTING = "starting"
RUNNING = "running"
STOPPING = "stopping"
UNKNOWN = "unknown"  # whoever has its job does not answer
COMPLETED = "completed"
FAILED = "failed"
PREEMPTED = "preempted"  # asked to end: it has written a checkpoint
STATES = (COMPLETED, FAILED, PREEMPTED, INTERRUPTED, STOPPING, RUNNING, STARTING, QUEUED, UNKNOWN, PENDING)
BUSY = (RUNNING, STARTING, STOPPING)


@dataclass(frozen=True)
class RunView:
    """A run as a table shows it. `ap` is in percent, `remaining` in seconds; None where nothing is known yet."""

    run_id: str
    state: str
    iteration: int = 0
    iterations: int = 0
    images_per_second: float | None = None
    remaining: float | None = None
    ap: float | None = None
    error: str | None = None
    log: str | None = None

    @property
    def done(self) -> float:
        """Share of the iterations, 0 to 1."""
        return self.iteration / self.iterations if self.iterations else float(self.state == COMPLETED)


class Watcher:
    """Reads runs' records; a metrics file is read again only when it has changed."""

    def __init__(self, metric: str = "box/AP") -> None:
        self.metric = metric
        self._seen: dict[str, tuple[tuple[int, int], float | None]] = {}

    def view(
        self, run: Run, iterations: int, images_per_batch: int | None = None, job: JobState | None = None
    ) -> RunView:
        """The run now; `job` is what the place says of its job, where it has one.

        The run's own record counts: one that has ended is not made alive by a job, and one that says `running` while
        no process has the run is interrupted.
        """
        try:
            status = run.status()
        except UserError as error:
            return RunView(run.run_id, FAILED, iterations=iterations, error=error.what, log=str(run.status_file))
        state = status.state
        if state not in ("completed", "failed"):
            state = _living_state(run, status, job)
        done = iteration_of(run, status)
        total = status.iterations or iterations
        speed = status.images_per_second
        remaining = None
        if speed and images_per_batch and state == RUNNING:
            remaining = max(0, total - done) * images_per_batch / speed
        return RunView(
            run_id=run.run_id,
            state=state,
            iteration=done,
            iterations=total,
            images_per_second=speed,
            remaining=remaining,
            ap=self._ap(run, final=state == COMPLETED),
            error=_one_line(status.error) if state == FAILED else None,
            log=str(path) if state in (FAILED, PREEMPTED, INTERRUPTED) and (path := log_of(run)) else None,
        )

    def _ap(self, run: Run, final: bool) -> float | None:
        path = run.evaluation_file if final else run.metrics_file
        try:
            stat = path.stat()
        except OSError:
            return None
        mark = (stat.st_mtime_ns, stat.st_size)
        seen = self._seen.get(str(path))
        if seen is None or seen[0] != mark:
            seen = (mark, self._read(run, final))
            self._seen[str(path)] = seen
        return seen[1]

    def _read(self, run: Run, final: bool) -> float | None:
        try:
            if final:
                value = ((run.evaluation() or {}).get("metrics") or {}).get(self.metric)
            else:
                evaluations = [e for e in run.metrics() if e["kind"] == "evaluation"]
                value = evaluations[-1].get(self.metric) if evaluations else None
        except (UserError, OSError, AttributeError):
            return None
        return float(value) if isinstance(value, int | float) else None


def _living_state(run: Run, status: Status, job: JobState | None) -> str:
    """Of a run that has not ended."""
    held = is_locked(run)
    if held or job is JobState.ACTIVE:
        if job is JobState.ACTIVE and stop_file(run.folder).exists():
            return STOPPING
        return RUNNING if held and status.state == "running" else STARTING
    if job is JobState.QUEUED:
        return QUEUED
    if job is JobState.UNKNOWN:
        return UNKNOWN
    return INTERRUPTED if status.state == "running" else status.state


def log_of(run: Run) -> Path | None:
    """What there is to read of a run: training's own log, else what its job printed."""
    job = read_job(run.folder)
    clusters = [Path(os.path.normpath(run.folder / job.log))] if job and job.log else []
    paths = (run.log_file, output_file(run.folder), *clusters)
    there = [path for path in paths if path.exists()]
    return next((path for path in there if path.stat().st_size), there[0] if there else None)


def _one_line(error: dict[str, Any] | None) -> str:
    """An error of a record, as one line."""
    if not error:
        return "no reason on record"
    lines = str(error.get("message") or "").strip().splitlines()
    if not lines:
        return str(error.get("kind") or "no reason on record")
    if error.get("kind") == "user_error":  # what, the first of its details, and what to do
        return ". ".join([": ".join(line.strip() for line in lines[:2]), *filter(None, [error.get("hint")])])
    # a traceback begins with where, and ends with what
    return lines[-1] if any(line.endswith("Traceback (most recent call last):") for line in lines) else lines[0]


def last_line(path: Path | None) -> str | None:
    """The last line that a process printed: its error, where it died without a record."""
    try:
        lines = path.read_text(errors="replace").strip().splitlines() if path else []
    except OSError:
        return None
    return lines[-1] if lines else None
