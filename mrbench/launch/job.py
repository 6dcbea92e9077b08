"""What runs in a job's own process: one run from its start, or from its last checkpoint, to its end.

The process is started with its environment (devices, threads) already set, because libraries read it when they are
imported. What becomes of the run is written in the run's record; the job's own result is not looked at.
"""

import importlib
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

from mrbench.config.schema import RunConfig
from mrbench.errors import UserError
from mrbench.launch.devices import hold
from mrbench.runs.lock import is_locked
from mrbench.runs.record import Run, now


def _leave(signum: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + signum)


def run_job(folder: str, config: RunConfig, command: list[str], entry: str, stop_file: str, slots: list[str]) -> None:
    """Carries out the run in `folder` by calling `entry` ("module:function") with (run, config)."""
    # Until training takes over, being asked to stop means just to leave; submitit would ignore it.
    signal.signal(signal.SIGTERM, _leave)
    if Path(stop_file).exists():  # asked to stop before this process could hear it
        return
    sys.argv = ["mrbench", *command]  # for the run's provenance: what would run it by hand
    run = Run(Path(folder))
    with hold([Path(s) for s in slots]):
        try:
            module, function = entry.split(":")
            getattr(importlib.import_module(module), function)(run, config)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)  # in the job's log; a traceback is for bugs
            _record_failure(run, error)
        except Exception as error:
            _record_failure(run, error)
            raise


def _record_failure(run: Run, error: Exception) -> None:
    """Enters an error in the record, unless training has done so, or the run is in another process's hands."""
    if run.status().state in ("completed", "failed", "preempted") or is_locked(run):
        return
    if isinstance(error, UserError):
        reason = {"kind": "user_error", "message": error.what, "hint": error.hint}
    else:
        reason = {"kind": type(error).__name__, "message": str(error) or type(error).__name__}
    run.update(state="failed", ended=now(), error=reason)
