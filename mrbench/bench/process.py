"""Work in a fresh process under a memory limit, and knowing why it ended.

The limit on a CPU is the kernel's where the process gets a control group of its own. Elsewhere its resident memory is
watched, and it is killed when that passes the limit: RLIMIT_AS and RLIMIT_DATA count address space, of which torch
reserves hundreds of MiB (GiB with CUDA) that it never touches. The kernel's own high-water mark (VmHWM) is read, so a
peak between two looks is not missed; one that passes between the last look and the end is found in the answer.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from mrbench.bench import control_group
from mrbench.bench.control_group import ControlGroup
from mrbench.bench.trouble import device_trouble, means_out_of_memory
from mrbench.engine.failures import RunFailed
from mrbench.errors import UserError

CHILD = (sys.executable, "-m", "mrbench.bench.child")
LOOK_EVERY = 0.01  # seconds; memory is touched at some GB/s, so the overshoot stays in the tens of MB
LOOK_SELDOM = 0.1  # seconds, while something is timed: looking takes time from it
# One arena and a page mapping of its own for every large block: the peak of the same work is then the same to about
# 1 MiB from process to process (measured: ResNet-18 training; 15-35 MiB with glibc's defaults).
REPEATABLE_MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "131072",
}


@dataclass
class Ending:
    """How a process ended: "done", "memory", "time", "refused" (a user's mistake), "device" (no GPU to
    use, or no longer) or "failed"; and why."""

    kind: str
    why: str
    seconds: float
    answer: dict[str, Any] = field(default_factory=dict)
    peak_memory: int | None = None  # bytes resident, as last seen; in a control group without files


class DeviceGone(RunFailed):
    """The GPU cannot be used any more: whatever comes next would fail as well."""

    kind = "device"


def raise_mistake(ending: Ending) -> None:
    """Raises UserError for what a person asked and cannot be, DeviceGone where the GPU is no more to be used."""
    if ending.kind == "refused":
        raise UserError(ending.why, ending.answer.get("hint", ""))
    if ending.kind == "device":
        trouble = device_trouble(ending.why)
        assert trouble is not None
        raise DeviceGone(f"{trouble.what} ({ending.why})\n{trouble.hint}")


def size_text(size: float) -> str:
    """Bytes in the binary unit that fits."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.2f} GiB"


def peak_resident(pid: int | str, with_files: bool = True) -> int | None:
    """The most bytes that a process has had in memory; None where the system does not say (not Linux, gone).

    Without files: less its pages of libraries, which count for the control group that was the first to read them.
    """
    with suppress(OSError, ValueError, KeyError):
        told = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        files = 0 if with_files else int(told["RssFile"].split()[0])
        return (int(told["VmHWM"].split()[0]) - files) * 1024
    return None


def available_memory() -> int:
    """Bytes that this process and its children may still take: the machine's, or its control group's if less."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]) * 1024
    room = control_group.room()
    return free if room is None else min(free, room)


def run_fresh(
    task: Mapping[str, Any],
    limit: int | None = None,
    timeout: float | None = None,
    environment: Mapping[str, str] | None = None,
    command: Sequence[str] = CHILD,
    group: ControlGroup | None = None,
    look_every: float = LOOK_EVERY,
) -> Ending:
    """Carry out `task` in a new process and wait for its end.

    `limit` is in bytes of resident memory, at which it looks `look_every` so many seconds; `timeout` is in seconds;
    past either the process is killed. In a `group` the kernel does so too, and the peak is told without files; the
    group is removed. Whatever happens here, Ctrl-C too, nothing is left running: the process and its children are
    killed, and a parent that is itself killed closes the pipe that the child watches.
    """
    with tempfile.TemporaryDirectory(prefix="mrbench-") as name:
        folder = Path(name)
        (folder / "task.json").write_text(json.dumps(task))
        start = time.monotonic()
        with (folder / "output.txt").open("wb") as output:
            whole = [*command, name]
            process = subprocess.Popen(
                whole if group is None else group.entering(whole),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env={**os.environ, **(environment or {})},
                start_new_session=True,  # its own group: killed with its children, and not by Ctrl-C's signal
            )
        # When the whole machine, or a group around us, runs out of memory, the kernel takes the child first.
        with suppress(OSError):
            Path(f"/proc/{process.pid}/oom_score_adj").write_text("1000")
        try:
            look = partial(peak_resident, process.pid, with_files=group is None)
            stopped, peak = _watch(process, look, limit, None if timeout is None else start + timeout, look_every)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            _reap(process)
            if process.stdin:
                process.stdin.close()
            killed = group is not None and group.killed()
            if group is not None:
                group.remove()
        if killed:
            why = "killed by the kernel at the limit of its control group"
            return Ending("memory", why, time.monotonic() - start, peak_memory=peak)
        ending = _ending(folder, process.returncode, stopped, peak, limit, time.monotonic() - start)
        return ending if group is None else replace(ending, peak_memory=peak)


def end_with_parent() -> None:
    """Ends this process when the pipe from the one that asked is closed."""

    def watch() -> None:
        # Not through sys.stdin, whose lock a thread that waits would still hold when the interpreter ends.
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _reap(process: "subprocess.Popen[bytes]") -> None:
    """Wait for a process that was killed. Popen.wait would wait for ever for a lock of its own where a signal's
    exception came while `poll` had just taken it."""
    with suppress(ChildProcessError):
        process.returncode = os.waitstatus_to_exitcode(os.waitpid(process.pid, 0)[1])


def _watch(
    process: "subprocess.Popen[bytes]",
    look: Callable[[], int | None],
    limit: int | None,
    deadline: float | None,
    look_every: float,
) -> tuple[str | None, int | None]:
    """Wait for the end, or say at which of the limits ("memory", "time") to end it; and the peak seen."""
    peak = None
    while process.poll() is None:
        peak = look() or peak
        if limit is not None and peak is not None and peak > limit:
            return "memory", peak
        if deadline is not None and time.monotonic() > deadline:
            return "time", peak
        time.sleep(look_every)
    return None, peak


def _ending(
    folder: Path, code: int, stopped: str | None, peak: int | None, limit: int | None, seconds: float
) -> Ending:
    if stopped == "memory":
        why = f"stopped when its resident memory passed the limit ({size_text(limit or 0)})"
        return Ending("memory", why, seconds, peak_memory=peak)
    if stopped == "time":
        return Ending("time", f"stopped after {seconds:.0f} s", seconds, peak_memory=peak)
    output = (folder / "output.txt").read_text(errors="replace")
    answer: dict[str, Any] = {}
    if code == 0:
        with suppress(OSError, ValueError):
            answer = json.loads((folder / "answer.json").read_text())
    peak = max((p for p in (peak, answer.get("peak_resident")) if p is not None), default=None)
    if answer.get("kind") == "done" and limit is not None and peak is not None and peak > limit:
        why = f"its resident memory passed the limit ({size_text(limit)}): {size_text(peak)}"
        return Ending("memory", why, seconds, answer, peak)
    if answer:
        return Ending(answer["kind"], answer.get("why", ""), seconds, answer, peak)
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    last = lines[-1] if lines else "it said nothing"
    if code == -signal.SIGKILL:
        return Ending("memory", "killed by the system, as it does when memory runs out", seconds, {}, peak)
    if means_out_of_memory("\n".join(lines[-5:])):
        return Ending("memory", last, seconds, {}, peak)
    if told := next((line for line in lines[-5:] if device_trouble(line)), None):
        return Ending("device", told, seconds, {}, peak)
    ended = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return Ending("failed", f"{ended}: {last}", seconds, {"output": output[-4000:]}, peak)
