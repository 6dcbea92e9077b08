"""Where runs are carried out: one interface for every kind of place, usable from any process on any later day.

An executor holds no state of its own that matters: what was submitted stands in each run's `job/` folder
(`record.JobRecord`), what became of the run in the run's own record. So a sweep may be looked at, cancelled or gone
on with from another terminal, or after whoever began it has died.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from mrbench.config.schema import RunConfig

TRAIN = "mrbench.engine.train:train"
"""What a job calls with (run, config): looked up in the job's own process, so that no launcher imports torch."""


@dataclass(frozen=True)
class Job:
    """One run to carry out: its folder, which exists, its configuration, and the command that its record names."""

    folder: Path
    config: RunConfig
    command: tuple[str, ...] = ()

    @property
    def run_id(self) -> str:
        return self.folder.name


@dataclass(frozen=True)
class Limits:
    """Of one submission: how many of its runs go on at once, how many may fail before no more are begun, and the copy
    of the code that they run from, where it is not the code that submits them."""

    parallel: int | None = None
    max_failures: int | None = None
    snapshot: Path | None = None


class JobState(StrEnum):
    """What has become of a job. It says nothing of the run's success: that is in the run's own record."""

    QUEUED = "queued"
    ACTIVE = "active"
    ENDED = "ended"
    UNKNOWN = "unknown"  # who has it does not answer; it may still go on, so it is not to be submitted again


class Executor(ABC):
    """Carries out the runs under `root`. Nothing is ever cancelled but by `cancel` and `kill`.

    `entry` is what a job calls, see `TRAIN`.
    """

    def __init__(self, root: Path, entry: str = TRAIN) -> None:
        self.root = root.resolve()
        self.entry = entry

    def check(self, configs: Sequence[RunConfig], limits: Limits) -> None:  # noqa: B027  nothing to ask at some places
        """Raises UserError where this place could never carry out such runs. Writes nothing."""

    @abstractmethod
    def submit(self, jobs: Sequence[Job], limits: Limits) -> None:
        """Takes jobs on, in this order, and returns at once; they outlive this process.

        Writes each run's job record (`record.begin`) before anything can start. A run whose job has ended may be
        submitted again. Raises UserError where the place refuses, with nothing half submitted.
        """

    @abstractmethod
    def states(self, run_ids: Collection[str]) -> dict[str, JobState]:
        """Of the runs' latest jobs, from the records on disk and at most one call to a scheduler.

        A run without a job of this kind of place on record is left out.
        """

    @abstractmethod
    def cancel(self, run_ids: Collection[str]) -> None:
        """Drops what is queued, and asks what is active to write a checkpoint and end. Returns at once."""

    @abstractmethod
    def kill(self, run_ids: Collection[str]) -> None:
        """Ends at once what `cancel` could not; a run goes on later from its last checkpoint."""

    @abstractmethod
    def output(self, run_id: str) -> Path | None:
        """What the run's latest job printed, where there is such a file."""

    def notes(self) -> list[str]:
        """What to tell the person about the place, as "accounting is off"; asked for after the other calls."""
        return []
