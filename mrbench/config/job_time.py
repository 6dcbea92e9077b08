"""How long a job may take, as sbatch's --time has it (its manual page, "--time")."""

import math
import re

NOTATIONS = "minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS"
_NOTATION = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", re.ASCII)


def job_minutes(text: str) -> int:
    """`90` and `1-12:00:00` in minutes; Slurm counts those that are begun. Raises ValueError for another notation, and
    for no time."""
    found = _NOTATION.fullmatch(text)
    if found is None:
        raise ValueError(text)
    days, *parts = found.groups()
    if days is None and parts[2] is None:
        parts = [None, *parts[:2]]  # without days or hours the first number is minutes
    hours, minutes, seconds = (int(part or 0) for part in parts)
    total = math.ceil((24 * int(days or 0) + hours) * 60 + minutes + seconds / 60)
    if total == 0:
        raise ValueError(text)
    return total
