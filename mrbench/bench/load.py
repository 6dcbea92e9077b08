"""What else the machine is doing while we measure."""

import os
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

BUSY_SHARE = 0.1  # of the machine's cores taken by others
BUSY_GPU = 5  # percent utilisation before we begin


@dataclass
class CpuTime:
    """Seconds of CPU time so far: the whole machine's, and this process's."""

    machine: float | None  # None where the system does not say
    own: float


def cpu_time() -> CpuTime:
    own = os.times()
    machine = None
    with suppress(OSError, ValueError):
        values = [int(v) for v in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        user, nice, system, _idle, _iowait, irq, softirq, steal = values
        machine = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    return CpuTime(machine, own.user + own.system)


def taken_by_others(before: CpuTime, after: CpuTime, seconds: float) -> float | None:
    """Share of the machine's cores that other processes used in between (0..1); None where it is not known."""
    if before.machine is None or after.machine is None or seconds <= 0:
        return None
    others = (after.machine - before.machine) - (after.own - before.own)
    return min(max(others / (seconds * (os.cpu_count() or 1)), 0.0), 1.0)


def gpu_state(uuid: str) -> dict[str, float] | None:
    """Utilisation (percent), memory in use (MiB), clock (MHz) and temperature (Celsius) of a GPU before we begin.

    `uuid`: of torch's device, whose number may be another for nvidia-smi. None without nvidia-smi.
    """
    names = ("utilization.gpu", "memory.used", "clocks.sm", "temperature.gpu")
    command = ["nvidia-smi", f"--query-gpu={','.join(names)}", "--format=csv,noheader,nounits", "-i", uuid]
    with suppress(OSError, ValueError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        return dict(zip(names, (float(v) for v in done.stdout.split(",")), strict=True))
    return None
