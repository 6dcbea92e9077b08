"""Which executor carries out a run: the one asked for, or for a run that has a job, the one that its record names."""

from collections.abc import Collection, Iterator
from pathlib import Path

from mrbench.errors import UserError
from mrbench.launch.executor import TRAIN, Executor, JobState
from mrbench.launch.record import read_job

KINDS = ("local", "slurm")


def place(kind: str, root: Path, entry: str = TRAIN) -> Executor:
    """The executor for `launcher.kind`. Raises UserError for a kind that there is not."""
    if kind == "local":
        from mrbench.launch.local import LocalExecutor

        return LocalExecutor(root, entry)
    if kind == "slurm":
        from mrbench.launch.slurm import SlurmExecutor

        return SlurmExecutor(root, entry)
    raise UserError(f"launcher.kind={kind}: no such place", f"Choose one of {', '.join(KINDS)}.")


class Places:
    """All places at once: each run's job is asked for where it was submitted."""

    def __init__(self, root: Path, entry: str = TRAIN) -> None:
        self.root = root
        self.entry = entry
        self._made: dict[str, Executor] = {}

    def of(self, kind: str) -> Executor:
        if kind not in self._made:
            self._made[kind] = place(kind, self.root, self.entry)
        return self._made[kind]

    def states(self, run_ids: Collection[str]) -> dict[str, JobState]:
        """Of the runs that have a job on record."""
        found: dict[str, JobState] = {}
        for executor, ids in self._groups(run_ids):
            found |= executor.states(ids)
        return found

    def cancel(self, run_ids: Collection[str]) -> None:
        for executor, ids in self._groups(run_ids):
            executor.cancel(ids)

    def kill(self, run_ids: Collection[str]) -> None:
        for executor, ids in self._groups(run_ids):
            executor.kill(ids)

    def output(self, run_id: str) -> Path | None:
        return next((executor.output(run_id) for executor, _ in self._groups([run_id])), None)

    def notes(self) -> list[str]:
        return [note for executor in self._made.values() for note in executor.notes()]

    def _groups(self, run_ids: Collection[str]) -> Iterator[tuple[Executor, list[str]]]:
        groups: dict[str, list[str]] = {}
        for run_id in run_ids:
            record = read_job(self.root / "runs" / run_id)
            if record is not None and record.launcher in KINDS:
                groups.setdefault(record.launcher, []).append(run_id)
        for kind, ids in groups.items():
            yield self.of(kind), ids
