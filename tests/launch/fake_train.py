"""Stands in for training in a job's process: keeps a run's record as training does, and a diary of its own.

An end stands in the diary before it stands in the record: who waits for the record finds the diary whole.

An iteration is a short sleep. `optimizer.momentum=0.5` makes a run fail, 0.25 makes its process die without a word,
0.75 makes it wait after 3 iterations until there is a file `go`.
"""

import json
import os
import signal
import time
from typing import Any

import mrbench
from mrbench.config.schema import RunConfig
from mrbench.runs.files import write_json
from mrbench.runs.lock import run_lock
from mrbench.runs.record import Run, now

PAUSE = 0.02


def train(run: Run, config: RunConfig) -> None:
    asked: list[int] = []
    diary, go = (run.folder.parents[1] / name for name in ("diary.jsonl", "go"))

    def note(event: str, **more: Any) -> None:
        entry = {
            "event": event,
            "run": run.run_id,
            "time": time.monotonic(),
            "pid": os.getpid(),
            "session": os.getsid(0),
            "code": mrbench.__file__,
            "slots": os.environ["MRBENCH_SLOT"].split(","),
            "gpus": os.environ["CUDA_VISIBLE_DEVICES"],
            "threads": [os.environ["OMP_NUM_THREADS"], config.runtime.threads],
            **more,
        }
        with diary.open("a") as file:
            file.write(json.dumps(entry) + "\n")

    if config.optimizer.momentum == 0.25:
        note("died")
        print("Killed by the test", flush=True)
        os._exit(3)
    with run_lock(run):
        before = run.status()
        signal.signal(signal.SIGTERM, lambda signum, frame: asked.append(signum))
        run.update(state="running", attempt=before.attempt + 1, started=now(), pid=os.getpid(), error=None)
        note("start", iteration=before.iteration)
        for iteration in range(before.iteration, config.schedule.iterations):
            time.sleep(PAUSE)
            run.update(iteration=iteration + 1, images_per_second=2 / PAUSE)
            if config.optimizer.momentum == 0.5 and iteration >= 2:
                note("failed")
                run.update(state="failed", ended=now(), error={"kind": "loss", "message": "the loss is not finite"})
                raise ValueError("the loss is not finite")
            while config.optimizer.momentum == 0.75 and iteration == 2 and not asked and not go.exists():
                time.sleep(PAUSE)
            if asked:
                note("preempted", iteration=iteration + 1)
                run.update(state="preempted", ended=now())
                return
        write_json(run.evaluation_file, {"metrics": {"box/AP": 40.0 + config.seed}})
        note("completed")
        run.update(state="completed", ended=now())
