"""Where runs are carried out: one interface for every kind of place."""

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
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


class JobState(StrEnum):
    """What has become of a job. It says nothing of the run's success: that is in the run's own record."""

    QUEUED = "queued"
    ACTIVE = "active"
    ENDED = "ended"


class Executor(ABC):
    """Carries out jobs. Nothing is ever cancelled but by `cancel` and `kill`."""

    parallel: int
    """How many runs it carries out at once."""

    @abstractmethod
    def submit(self, jobs: Sequence[Job]) -> None:
        """Takes jobs on, in this order. A run that has ended may be submitted again."""

    @abstractmethod
    def poll(self) -> dict[str, JobState]:
        """run id -> state, for all jobs ever submitted. Starts what can be started."""

    @abstractmethod
    def cancel(self) -> None:
        """Drops what is queued and asks what is active to save its state and end."""

    @abstractmethod
    def kill(self) -> None:
        """Ends at once what `cancel` could not; a run goes on later from its last checkpoint."""

    @abstractmethod
    def output(self, run_id: str) -> Path | None:
        """What the run's latest job printed, where there is such a file."""

    def active(self) -> list[str]:
        return [run_id for run_id, state in self.poll().items() if state is JobState.ACTIVE]

    def wait(self, seconds: float, interval: float = 0.1) -> bool:
        """Waits until nothing is queued or active; False when it is not so after `seconds`."""
        end = time.monotonic() + seconds
        while any(state is not JobState.ENDED for state in self.poll().values()):
            if time.monotonic() > end:
                return False
            time.sleep(interval)
        return True
