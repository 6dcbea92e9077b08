"""Runs on this machine: a pool that gives each job its devices, on submitit's local executor."""

import os
import shutil
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import submitit
from submitit.local.local import LocalJob

from mrbench.launch.devices import Slot, Slots
from mrbench.launch.executor import TRAIN, Executor, Job, JobState
from mrbench.launch.job import run_job
from mrbench.runs.files import cannot_write
from mrbench.runs.lock import is_held

TEN_YEARS = 60 * 24 * 3650  # minutes; submitit's local jobs must have a limit, and its default is two minutes


class _OwnSession(submitit.LocalExecutor):
    """submitit's local executor, whose jobs are each a session of their own with the environment they are given.

    In the terminal's group a Ctrl-C would reach them all and end them without a checkpoint.
    """

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        super().__init__(folder)
        self.environment = environment
        self.update_parameters(timeout_min=TEN_YEARS, stderr_to_stdout=True)

    def _submit_command(self, command: str) -> LocalJob[Any]:
        environment = {
            **os.environ,
            "SUBMITIT_EXECUTOR": "local",
            "SUBMITIT_LOCAL_COMMAND": command,
            "SUBMITIT_LOCAL_JOB_NUM_NODES": "1",
            "SUBMITIT_LOCAL_NODEID": "0",
            "SUBMITIT_LOCAL_NTASKS": "1",
            "SUBMITIT_LOCAL_SIGNAL_DELAY_S": "0",
            "SUBMITIT_LOCAL_TIMEOUT_S": str(60 * TEN_YEARS),
            "SUBMITIT_LOCAL_WITH_SHELL": "",
            "SUBMITIT_STDERR_TO_STDOUT": "1",
            **self.environment,
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "submitit.local._local", str(self.folder)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        return LocalJob(folder=self.folder, job_id=str(process.pid), process=process, tasks=[0])


@dataclass
class _Active:
    """A job that has been started."""

    job: Job
    handle: LocalJob[Any]
    slots: list[Slot]
    folder: Path

    @property
    def process(self) -> subprocess.Popen[bytes]:
        process = self.handle._process
        assert process is not None
        return process


class LocalExecutor(Executor):
    """A pool over this machine's slots. It lives in the process that made it; its jobs are processes apart.

    `root` is the folder of the runs, beneath which slots are held against other sweeps into the same folder.
    `entry` is what a job calls, see `executor.TRAIN`.
    """

    def __init__(self, root: Path, slots: Slots, entry: str = TRAIN) -> None:
        self.root = root.resolve()
        self.slots = slots
        self.parallel = slots.parallel
        self.entry = entry
        self._queue: deque[Job] = deque()
        self._active: dict[str, _Active] = {}
        self._ended: set[str] = set()

    def submit(self, jobs: Sequence[Job]) -> None:
        self._queue.extend(jobs)
        self._ended.difference_update(job.run_id for job in jobs)

    def poll(self) -> dict[str, JobState]:
        for run_id, active in list(self._active.items()):
            if _has_ended(active.process):
                self._finish(active)
                del self._active[run_id]
                self._ended.add(run_id)
        while self._queue and len(self._active) < self.parallel:
            places = self._free(self.slots.needed(self._queue[0].config))
            if places is None:
                break
            job = self._queue.popleft()
            self._active[job.run_id] = self._start(job, places)
        states = dict.fromkeys(self._ended, JobState.ENDED)
        states |= dict.fromkeys((job.run_id for job in self._queue), JobState.QUEUED)
        return states | dict.fromkeys(self._active, JobState.ACTIVE)

    def cancel(self) -> None:
        self._ended.update(job.run_id for job in self._queue)
        self._queue.clear()
        for active in self._active.values():
            # the file is for a process that is too young to hear the signal
            with suppress(OSError):  # a full disk
                _stop_file(active.folder).touch()
            with suppress(ProcessLookupError):
                active.process.send_signal(signal.SIGTERM)  # submitit's controller passes it on

    def kill(self) -> None:
        self._queue.clear()
        for active in self._active.values():
            _kill_group(active.process)

    def output(self, run_id: str) -> Path | None:
        found = sorted((self.root / "runs" / run_id / "job").glob("*_log.out"))
        return found[-1] if found else None

    def _free(self, count: int) -> list[Slot] | None:
        """Slots for one run, on devices that differ; None while there are not enough."""
        taken = {slot.name for active in self._active.values() for slot in active.slots}
        chosen: dict[str, Slot] = {}
        for slot in self.slots.places:
            device = slot.gpu or slot.name
            if slot.name in taken or device in chosen or is_held(slot.lock_file(self.root)):
                continue
            chosen[device] = slot
            if len(chosen) == count:
                return list(chosen.values())
        return None

    def _start(self, job: Job, places: list[Slot]) -> _Active:
        folder = job.folder.resolve() / "job"
        shutil.rmtree(folder, ignore_errors=True)  # an earlier attempt's
        runtime = job.config.runtime
        threads = runtime.threads or self.slots.threads
        environment = {
            "CUDA_VISIBLE_DEVICES": ",".join(s.gpu for s in places if s.gpu),
            "OMP_NUM_THREADS": str(threads),
            "MRBENCH_SLOT": ",".join(s.name for s in places),
        }
        config = replace(job.config, runtime=replace(runtime, threads=threads))
        locks = [str(s.lock_file(self.root)) for s in places]
        executor = _OwnSession(folder, environment)
        try:
            handle = executor.submit(
                run_job,
                str(job.folder.resolve()),
                config,
                list(job.command),
                self.entry,
                str(_stop_file(folder)),
                locks,
            )
        except OSError as error:
            raise cannot_write(folder, error) from error
        assert isinstance(handle, LocalJob)
        return _Active(job, handle, places, folder)

    def _finish(self, active: _Active) -> None:
        """Ends what a dead job may have left behind, and removes submitit's files but for what was printed."""
        _kill_group(active.process)
        active.process.wait()
        for path in active.folder.glob("*"):
            if not path.name.endswith("_log.out"):
                path.unlink(missing_ok=True)


def _stop_file(folder: Path) -> Path:
    return folder / "stop"


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether it has ended; it is left to be waited for, so that its group's number stays its own."""
    if process.returncode is not None:
        return True
    found = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    return found is not None


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
