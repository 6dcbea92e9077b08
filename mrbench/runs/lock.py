"""One process a run: a lock that the system drops when its holder dies."""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from mrbench.errors import UserError
from mrbench.runs.files import cannot_write
from mrbench.runs.record import Run

_held: set[IO[bytes]] = set()


def _let_go_in_child() -> None:
    """A forked process (a loader's worker) shares the lock, and would keep it when its parent is killed."""
    for file in _held:
        file.close()


os.register_at_fork(after_in_child=_let_go_in_child)


@contextmanager
def run_lock(run: Run) -> Iterator[None]:
    """Holds the run for this process. Raises UserError, naming the holder, where another one has it."""
    path = run.folder / ".lock"
    try:
        file = path.open("ab+", buffering=0)  # nothing is left to be written as it is closed
    except OSError as error:
        raise cannot_write(path, error) from error
    with file:
        try:
            _take(file)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().decode().strip() or "unknown"
            raise UserError(
                f"Another process is working on {run.run_id} ({holder})",
                f"Wait for it, or look at it: mrbench runs show {run.run_id}",
            ) from error
        file.truncate(0)
        try:
            file.write(f"pid {os.getpid()} on {socket.gethostname()}".encode())
        except OSError as error:
            raise cannot_write(path, error) from error
        _held.add(file)
        try:
            yield
        finally:
            _held.discard(file)
            file.truncate(0)


def _take(file: IO[bytes]) -> None:
    """Locks `file`, trying twice: whoever only asks whether it is held (`is_held`) has it for an instant."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(0.2)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_locked(run: Run) -> bool:
    """Whether a living process on this machine (or file system) holds the run."""
    return is_held(run.folder / ".lock")


def is_held(path: Path) -> bool:
    """Whether a living process holds the lock on `path`. A file that is not there is not held."""
    try:
        with path.open("r") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
