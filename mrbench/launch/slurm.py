"""Runs on a Slurm cluster: job arrays through submitit; Slurm is asked about all of them in one call."""

import fcntl
import io
import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError

import mrbench
from mrbench.errors import UserError
from mrbench.launch import slurm_commands, slurm_parameters
from mrbench.launch.executor import Executor, Job, JobState, Limits
from mrbench.launch.record import JobRecord, begin, job_folder, read_job, stop_file, submission_folder, update_job
from mrbench.launch.slurm_commands import Asked, SlurmError
from mrbench.launch.slurm_task import run_task
from mrbench.runs.files import cannot_write
from mrbench.runs.record import Run

SUBMITTING = 60.0  # seconds that sbatch may take
GONE = ("BOOT_FAIL", "CANCELLED", "DEADLINE", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT", "FAILED")


class SlurmExecutor(Executor):
    """Submits runs as job arrays, one for all runs that ask for the same of a node.

    Whether a job lives is asked of squeue; how one ended that left its run unfinished, of sacct, once for all.
    """

    def __init__(self, root: Path, entry: str) -> None:
        super().__init__(root, entry)
        self._asked = Asked()
        self._ends: dict[str, str] = {}  # job id -> how it ended, where its run's own record does not say
        self._notes: dict[str, None] = {}
        self._waiting: list[str] = []  # notes on what is in the queue now

    def submit(self, jobs: Sequence[Job], limits: Limits) -> None:
        slurm_commands.require("sbatch", "srun", "squeue", "scontrol", "scancel")
        cluster = slurm_commands.cluster()
        if not cluster.accounting:
            self._note(NO_ACCOUNTING)
        with _one_at_a_time(self.root):
            self._asked.forget()
            taken = self.states([job.run_id for job in jobs])  # another sweep may just have submitted some
            left = [job for job in jobs if taken.get(job.run_id, JobState.ENDED) is JobState.ENDED]
            if left:
                self._submit(left, limits, cluster.largest_array)
        self._asked.forget()

    def _submit(self, jobs: Sequence[Job], limits: Limits, largest_array: int) -> None:
        name = begin(self.root, "slurm", self.entry, jobs, limits)
        folder = submission_folder(self.root, name)
        parallel = limits.parallel or jobs[0].config.launcher.parallel
        code = limits.snapshot or Path(mrbench.__file__).parents[1]
        submitted: list[str] = []
        try:
            for array in _arrays(jobs, largest_array):
                # a cap on how many go on at once is one array's own: the next one waits for it
                after = submitted[-1] if parallel and submitted else None
                parameters = slurm_parameters.of(array[0].config, parallel or len(array), after, code)
                submitted.append(_submit_array(array, folder, parameters))
        except (UserError, OSError) as error:
            if submitted:
                slurm_commands.scancel(submitted)
            for job in jobs:
                shutil.rmtree(job_folder(job.folder), ignore_errors=True)
            if isinstance(error, OSError):
                raise cannot_write(folder, error) from error
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def states(self, run_ids: Collection[str]) -> dict[str, JobState]:
        records = self._records(run_ids)
        ids = {record.job_id for record in records.values() if record.job_id}
        try:
            lives = self._asked.squeue(ids)
        except SlurmError as error:
            self._note(f"Slurm does not answer: {error}")
            return dict.fromkeys(records, JobState.UNKNOWN)
        found = {r: _state(lives.get(record.job_id or ""), record) for r, record in records.items()}
        self._ask_for_ends({r: records[r] for r, state in found.items() if state is JobState.ENDED}, lives)
        reasons = [lives[job][1] for job in ids if job in lives and lives[job][0] == "PENDING"]
        never = sorted(set(reasons) & NEVER.keys())
        self._waiting = [f"Slurm does not start some of the jobs ({reason}): {NEVER[reason]}." for reason in never]
        if held := sum("Held" in reason for reason in reasons):
            self._waiting.append(f"{held} of the jobs are held in Slurm's queue: scontrol release JOB lets one go.")
        return found

    def cancel(self, run_ids: Collection[str]) -> None:
        records = self._records(run_ids)
        for run_id in records:  # a running job looks for it; one that has not begun never will
            with suppress(OSError):
                stop_file(self._folder(run_id)).touch()
        slurm_commands.scancel([r.job_id for r in records.values() if r.job_id], "--state=PENDING")
        self._asked.forget()

    def kill(self, run_ids: Collection[str]) -> None:
        self.cancel(run_ids)
        slurm_commands.scancel([r.job_id for r in self._records(run_ids).values() if r.job_id])
        self._asked.forget()

    def output(self, run_id: str) -> Path | None:
        record = read_job(self._folder(run_id))
        if record is None or record.log is None:
            return None
        path = Path(os.path.normpath(self._folder(run_id) / record.log))
        return path if path.exists() else None

    def notes(self) -> list[str]:
        return [*self._notes, *self._waiting]

    def _folder(self, run_id: str) -> Path:
        return self.root / "runs" / run_id

    def _records(self, run_ids: Collection[str]) -> dict[str, JobRecord]:
        found = ((run_id, read_job(self._folder(run_id))) for run_id in run_ids)
        return {run_id: record for run_id, record in found if record is not None and record.launcher == "slurm"}

    def _note(self, text: str) -> None:
        self._notes[text] = None

    def _ask_for_ends(self, records: dict[str, JobRecord], lives: dict[str, tuple[str, str]]) -> None:
        """Notes how Slurm ended jobs whose runs cannot say it themselves."""
        left = {}
        for run_id, record in records.items():
            if record.job_id and record.job_id not in self._ends and not _has_ended(Run(self._folder(run_id))):
                left[record.job_id] = run_id
        known = {job: lives[job][0] for job in left if job in lives}
        if unknown := left.keys() - known.keys():
            try:
                known |= slurm_commands.sacct(unknown)
            except SlurmError:
                self._note(NO_ACCOUNTING)
        for job, run_id in left.items():
            self._ends[job] = known.get(job, "")
            if self._ends[job].startswith(GONE) and not stop_file(self._folder(run_id)).exists():
                self._note(f"Slurm ended job {job} ({run_id}): {self._ends[job]}")


NO_ACCOUNTING = (
    "Slurm's accounting is off: squeue and the runs' own records have to do, and how Slurm ended a job is known only "
    "for some minutes."
)
NEVER = {
    "PartitionTimeLimit": "launcher.time is more than the partition allows",
    "PartitionNodeLimit": "launcher.nodes is more than the partition has",
    "BadConstraints": "no node is as launcher.constraint asks",
    "DependencyNeverSatisfied": "a job that they wait for cannot end any more",
    "AssocMaxJobsLimit": "the account's limit of jobs is reached",
    "InvalidAccount": "launcher.account is not known, or not yours",
    "InvalidQOS": "launcher.qos is not known, or not yours",
}


def _has_ended(run: Run) -> bool:
    try:
        return run.status().state in ("completed", "failed")
    except UserError:
        return True


def _state(life: tuple[str, str] | None, record: JobRecord) -> JobState:
    if record.job_id is None:  # another process is about to submit it, or has died over it
        age = datetime.now(UTC) - datetime.fromisoformat(record.submitted)
        return JobState.UNKNOWN if age.total_seconds() < SUBMITTING else JobState.ENDED
    if life is None or life[0].startswith((*GONE, "COMPLETED", "REVOKED")):
        return JobState.ENDED
    if life[0] in ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT"):
        return JobState.QUEUED
    return JobState.ACTIVE


@contextmanager
def _one_at_a_time(root: Path) -> Iterator[None]:
    """Two sweeps that come at once submit one after the other, and the second one sees what the first one did."""
    path = root / "submissions" / ".lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        raise cannot_write(path, error) from error
    with file:
        with suppress(OSError):  # a file system without locks: the job that comes second finds the run taken
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _arrays(jobs: Sequence[Job], largest: int) -> Iterator[list[Job]]:
    """Runs that ask for the same of a node, in arrays of at most `largest`."""
    groups: dict[tuple[object, ...], list[Job]] = {}
    for job in jobs:
        groups.setdefault(slurm_parameters.key(job.config), []).append(job)
    for group in groups.values():
        for first in range(0, len(group), largest):
            yield group[first : first + largest]


@contextmanager
def _outside_of_jobs() -> Iterator[None]:
    """What Slurm has set for a job that this process is part of must not reach the jobs that it submits."""
    before = dict(os.environ)
    if "SLURM_JOB_ID" in os.environ:
        for name in before:
            if name.startswith(("SLURM_", "SLURMD_", "SRUN_")) and name != "SLURM_CONF":
                del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(before)


def _submit_array(jobs: Sequence[Job], folder: Path, parameters: dict[str, Any]) -> str:
    """Submits runs that ask for the same, and writes down their jobs; returns the array's id. Raises UserError."""
    executor = submitit.SlurmExecutor(folder)
    executor.update_parameters(**parameters)
    try:
        # the error has what submitit would print
        with redirect_stderr(io.StringIO()), _outside_of_jobs(), executor.batch():
            handles = [executor.submit(run_task, str(job.folder.resolve())) for job in jobs]
    except FailedJobError as error:
        raise slurm_commands.rejected(str(error)) from error
    for job, handle in zip(jobs, handles, strict=True):
        log = os.path.relpath(handle.paths.stdout, job.folder.resolve())
        update_job(job.folder, job_id=handle.job_id, log=log)
    return str(handles[0].job_id).partition("_")[0]
