"""How many cores there are to use."""

import os
from contextlib import suppress
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


def cores(root: Path = ROOT) -> int:
    """The cores that this process may use: its affinity, and a container's quota of processor time, rounded.

    The quota of control groups, https://docs.kernel.org/admin-guide/cgroup-v2.html: `cpu.max`; of version 1
    `cpu.cfs_quota_us`, -1 where there is none.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for files in (["cpu.max"], ["cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"]):
        with suppress(OSError, ValueError):  # "max" is no number
            quota, period = (int(word) for name in files for word in (root / name).read_text().split())
            if quota > 0:
                count = min(count, max(1, round(quota / period)))
    return count
