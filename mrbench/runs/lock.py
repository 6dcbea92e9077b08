"""One process a run, and whether it still lives: a lock that the system drops with its holder, and a heartbeat.

On one machine the lock says all. Between machines a lock may not be seen, and some file systems have none: then the
holder's name (process and host), which its lock file holds, and the file's time, which it renews every `BEAT`
seconds, tell whether it lives.
"""

import errno
import fcntl
import os
import re
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mrbench.errors import UserError
from mrbench.runs.files import cannot_write
from mrbench.runs.record import Run

BEAT = 20.0  # seconds between two signs of life
SILENT = 180.0  # seconds without one after which a holder on another host counts as gone
WATCH = 3 * BEAT  # seconds to wait for one before such a holder's run is taken over
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)

_held: set[IO[bytes]] = set()


def _let_go_in_child() -> None:
    """A forked process (a loader's worker) shares the lock, and would keep it when its parent is killed."""
    for file in _held:
        file.close()


os.register_at_fork(after_in_child=_let_go_in_child)


@dataclass(frozen=True)
class Holder:
    """A process that has a run. `started` is the system's count of when it was started: numbers are used again."""

    pid: int
    host: str
    started: str = ""

    @property
    def here(self) -> bool:
        return self.host == socket.gethostname()

    def text(self) -> str:
        return f"pid {self.pid} on {self.host}" + (f" started {self.started}" if self.started else "")

    def runs_here(self) -> bool:
        """Whether such a process is on this machine now."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except OSError:
            pass  # another user's
        return not self.started or _started(self.pid) in ("", self.started)


def _myself() -> Holder:
    return Holder(os.getpid(), socket.gethostname(), _started(os.getpid()))


def _started(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _holder(path: Path) -> Holder | None:
    """Who is named in a lock file; a holder that ends in order leaves none."""
    try:
        found = re.match(r"pid (\d+) on (\S+)(?: started (\d+))?", path.read_text(errors="replace"))
    except OSError:
        return None
    return Holder(int(found[1]), found[2], found[3] or "") if found else None


def lock_file(run: Run) -> Path:
    return run.folder / ".lock"


def _name_file(run: Run) -> Path:
    """Stands for the lock where the file system has none: it is made by one process alone."""
    return run.folder / ".lock.holder"


@contextmanager
def run_lock(run: Run) -> Iterator[str | None]:
    """Holds the run for this process. Raises UserError, naming the holder, where another one has it.

    A run of a process on another host that gives no sign of life is taken over after `WATCH` seconds.
    Yields what to tell the user: that the file system has no locks.
    """
    path = lock_file(run)
    try:
        file = path.open("ab+", buffering=0)  # nothing is left to be written as it is closed
    except OSError as error:
        raise cannot_write(path, error) from error
    with file:
        locks = _take(file, run)
        gone = _refuse_while_alive(run, _holder(path))
        if not locks:
            with _named(run, gone):
                yield (f"{run.folder} is on a file system without locks: a heartbeat tells whether this process lives")
            return
        with suppress(OSError):
            _name_file(run).unlink()  # of a process that is gone
        file.truncate(0)
        try:
            file.write(_myself().text().encode())
        except OSError as error:
            raise cannot_write(path, error) from error
        _held.add(file)
        try:
            with _heart(path):
                yield None
        finally:
            _held.discard(file)
            file.truncate(0)


def _take(file: IO[bytes], run: Run) -> bool:
    """Locks `file`; False where the file system cannot. Tries twice: whoever only asks whether it is held (`is_held`)
    has it for an instant."""
    for last in (False, True):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError as error:
            if last:
                holder = _holder(lock_file(run))
                raise _has_it(run, holder) from error
            time.sleep(0.2)
        except OSError as error:
            if error.errno in NO_LOCKS:
                return False
            raise cannot_write(lock_file(run), error) from error
    raise AssertionError


def _has_it(run: Run, holder: Holder | None) -> UserError:
    who = f"pid {holder.pid} on {holder.host}" if holder else "unknown"
    return UserError(
        f"Another process is working on {run.run_id} ({who})",
        f"Wait for it, or look at it: mrbench runs show {run.run_id}",
    )


def _refuse_while_alive(run: Run, locked_by: Holder | None) -> Holder | None:
    """Raises where a process that our lock does not tell of gives a sign of life; else the one that held it by name.

    It is watched for, and no clock is asked: those of two machines need not agree.
    """
    named = _name_file(run)
    by_name = _holder(named)
    if by_name is not None and by_name.here and by_name.runs_here():
        raise _has_it(run, by_name)
    for path, holder in ((lock_file(run), locked_by), (named, by_name)):
        if holder is None or holder.here or not _fresh(path):
            continue
        before, end = _beat(path), time.monotonic() + WATCH
        while time.monotonic() < end:
            if _beat(path) != before:
                raise _has_it(run, holder)
            time.sleep(min(1.0, WATCH / 10))
    return by_name


@contextmanager
def _named(run: Run, gone: Holder | None) -> Iterator[None]:
    """Holds the run by a file with the process's name, which only one can make; that of the `gone` one is removed."""
    path, mine = _name_file(run), _myself().text()
    if gone is not None:
        aside = path.with_name(f"{path.name}.{os.getpid()}")
        with suppress(OSError):
            os.rename(path, aside)
            if _holder(aside) != gone:  # another process was quicker, and has it
                os.rename(aside, path)
            else:
                aside.unlink()
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError as error:
        raise _has_it(run, _holder(path)) from error
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        try:
            os.write(descriptor, mine.encode())
        except OSError as error:
            raise cannot_write(path, error) from error
        finally:
            os.close(descriptor)
        with _heart(path):
            yield
    finally:
        with suppress(OSError):
            path.unlink()


@contextmanager
def _heart(path: Path) -> Iterator[None]:
    """Renews the file's time every `BEAT` seconds as long as the block lasts and this process lives."""
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(BEAT):
            with suppress(OSError):
                os.utime(path)

    thread = threading.Thread(target=beat, daemon=True, name="heartbeat")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _beat(path: Path) -> int | None:
    """The file's time; opened first, so that a network file system asks its server."""
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_mtime_ns
    except OSError:
        return None


def _fresh(path: Path) -> bool:
    """Whether the last sign of life is recent, by the clock of the file system that it was written to."""
    beat = _beat(path)
    if beat is None:
        return False
    try:
        with tempfile.TemporaryFile(dir=path.parent) as probe:
            probe.write(b"?")
            probe.flush()
            now = os.fstat(probe.fileno()).st_mtime_ns
    except OSError:
        now = time.time_ns()  # a folder that we may only read
    return now - beat < SILENT * 1e9


def is_locked(run: Run) -> bool:
    """Whether a living process has the run, here or on another host."""
    path, named = lock_file(run), _name_file(run)
    if is_held(path):
        return True
    holder = _holder(path)
    if holder is not None and not holder.here and _fresh(path):
        return True
    holder = _holder(named)
    return holder is not None and (holder.runs_here() if holder.here else _fresh(named))


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
