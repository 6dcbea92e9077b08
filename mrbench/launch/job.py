"""What runs in a job's own process: one run from its start, or from its last checkpoint, to its end.

    python -m mrbench.launch.job RUN_FOLDER

All that it needs stands in the run's `job/` folder (`record`). The process is started with its environment (devices,
threads) already set, because libraries read it when they are imported. What becomes of the run is written in the
run's record; the process's exit code is not looked at.
"""

import fcntl
import importlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from mrbench.errors import UserError
from mrbench.launch.record import (
    JobRecord,
    job_config,
    lock_file,
    read_job,
    read_submission,
    stop_file,
    too_many_failures,
    update_job,
)
from mrbench.runs.code import expect
from mrbench.runs.files import cannot_write
from mrbench.runs.lock import is_locked
from mrbench.runs.record import Run, now

LOOK_SECONDS = 1.0  # between two looks for the stop file


def run_job(folder: str, **about: Any) -> None:
    """Carries out the run in `folder` by calling its job's entry ("module:function") with (run, config).

    Does nothing where the run has ended or another process carries it out, where it was cancelled, and where too many
    runs that were submitted with it have failed. `about` are further fields of the job's record (`record.JobRecord`).
    """
    # Until training takes over, being asked to stop means just to leave.
    signal.signal(signal.SIGTERM, _leave)
    run = Run(Path(folder).resolve())
    with _claim(run) as mine:
        record = read_job(run.folder)
        if not mine or record is None:
            print(f"{run.run_id}: another process carries it out", file=sys.stderr)
            return
        # Another job may have ended the run since this one was begun; who retries a failed one sets it back first.
        ended = run.status().state in ("completed", "failed")
        if ended or stop_file(run.folder).exists() or too_many_failures(run.folder.parents[1], record.submission):
            update_job(run.folder, ended=now())
            return
        slots = [name for name in os.environ.get("MRBENCH_SLOT", "").split(",") if name]
        update_job(
            run.folder, host=socket.gethostname(), pid=os.getpid(), started=now(), ended=None, slots=slots, **about
        )
        threading.Thread(target=_obey, args=(stop_file(run.folder),), daemon=True).start()
        try:
            carry_out(run, record)
        finally:
            with suppress(UserError):  # a full disk; the lock says as much
                update_job(run.folder, ended=now())


@contextmanager
def _claim(run: Run) -> Iterator[bool]:
    """Holds the run's job for this process's life; False where another one has it."""
    path = lock_file(run.folder)
    try:
        file = path.open("a")
    except OSError as error:
        raise cannot_write(path, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError:  # a file system without locks: the run's own record has to do
            pass
        os.register_at_fork(after_in_child=file.close)  # a loader's worker that outlives this process is no job
        yield True


def carry_out(run: Run, record: JobRecord) -> None:
    sys.argv = ["mrbench", *record.command]  # for the run's provenance: what would run it by hand
    submission = read_submission(run.folder.parents[1], record.submission)
    try:
        expect(submission.code if submission else None, run)
        module, function = record.entry.split(":")
        getattr(importlib.import_module(module), function)(run, job_config(run.folder))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)  # in the job's output; a traceback is for bugs
        _record_failure(run, error)
    except Exception as error:
        _record_failure(run, error)
        raise


def _obey(stop: Path) -> None:
    """Passes a cancellation on as the signal that training knows, wherever it was given: a signal reaches one host."""
    while not stop.exists():
        threading.Event().wait(LOOK_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


def _leave(signum: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + signum)


def _record_failure(run: Run, error: Exception) -> None:
    """Enters an error in the record, unless training has done so, or the run is in another process's hands."""
    mistake = isinstance(error, UserError)  # training may have left the record as it was: of an attempt stopped before
    if run.status().state in ("completed", "failed", *([] if mistake else ["preempted"])) or is_locked(run):
        return
    if isinstance(error, UserError):
        reason = {"kind": "user_error", "message": error.what, "hint": error.hint}
    else:
        reason = {"kind": type(error).__name__, "message": str(error) or type(error).__name__}
    run.update(state="failed", ended=now(), error=reason)


def main(folder: str) -> int:
    """`run_job` in a process of its own: its exit code. How a run ends before its time is one line, no traceback."""
    from mrbench.engine.failures import RunFailed
    from mrbench.engine.signals import Preempted

    try:
        run_job(folder)
    except RunFailed as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    except Preempted as error:
        print(f"{error}: the next sweep goes on from there.", file=sys.stderr)
        return 128 + error.signum
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
