"""Who has which device of this machine: locks that hold between all sweeps on it, whoever began them.

They lie in a folder that all users share, below the system's temporary folder. A lock is handed to the job's
process, and the system drops it when the last process of the job is gone: a job that outlives its pool keeps its
device, and nothing has to be tidied up after a crash. Beneath lies a queue: no pool
begins a run while one that is older waits for a device that both could use.
"""

import fcntl
import json
import os
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from mrbench.launch.devices import Slot
from mrbench.runs.files import cannot_write


def machine_folder() -> Path:
    """Where this machine's locks lie; for everybody, or for this user where somebody else closed that folder."""
    for folder in (Path(tempfile.gettempdir()) / "mrbench", Path(tempfile.gettempdir()) / f"mrbench-{os.getuid()}"):
        try:
            (folder / "queue").mkdir(parents=True)
        except FileExistsError:
            pass
        except OSError:
            continue
        for path in (folder, folder / "queue"):
            with suppress(PermissionError):  # somebody else made it, and has opened it
                path.chmod(0o1777)
        if os.access(folder / "queue", os.W_OK | os.X_OK):
            return folder
    raise cannot_write(Path(tempfile.gettempdir()), PermissionError(13, "Permission denied"))


def _open(path: Path) -> int:
    """A descriptor of the file `path`, made where it is not there, for everybody.

    It is opened for reading where it exists: Linux lets nobody open another user's file in a shared folder with
    O_CREAT (fs.protected_regular), and a lock needs no more.
    """
    while True:
        with suppress(FileNotFoundError):
            return os.open(path, os.O_RDONLY)
        with suppress(FileExistsError):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            os.fchmod(descriptor, 0o666)  # whatever the umask
            return descriptor


def _try(descriptor: int, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One pool at a time looks at the locks, so that a look is never mistaken for a hold."""
    descriptor = _open(folder / "guard")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class Held:
    """Slots held by this process, to be handed on with their descriptors (subprocess's `pass_fds`)."""

    slots: tuple[Slot, ...]
    descriptors: tuple[int, ...]

    def close(self) -> None:
        """Lets go of this process's share of the locks."""
        for descriptor in self.descriptors:
            os.close(descriptor)


class Turn:
    """A pool's place in the machine's queue for `places`, which it keeps for its life.

    It stands in the queue from `take` until `leave`; while it does not, the pools behind it are served.
    """

    def __init__(self, places: Sequence[Slot], folder: Path | None = None) -> None:
        self.places = places
        self.folder = folder or machine_folder()
        self._devices = {slot.device for slot in places}
        self._path = self.folder / "queue" / f"{time.time_ns()}-{os.getpid()}"
        self._ticket: int | None = None

    def take(self, count: int, without: Collection[str] = ()) -> Held | None:
        """`count` slots on devices that differ and are not in `without`; None while others have them or come first."""
        with _alone(self.folder):
            self._queue_up()
            if self._somebody_first():
                return None
            chosen: list[Slot] = []
            descriptors: list[int] = []
            for slot in self.places:
                if slot.device in without or slot.device in {s.device for s in chosen}:
                    continue
                locks = self._lock(slot)
                if locks:
                    chosen.append(slot)
                    descriptors += locks
                if len(chosen) == count:
                    return Held(tuple(chosen), tuple(descriptors))
            for descriptor in descriptors:
                os.close(descriptor)
            return None

    def leave(self) -> None:
        """Steps out of the queue: there is nothing to begin at present."""
        if self._ticket is not None:
            with _alone(self.folder):
                self._path.unlink(missing_ok=True)
            os.close(self._ticket)
            self._ticket = None

    def _lock(self, slot: Slot) -> list[int]:
        """Runs that share a device lock it together, and their share alone; one that has it to itself locks it whole.

        Empty where somebody else has it.
        """
        wanted = [
            (slot.device, fcntl.LOCK_SH if slot.shared else fcntl.LOCK_EX),
            (f"{slot.device}.{slot.share}", fcntl.LOCK_EX),
        ]
        taken: list[int] = []
        for name, kind in wanted:
            taken.append(_open(self.folder / f"{name.replace('/', '_')}.lock"))
            if not _try(taken[-1], kind):
                for descriptor in taken:
                    os.close(descriptor)
                return []
        return taken

    def _queue_up(self) -> None:
        if self._ticket is None:
            self._ticket = _open(self._path)
            os.write(self._ticket, json.dumps(sorted(self._devices)).encode())
            _try(self._ticket)

    def _somebody_first(self) -> bool:
        for path in sorted((self.folder / "queue").iterdir()):
            if path.name >= self._path.name:
                break
            descriptor = _open(path)
            try:
                if _try(descriptor):  # its pool is dead
                    with suppress(PermissionError):  # another user's
                        path.unlink()
                elif self._devices.intersection(_devices(path)):
                    return True
            finally:
                os.close(descriptor)
        return False


def _devices(ticket: Path) -> list[str]:
    try:
        found = json.loads(ticket.read_text())
    except (OSError, ValueError):
        return []
    return found if isinstance(found, list) else []
