"""What state a run is really in, and how far it is: its record says both until its process says otherwise, and a dead
one cannot."""

import os
import re

from mrbench.runs.lock import is_locked
from mrbench.runs.record import Run, Status

INTERRUPTED = "interrupted"  # on record as running, but its process is gone


def state_of(run: Run, status: Status) -> str:
    """The state on record, or `interrupted` where no living process has a run that is on record as running."""
    return INTERRUPTED if status.state == "running" and not is_locked(run) else status.state


def iteration_of(run: Run, status: Status) -> int:
    """The last iteration that is known: of the record, which follows the log, or of the newest checkpoint."""
    if status.state in ("completed", "pending"):
        return status.iteration
    return max(status.iteration, newest_checkpoint(run))


def newest_checkpoint(run: Run) -> int:
    """The iteration that training goes on from; 0 where there is no checkpoint."""
    try:
        names = os.listdir(run.checkpoint_dir)
    except OSError:
        return 0
    return max([0, *(int(found[1]) for name in names if (found := _CHECKPOINT.match(name)))])


_CHECKPOINT = re.compile(r"(\d+)\.pt$")
