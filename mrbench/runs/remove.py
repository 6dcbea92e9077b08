"""Taking runs off the disk: how much they hold, and that nothing but them goes."""

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from stat import S_ISDIR

from mrbench.errors import UserError
from mrbench.runs.files import cannot_write
from mrbench.runs.lock import is_locked, run_lock
from mrbench.runs.record import Run


def freed_bytes(folder: Path) -> int:
    """Bytes on disk that go with the folder. Links are not followed, and a file that has another name too stays."""
    return sum(s.st_blocks * 512 for s in _stats(folder) if s.st_nlink == 1 or S_ISDIR(s.st_mode))


def _stats(folder: Path) -> Iterator[os.stat_result]:
    with suppress(OSError):
        yield folder.lstat()
        with os.scandir(folder) as found:
            for entry in found:
                if entry.is_dir(follow_symlinks=False):
                    yield from _stats(Path(entry.path))
                else:
                    yield entry.stat(follow_symlinks=False)


def check_removable(run: Run) -> None:
    """Raises UserError where a process has the run, or its folder is a link to another place."""
    if run.folder.is_symlink():
        raise UserError(
            f"{run.folder} is a link to {os.readlink(run.folder)}, which is not removed",
            "Remove the link itself by hand if it is no longer wanted.",
        )
    if is_locked(run):
        raise UserError(
            f"A process is working on {run.run_id}", f"Wait for it, or look at it: mrbench runs show {run.run_id}"
        )


def remove(run: Run) -> None:
    """Removes the run's folder and nothing else. Raises UserError as `check_removable`, and where the system refuses.

    It leaves the list of runs at once and as a whole; what a kill leaves of it goes with the next removal.
    """
    check_removable(run)
    aside = run.folder.with_name(f".removed-{run.run_id}")
    try:
        if aside.is_dir():
            shutil.rmtree(aside)
        with run_lock(run):
            os.rename(run.folder, aside)
        shutil.rmtree(aside)
    except OSError as error:
        raise cannot_write(run.folder, error) from error
