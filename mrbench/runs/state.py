"""What state a run is really in: its record says `running` until its process says otherwise, and a dead one cannot."""

from mrbench.runs.lock import is_locked
from mrbench.runs.record import Run, Status

INTERRUPTED = "interrupted"  # on record as running, but its process is gone


def state_of(run: Run, status: Status) -> str:
    """The state on record, or `interrupted` where no living process has a run that is on record as running."""
    return INTERRUPTED if status.state == "running" and not is_locked(run) else status.state
