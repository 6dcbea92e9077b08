"""What jobs of the tests call instead of training: `slow` keeps a record as training does and sleeps; `stuck` waits to
be stopped; `train` trains, with pauses until its job is queued again, so that a small run reaches a limit."""

import os
import time

from mrbench.config.schema import RunConfig
from mrbench.engine.signals import Preempted, StopSignal
from mrbench.runs.files import write_json
from mrbench.runs.lock import run_lock
from mrbench.runs.record import Run, now

PAUSE = 0.1
TRAIN_PAUSE = 1.0


def slow(run: Run, config: RunConfig) -> None:
    """An iteration lasts PAUSE seconds and is entered in iterations.txt; the diary has ends before the record."""

    def note(event: str) -> None:
        with (run.folder / "diary.txt").open("a") as file:
            file.write(f"{event} {time.time():.3f} {os.uname().nodename}\n")

    with run_lock(run), StopSignal() as stop:
        before = run.status()
        run.update(
            state="running",
            attempt=before.attempt + 1,
            started=before.started or now(),
            ended=None,
            host=os.uname().nodename,
            pid=os.getpid(),
            error=None,
        )
        note("start")
        for iteration in range(before.iteration, config.schedule.iterations):
            time.sleep(PAUSE)
            with (run.folder / "iterations.txt").open("a") as file:
                file.write(f"{iteration}\n")
            run.update(iteration=iteration + 1)
            if stop.received is not None:
                note("preempted")
                run.update(state="preempted", ended=now())
                raise Preempted(stop.received, iteration + 1)
        write_json(run.evaluation_file, {"metrics": {"box/AP": 40.0 + config.seed}, "notes": [], "images": 0})
        note("completed")
        run.update(state="completed", ended=now())


def train(run: Run, config: RunConfig) -> None:
    from mrbench.engine.loop import Loop
    from mrbench.engine.train import train as carry_out

    after_step = Loop._after_step

    def pausing(self, *arguments):  # type: ignore[no-untyped-def]
        time.sleep(TRAIN_PAUSE)
        after_step(self, *arguments)

    if "SLURM_RESTART_COUNT" not in os.environ:
        Loop._after_step = pausing  # type: ignore[method-assign]
    carry_out(run, config)


def stuck(run: Run, config: RunConfig) -> None:
    """Never gets anywhere."""
    with run_lock(run), StopSignal() as stop:
        run.update(state="running", attempt=run.status().attempt + 1, error=None)
        while stop.received is None:
            time.sleep(PAUSE)
        run.update(state="preempted", ended=now())
        raise Preempted(stop.received, 0)
