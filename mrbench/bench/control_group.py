"""A memory limit that the kernel keeps: a control group of its own for a process (Linux, cgroup v2), and what limits
there are already.

https://docs.kernel.org/admin-guide/cgroup-v2.html: `memory.max` is what a group's processes may have in memory, its
page cache included; when nothing more can be freed, the kernel kills.
"""

import itertools
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
NAME = "mrbench"
ENTER = 'echo $$ > "$0" && exec "$@"'
REMOVE_SECONDS = 5.0  # a group can be removed a moment after its last process has ended

_numbers = itertools.count()


@dataclass
class ControlGroup:
    """A group that this process has made and must remove."""

    path: Path

    def entering(self, command: Sequence[str]) -> list[str]:
        """`command`, which enters the group before it begins, so that all of its memory counts."""
        return ["/bin/sh", "-c", ENTER, str(self.path / "cgroup.procs"), *command]

    def killed(self) -> bool:
        """Whether the kernel has killed a process of the group for want of memory."""
        with suppress(OSError, ValueError):
            events = dict(line.split() for line in (self.path / "memory.events").read_text().splitlines())
            return int(events.get("oom_kill", 0)) > 0
        return False

    def remove(self) -> None:
        """Ends what is left in the group, and removes it."""
        with suppress(OSError):
            (self.path / "cgroup.kill").write_text("1")
        deadline = time.monotonic() + REMOVE_SECONDS
        while not _removed(self.path) and time.monotonic() < deadline:
            time.sleep(0.01)


def make_group(limit: int, root: Path = ROOT, own: Path | None = None) -> ControlGroup | None:
    """A group whose processes may have `limit` bytes in memory; None where this process may make none that works.

    It lies as near to the group of this process (`own`, relative to `root`) as the kernel allows: a group with
    processes in it can have no limited groups below it, so mostly beside it.
    """
    for parent in _parents(root, _own_group() if own is None else own):
        _remove_abandoned(parent)
        group = ControlGroup(parent / f"{NAME}-{os.getpid()}-{next(_numbers)}")
        try:
            group.path.mkdir()
        except OSError:
            continue
        try:
            (group.path / "memory.max").write_text(str(limit))
            with suppress(OSError):  # where there is swap, it would make a try slow instead of ending it
                (group.path / "memory.swap.max").write_text("0")
            with suppress(OSError):  # all processes of a try end together
                (group.path / "memory.oom.group").write_text("1")
            subprocess.run(group.entering(["true"]), check=True, stderr=subprocess.DEVNULL)
            return group
        except (OSError, subprocess.SubprocessError):
            group.remove()
    return None


def room(root: Path = ROOT) -> int | None:
    """Bytes that the groups of this process, and those around them, still let it take; None where none is limited."""
    left = []
    v1 = root / "memory"
    for folder, limit, used in (
        *((f, "memory.max", "memory.current") for f in _upwards(root, _own_group())),
        *((f, "memory.limit_in_bytes", "memory.usage_in_bytes") for f in _upwards(v1, _own_group("memory"))),
    ):
        with suppress(OSError, ValueError):  # "max" is no number
            most, now = (int((folder / name).read_text()) for name in (limit, used))
            left.append(most - now + _droppable(folder))
    return max(min(left), 0) if left else None


def _droppable(group: Path) -> int:
    """Bytes of files that are kept in memory only because nothing else wants it."""
    with suppress(OSError, ValueError):
        told = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return int(told.get("total_inactive_file", told.get("inactive_file", 0)))
    return 0


def _own_group(controller: str = "") -> Path:
    """The group of this process, relative to the root; of version 1 with a controller's name."""
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controller in controllers.split(","):
                return Path(path.lstrip("/"))
    return Path()


def _upwards(root: Path, own: Path) -> Iterator[Path]:
    """`own` and what it lies in, up to the root. In a container it may name a place outside, and only the root is."""
    path = root / own
    while path != root:
        yield path
        path = path.parent
    yield root


def _parents(root: Path, own: Path) -> Iterator[Path]:
    """Where a group with a memory limit can be made, the nearest first."""
    for folder in _upwards(root, own):
        with suppress(OSError):
            if "memory" in (folder / "cgroup.subtree_control").read_text().split() and os.access(folder, os.W_OK):
                yield folder


def _remove_abandoned(parent: Path) -> None:
    """Groups of processes that were killed; the kernel refuses where something still runs in them."""
    for path in parent.glob(f"{NAME}-*-*"):
        pid = path.name.split("-")[1]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            _removed(path)


def _removed(path: Path) -> bool:
    with suppress(OSError):
        path.rmdir()
    return not path.exists()
