"""What the stand-in for training (fake_train.py) wrote of itself, and what tests of sweeps ask of that."""

import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import combinations
from pathlib import Path
from typing import Any

from mrbench.runs.record import list_runs

PATIENCE = 120.0


def diary(root: Path) -> list[dict[str, Any]]:
    """What is written whole: whoever appends a line may be half-way through it."""
    path = root / "diary.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def until(holds: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, f"never happened: {what}"
        time.sleep(0.02)


def events(root: Path, event: str) -> list[dict[str, Any]]:
    return [e for e in diary(root) if e["event"] == event]


def processes(root: Path, module: str) -> list[int]:
    """Those that work for `root` as `mrbench.launch.<module>`: pool or job."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if f"mrbench.launch.{module}".encode() in words and str(root).encode() in words[-2]:
                found.append(int(path.parent.name))
    return sorted(found)


def kill_pools(root: Path) -> None:
    for pid in processes(root, "pool"):
        os.kill(pid, signal.SIGKILL)


def states(root: Path) -> list[str]:
    return sorted(run.status().state for run in list_runs(root))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def attempts(root: Path, killed: dict[int, float] | None = None) -> list[tuple[float, float, set[str], str]]:
    """(start, end, slots, run) of every attempt that ended, or was `killed`: process -> when."""
    found = []
    entries = diary(root)
    for e in entries:
        if e["event"] == "start":
            ends = (x["time"] for x in entries if x["pid"] == e["pid"] and x["event"] != "start")
            end = next(ends, (killed or {}).get(e["pid"]))
            if end is not None:
                found.append((e["time"], end, set(e["slots"]), e["run"]))
    return found


def assert_no_slot_is_shared(root: Path, killed: dict[int, float] | None = None) -> None:
    for a, b in combinations(attempts(root, killed), 2):
        if a[2] & b[2] or a[3] == b[3]:
            assert a[1] <= b[0] or b[1] <= a[0], f"at the same time in {a[2] & b[2]}: {a[3]}, {b[3]}"


def most_at_once(root: Path) -> int:
    spans = attempts(root)
    return max(sum(s <= t < e for s, e, _, _ in spans) for t, _, _, _ in spans)
