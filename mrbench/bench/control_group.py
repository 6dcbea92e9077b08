"""A memory limit that the kernel keeps: a control group of its own for a process (Linux), and what limits there are
already.

Version 2, https://docs.kernel.org/admin-guide/cgroup-v2.html: `memory.max` is what a group's processes may have in
memory, its page cache included; when nothing more can be freed, the kernel kills. Version 1, where a machine still has
its memory controller there, https://docs.kernel.org/admin-guide/cgroup-v1/memory.html: `memory.limit_in_bytes` is the
same, and the kernel kills one process of a group.
"""

import itertools
import os
import signal
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


@dataclass(frozen=True)
class Version:
    """How a version of control groups names things."""

    hierarchy: str  # the folder below the root, and what /proc/self/cgroup calls it
    limit: str  # bytes a group may have in memory
    used: str
    events: str  # has the count oom_kill: processes that the kernel has killed
    without_swap: str  # where there is swap, it would make a try slow instead of ending it


V1 = Version("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "memory.oom_control", "memory.swappiness")
V2 = Version("", "memory.max", "memory.current", "memory.events", "memory.swap.max")


@dataclass
class ControlGroup:
    """A group that this process has made and must remove."""

    path: Path
    version: Version = V2

    def entering(self, command: Sequence[str]) -> list[str]:
        """`command`, which enters the group before it begins, so that all of its memory counts."""
        return ["/bin/sh", "-c", ENTER, str(self.path / "cgroup.procs"), *command]

    def killed(self) -> bool:
        """Whether the kernel has killed a process of the group for want of memory."""
        with suppress(OSError, ValueError):
            events = dict(line.split() for line in (self.path / self.version.events).read_text().splitlines())
            return int(events.get("oom_kill", 0)) > 0
        return False

    def remove(self) -> None:
        """Ends what is left in the group, and removes it."""
        deadline = time.monotonic() + REMOVE_SECONDS
        while not _removed(self.path) and time.monotonic() < deadline:
            with suppress(OSError, ValueError):
                for pid in (self.path / "cgroup.procs").read_text().split():
                    os.kill(int(pid), signal.SIGKILL)
            time.sleep(0.01)


def make_group(limit: int, root: Path = ROOT, own: Path | None = None) -> ControlGroup | None:
    """A group whose processes may have `limit` bytes in memory; None where this process may make none that works.

    It lies as near to the group of this process (`own`, relative to the hierarchy) as the kernel allows: of version 2
    mostly beside it, since a group with processes in it can have no limited groups below it; of version 1 in it.
    """
    for version in (V2, V1):
        for parent in _parents(version, root / version.hierarchy, _own_group(version) if own is None else own):
            _remove_abandoned(parent)
            group = ControlGroup(parent / f"{NAME}-{os.getpid()}-{next(_numbers)}", version)
            try:
                group.path.mkdir()
            except OSError:
                continue
            try:
                (group.path / version.limit).write_text(str(limit))
                with suppress(OSError):  # where the kernel was built without swap
                    (group.path / version.without_swap).write_text("0")
                if version is V2:
                    with suppress(OSError):  # all processes of a try end together
                        (group.path / "memory.oom.group").write_text("1")
                subprocess.run(group.entering(["true"]), check=True, stderr=subprocess.DEVNULL)
                return group
            except (OSError, subprocess.SubprocessError):
                group.remove()
    return None


def room(root: Path = ROOT) -> int | None:
    """Bytes that the groups of this process, and those around them, still let it take; None where none tells."""
    left = []
    for version in (V2, V1):
        for folder in _upwards(root / version.hierarchy, _own_group(version)):
            with suppress(OSError, ValueError):  # "max" is no number
                most, now = (int((folder / name).read_text()) for name in (version.limit, version.used))
                left.append(most - now + _droppable(folder))
    return max(min(left), 0) if left else None


def _droppable(group: Path) -> int:
    """Bytes of files that are kept in memory only because nothing else wants it."""
    with suppress(OSError, ValueError):
        told = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return int(told.get("total_inactive_file", told.get("inactive_file", 0)))
    return 0


def _own_group(version: Version) -> Path:
    """The group of this process, relative to the hierarchy."""
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if version.hierarchy in controllers.split(","):
                return Path(path.lstrip("/"))
    return Path()


def _upwards(root: Path, own: Path) -> Iterator[Path]:
    """`own` and what it lies in, up to the root. In a container it may name a place outside, and only the root is."""
    path = root / own
    while path != root:
        yield path
        path = path.parent
    yield root


def _parents(version: Version, hierarchy: Path, own: Path) -> Iterator[Path]:
    """Where a group with a memory limit can be made, the nearest first."""
    for folder in _upwards(hierarchy, own):
        with suppress(OSError):
            if version is V2:
                limits = "memory" in (folder / "cgroup.subtree_control").read_text().split()
            else:
                # Systems that imitate Linux may take a limit and not keep it: these do not count what they kill.
                limits = all((folder / name).exists() for name in (version.limit, version.events))
            if limits and os.access(folder, os.W_OK):
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
