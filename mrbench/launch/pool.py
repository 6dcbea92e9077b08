"""The process that carries out a submission on this machine: begins runs as devices come free, until all have ended.

    python -m mrbench.launch.pool ROOT/submissions/NAME

It may die at any moment: its jobs go on, holding their devices, and whatever it had not begun is begun by the next
sweep. All that it needs is on disk.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mrbench.config.schema import RunConfig
from mrbench.errors import UserError
from mrbench.launch.devices import short_of_memory
from mrbench.launch.local import command, environment, kill_group, pool_lock, read_pool
from mrbench.launch.progress import last_line
from mrbench.launch.record import (
    job_config,
    lock_file,
    output_file,
    read_job,
    read_submission,
    stop_file,
    too_many_failures,
    update_job,
)
from mrbench.launch.slots import Held, Turn
from mrbench.runs.files import write_json
from mrbench.runs.lock import is_held, is_locked
from mrbench.runs.record import Run, now

INTERVAL = 0.2  # seconds between two looks at the jobs
HEARTBEAT = 10.0  # seconds between two touches of the pool's lock
PATIENCE = 10.0  # seconds until GPUs without enough free memory are looked at again
STARTS = 3  # how often a run is begun again whose process vanishes without having got any further


@dataclass
class _Progress:
    """How often a run was begun since it last got further, and how far it was then."""

    starts: int = 0
    iteration: int = -1


class Pool:
    """Carries out the submission whose folder it is given."""

    def __init__(self, folder: Path) -> None:
        submission, record = read_submission(folder.parents[1], folder.name), read_pool(folder)
        if submission is None or record is None:
            raise UserError(f"{folder} is damaged", "Sweep again: runs that are complete are found again.")
        self.folder = folder
        self.root = folder.parents[1]
        self.slots = record.slots
        self.turn = Turn(record.slots.places)
        self.waiting = list(submission.runs)
        self.active: dict[str, subprocess.Popen[bytes]] = {}
        self.progress: dict[str, _Progress] = {}
        self.configs: dict[str, RunConfig] = {}
        self.note = ""
        self.short: dict[str, tuple[str, float]] = {}  # device -> why not there, and when that was seen
        self._touched = -float("inf")

    def carry_out(self) -> None:
        """Until every run has ended, or is in nobody's hands because it was cancelled or too many failed."""
        while self.waiting or self.active:
            began = time.process_time()
            self._beat()
            self._reap()
            if self.waiting and too_many_failures(self.root, self.folder.name):
                self._drop(list(self.waiting))
            self._begin()
            time.sleep(max(INTERVAL, 20 * (time.process_time() - began)))  # the cores are for the runs
        self.turn.leave()

    def _run(self, run_id: str) -> Run:
        return Run(self.root / "runs" / run_id)

    def _config(self, run_id: str) -> RunConfig:
        """Read once: what a job is to run with does not change after its submission."""
        if run_id not in self.configs:
            self.configs[run_id] = job_config(self._run(run_id).folder)
        return self.configs[run_id]

    def _beat(self) -> None:
        if time.monotonic() - self._touched > HEARTBEAT:
            self._touched = time.monotonic()
            with suppress(OSError):
                os.utime(pool_lock(self.folder))

    def _reap(self) -> None:
        for run_id, process in list(self.active.items()):
            # It is left to be waited for until its group is ended, so that the group's number stays its own.
            if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                continue
            kill_group(process.pid)
            process.wait()
            del self.active[run_id]
            if self._is_open(run_id):
                self._vanished(run_id)

    def _vanished(self, run_id: str) -> None:
        """A run whose process ended without a word is begun again, unless that does not bring it further."""
        if self.progress[run_id].starts < STARTS:
            self.waiting.insert(0, run_id)
            update_job(self._run(run_id).folder, ended=None)
            return
        run = self._run(run_id)
        said = last_line(output_file(run.folder)) or "its process ended before it began"
        message = f"its process vanished {STARTS} times without getting further: {said}"
        run.update(state="failed", ended=now(), error={"kind": "process_vanished", "message": message})
        self._drop([run_id])

    def _is_open(self, run_id: str) -> bool:
        """Whether something is left to be done for a run: it has not ended, nor has anybody stopped it."""
        run = self._run(run_id)
        try:
            status = run.status()
        except UserError:
            return False
        return status.state in ("pending", "running") and not stop_file(run.folder).exists()

    def _begin(self) -> None:
        for run_id in self._free_runs():
            config = self._config(run_id)
            count = self.slots.needed(config)
            if len(self.active) >= self.slots.parallel:
                if self.slots.parallel * count < len(self.slots.places):
                    break  # there is more than it may have: those behind it may
                return
            held = self._take(count, config.launcher.min_free_memory)
            if held is None:
                return  # the run behind it waits as well: one that wants several devices would never get them
            try:
                threads = config.runtime.threads or self.slots.threads
                self.active[run_id] = self._start(run_id, held, threads)
            finally:
                held.close()
            self.waiting.remove(run_id)
        self.turn.leave()

    def _free_runs(self) -> Iterator[str]:
        """The runs that can be begun now; forgets those that others have ended."""
        for run_id in list(self.waiting):
            folder = self._run(run_id).folder
            if is_held(lock_file(folder)) or is_locked(self._run(run_id)):
                continue  # another pool's, or a person's: taken over should it be left unfinished
            if self._is_resumable(run_id):
                yield run_id
            else:
                self._drop([run_id])

    def _is_resumable(self, run_id: str) -> bool:
        """As `_is_open`, with runs that were preempted: those are submitted to go on."""
        run = self._run(run_id)
        try:
            state = run.status().state
        except UserError:
            return False
        return state in ("pending", "running", "preempted") and not stop_file(run.folder).exists()

    def _take(self, count: int, gib: float | None) -> Held | None:
        """Slots for a run, where there is memory for it."""
        self.short = {d: (why, at) for d, (why, at) in self.short.items() if time.monotonic() - at < PATIENCE}
        while True:
            held = self.turn.take(count, self.short)
            if held is None:
                self._tell("; ".join(why for why, _ in self.short.values()))
                return None
            short = short_of_memory(held.slots, gib)
            if not short:
                self._tell("")
                return held
            held.close()
            self.short |= {device: (why, time.monotonic()) for device, why in short.items()}

    def _tell(self, note: str) -> None:
        if note != self.note:
            self.note = note
            write_json(self.folder / "note.json", note)

    def _start(self, run_id: str, held: Held, threads: int) -> subprocess.Popen[bytes]:
        run = self._run(run_id)
        iteration = run.status().iteration
        progress = self.progress.setdefault(run_id, _Progress())
        progress.starts = progress.starts + 1 if iteration <= progress.iteration else 1
        progress.iteration = iteration
        with output_file(run.folder).open("ab") as output:
            return subprocess.Popen(
                command("mrbench.launch.job", run.folder),
                env={
                    **environment(),
                    "CUDA_VISIBLE_DEVICES": ",".join(slot.gpu for slot in held.slots if slot.gpu),
                    "OMP_NUM_THREADS": str(threads),
                    "MRBENCH_SLOT": ",".join(slot.name for slot in held.slots),
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=held.descriptors,
            )

    def _drop(self, run_ids: list[str]) -> None:
        for run_id in run_ids:
            with suppress(ValueError):
                self.waiting.remove(run_id)
            record = read_job(self._run(run_id).folder)
            if record is not None and record.submission == self.folder.name and record.ended is None:
                update_job(self._run(run_id).folder, ended=now())


if __name__ == "__main__":
    path = Path(sys.argv[1])
    Pool(path).carry_out()
    shutil.rmtree(path, ignore_errors=True)  # what is left to know stands in the runs' records
