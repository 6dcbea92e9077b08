"""What each task of a Slurm job does: the run, and then the same job again where time or preemption cut it short.

Slurm sends SIGUSR2 some time before a job's end (`launcher.warning`) and SIGTERM as it preempts it. Training answers
either with a checkpoint. The job is then put back into the queue under its own number, and goes on from there.
"""

import os
import signal
import socket
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

from mrbench.engine.signals import Preempted
from mrbench.launch import slurm_commands
from mrbench.launch.job import carry_out, run_job
from mrbench.launch.record import job_config, read_job, stop_file, too_many_failures, update_job
from mrbench.launch.slurm_commands import SlurmError
from mrbench.runs.record import Run, now

MARGIN = 90.0  # seconds by which Slurm is late with a signal before the end of a job's time, and by how much more


def run_task(folder: str) -> None:
    """Carries out the run in `folder` as one of the tasks of this job; the first one keeps its record."""
    for signum in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(signum, _leave)  # until training takes over
    run = Run(Path(folder))
    _share_cores(run)
    if int(os.environ.get("SLURM_PROCID", 0)):
        _beside(run)
        return
    before = run.status().iteration
    asked = False
    try:
        run_job(folder, job_id=_job_id(), log=_log(run))
    except Preempted as error:
        asked = True
        print(error, file=sys.stderr)
    except SystemExit:  # before training could listen
        asked = True
    for signum in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(signum, signal.SIG_IGN)
    if asked and run.status().state in ("pending", "preempted") and not stop_file(run.folder).exists():
        _queue_again(run, before)


def _beside(run: Run) -> None:
    record = read_job(run.folder)
    if record is None or stop_file(run.folder).exists():
        return
    if too_many_failures(run.folder.parents[1], record.submission):  # the first task does not begin either
        return
    try:
        carry_out(run, record)
    except Preempted as error:
        print(error, file=sys.stderr)


def _queue_again(run: Run, before: int) -> None:
    """Puts this job back into the queue, unless somebody has cancelled it or its time is too short to get anywhere."""
    job = os.environ["SLURM_JOB_ID"]
    config = job_config(run.folder)
    try:
        state, left = slurm_commands.life(job)
        if state != "RUNNING":  # scancel, or past its time: its last seconds
            return
        due = left is not None and left < config.launcher.warning + MARGIN
        if due and run.status().iteration <= before and int(os.environ.get("SLURM_RESTART_COUNT", 0)):
            message = f"a job of launcher.time={config.launcher.time} ends before one more iteration is done"
            run.update(state="failed", ended=now(), error={"kind": "time_limit", "message": message})
            return
        if config.launcher.requeue:
            run.update(state="pending")
            update_job(run.folder, job_id=_job_id(), log=_log(run))  # whatever was submitted meanwhile
            slurm_commands.requeue(job)
            print(f"{socket.gethostname()}: job {job} is back in the queue", file=sys.stderr)
    except SlurmError as error:
        run.update(state="preempted")
        print(f"not put back into the queue: {error}", file=sys.stderr)


def _share_cores(run: Run) -> None:
    """Tells libraries, before they are imported, how many cores a process of this task has to itself."""
    cores = os.environ.get("SLURM_CPUS_PER_TASK")
    config = job_config(run.folder)
    if cores and config.runtime.threads is None:
        os.environ["OMP_NUM_THREADS"] = str(max(1, int(cores) // config.runtime.devices))


def _job_id() -> str:
    array, place = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{place}" if array else os.environ["SLURM_JOB_ID"]


def _log(run: Run) -> str:
    """As submitit names it, from the run's folder."""
    return os.path.relpath(Path(os.environ["SUBMITIT_FOLDER"]) / f"{_job_id()}_0_log.out", run.folder)


def _leave(signum: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + signum)
