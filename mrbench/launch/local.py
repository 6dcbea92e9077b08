"""Runs on this machine's devices: each submission is carried out by a pool, a process that outlives the terminal."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import mrbench
from mrbench.config.schema import RunConfig
from mrbench.errors import UserError
from mrbench.launch.devices import Slot, Slots, divide
from mrbench.launch.executor import Executor, Job, JobState, Limits
from mrbench.launch.record import (
    JobRecord,
    enter,
    lock_file,
    output_file,
    read_job,
    register,
    stop_file,
    submission_folder,
    update_job,
)
from mrbench.runs import code
from mrbench.runs.files import cannot_write, read_json, write_json
from mrbench.runs.lock import is_held
from mrbench.runs.record import Run, now
from mrbench.runs.state import state_of

HEARTBEAT_TIMEOUT = 300.0  # seconds after which a pool on another machine counts as dead


class LocalExecutor(Executor):
    """This machine. Submitting divides its devices into slots, as `devices.divide` says."""

    def check(self, configs: Sequence[RunConfig], limits: Limits) -> None:
        divide(configs, limits.parallel)

    def submit(self, jobs: Sequence[Job], limits: Limits) -> None:
        slots = divide([job.config for job in jobs], limits.parallel)
        threads = [job.config.runtime.threads or slots.threads for job in jobs]
        jobs = [
            replace(job, config=replace(job.config, runtime=replace(job.config.runtime, threads=count)))
            for job, count in zip(jobs, threads, strict=True)
        ]
        name = register(self.root, "local", jobs, limits)
        folder = submission_folder(self.root, name)
        write_json(folder / "pool.json", asdict(PoolRecord(socket.gethostname(), slots)))
        with _held(pool_lock(folder)) as lock:  # another sweep that reads the jobs' records finds their pool alive
            enter(name, "local", self.entry, jobs)
            start_pool(folder, lock, limits.snapshot)

    def states(self, run_ids: Collection[str]) -> dict[str, JobState]:
        pools: dict[str, bool] = {}
        return {run_id: self._state(run_id, record, pools) for run_id, record in self._records(run_ids)}

    def _state(self, run_id: str, record: JobRecord, pools: dict[str, bool]) -> JobState:
        run = Run(self.root / "runs" / run_id)
        if is_held(lock_file(run.folder)) or (record.ended is None and _is_at_work(run)):
            return JobState.ACTIVE
        if record.ended is not None:
            return JobState.ENDED
        if record.submission not in pools:
            pools[record.submission] = _pool_lives(submission_folder(self.root, record.submission))
        return JobState.QUEUED if pools[record.submission] else JobState.ENDED

    def cancel(self, run_ids: Collection[str]) -> None:
        states = [(r, record, self._state(r, record, {})) for r, record in self._records(run_ids)]
        going = [each for each in states if each[2] is not JobState.ENDED]
        for run_id, *_ in going:  # all of them first, or a pool would begin one in the place of another
            file = stop_file(self.root / "runs" / run_id)
            try:
                file.touch()
            except OSError as error:
                raise cannot_write(file, error) from error
        for run_id, record, state in going:
            if state is JobState.QUEUED:
                update_job(self.root / "runs" / run_id, ended=now())
            else:
                _signal(record, signal.SIGTERM)

    def kill(self, run_ids: Collection[str]) -> None:
        self.cancel(run_ids)
        for run_id, record in self._records(run_ids):
            if is_held(lock_file(self.root / "runs" / run_id)):
                _signal(record, signal.SIGKILL)

    def output(self, run_id: str) -> Path | None:
        path = output_file(self.root / "runs" / run_id)
        return path if path.exists() else None

    def notes(self) -> list[str]:
        """What the pools that are at work wait for."""
        found = []
        for folder in sorted((self.root / "submissions").glob("local-*")):
            waiting = read_json(folder / "note.json")
            if waiting and _pool_lives(folder):
                found.append(str(waiting))
        return found

    def _records(self, run_ids: Collection[str]) -> Iterator[tuple[str, JobRecord]]:
        for run_id in run_ids:
            record = read_job(self.root / "runs" / run_id)
            if record is not None and record.launcher == "local":
                yield run_id, record


@dataclass(frozen=True)
class PoolRecord:
    """pool.json: the machine that a pool is on, and the slots that it may use."""

    host: str
    slots: Slots


def read_pool(submission: Path) -> PoolRecord | None:
    """None where there is none, or it is damaged."""
    try:
        found: Any = read_json(submission / "pool.json")
        slots = found["slots"]
        places = tuple(Slot(**place) for place in slots["places"])
        return PoolRecord(found["host"], Slots(places, slots["parallel"], slots["threads"]))
    except (UserError, TypeError, KeyError):
        return None


def pool_lock(submission: Path) -> Path:
    """Held, and touched every few seconds, by the pool of a submission as long as it lives."""
    return submission / "lock"


@contextmanager
def _held(path: Path) -> Iterator[int]:
    """The descriptor of a file that is locked as long as it, or a process that inherits it, is open.

    Raises UserError where the file cannot be written.
    """
    try:
        file = path.open("a")
    except OSError as error:
        raise cannot_write(path, error) from error
    with file:
        with suppress(OSError):  # a file system without locks: the pool's heartbeat has to do
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def start_pool(submission: Path, lock: int, snapshot: Path | None = None) -> None:
    """Starts a submission's pool, which inherits the descriptor of its lock, and so is alive from the first moment on.

    It and its jobs run from `snapshot`, a copy of the code, where one is given.
    """
    path = submission / "log.txt"
    try:
        with path.open("ab") as log:
            subprocess.Popen(
                command("mrbench.launch.pool", submission),
                env={**environment(), **code.environment(snapshot)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=[lock],
            )
    except OSError as error:
        raise cannot_write(path, error) from error


def command(module: str, argument: Path) -> list[str]:
    """What starts a process of ours. -P: a file of the current folder never takes the place of a module."""
    return [sys.executable, "-P", "-m", module, str(argument)]


def environment() -> dict[str, str]:
    """This process's, with the code that it runs found first."""
    ours = str(Path(mrbench.__file__).parents[1])
    known = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", **os.environ}  # as nvidia-smi counts GPUs
    return {**known, "PYTHONPATH": os.pathsep.join(filter(None, [ours, os.environ.get("PYTHONPATH")]))}


def _pool_lives(submission: Path) -> bool:
    if is_held(pool_lock(submission)):
        return True
    pool = read_pool(submission)
    if pool is None or pool.host == socket.gethostname():
        return False
    with suppress(OSError):  # another machine's locks may not reach us
        return time.time() - pool_lock(submission).stat().st_mtime < HEARTBEAT_TIMEOUT
    return False


def _is_at_work(run: Run) -> bool:
    """Whether the run's own record says that a process has it, on any machine."""
    try:
        status = run.status()
    except UserError:
        return False
    return state_of(run, status) == "running"


def _signal(record: JobRecord, signum: int) -> None:
    """To the job's process where it is on this machine; a stop file reaches the others."""
    if record.pid is None or record.host != socket.gethostname():
        return
    with suppress(ProcessLookupError, PermissionError):
        if signum == signal.SIGKILL:
            kill_group(record.pid)
        os.kill(record.pid, signum)


def kill_group(leader: int) -> None:
    """Ends all processes that a job started; nothing where `leader` leads no group."""
    with suppress(ProcessLookupError, PermissionError):
        if os.getpgid(leader) == leader:
            os.killpg(leader, signal.SIGKILL)
