"""`mrbench`, killed at a chosen moment: MOMENT=... python killed_train.py [arguments of mrbench].

The moment is set by replacing one function before the command starts. Processes that the command starts come
through here as well, since Python imports the main program again in each.
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mrbench.engine import evaluate, loop
from mrbench.engine.step import TrainStep
from mrbench.runs import files, metrics

step, write_bytes, replace, append = TrainStep.__call__, Path.write_bytes, os.replace, metrics.append


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_before_step(iteration: int, rank: int | None = None) -> None:
    def patched(self: TrainStep, batch: Any) -> Any:
        import torch.distributed as dist

        if batch.iteration == iteration and (rank is None or dist.get_rank() == rank):
            die()
        return step(self, batch)

    TrainStep.__call__ = patched  # type: ignore[method-assign]


def stop_before_step(iteration: int, rank: int) -> None:
    def patched(self: TrainStep, batch: Any) -> Any:
        import torch.distributed as dist

        if batch.iteration == iteration and dist.get_rank() == rank:
            os.kill(os.getpid(), signal.SIGSTOP)
        return step(self, batch)

    TrainStep.__call__ = patched  # type: ignore[method-assign]


def kill_before_detecting(rank: int) -> None:
    detect = evaluate.detect_as_configured

    def patched(*arguments: Any) -> Any:
        if arguments[-2] == rank:
            die()
        return detect(*arguments)

    evaluate.detect_as_configured = patched


def kill_inside_checkpoint(name: str) -> None:
    def patched(self: Path, data: Any) -> int:
        if name in self.name:
            with self.open("wb") as file:
                file.write(data[: len(data) // 2])
                file.flush()
                die()
        return write_bytes(self, data)

    Path.write_bytes = patched  # type: ignore[assignment]


def kill_before_rename(name: str) -> None:
    def patched(source: Any, target: Any) -> None:
        if Path(target).name == name:
            die()
        replace(source, target)

    files.os.replace = patched  # type: ignore[attr-defined]


def kill_inside_log_line(iteration: int) -> None:
    def patched(path: Path, entry: dict[str, Any]) -> None:
        if entry["iteration"] == iteration:
            with path.open("a") as file:
                file.write('{"kind": "train", "iterat')
            die()
        append(path, entry)

    metrics.append = patched


def kill_before_result() -> None:
    def patched(*arguments: Any) -> None:
        die()

    loop.write_result = patched


MOMENTS: dict[str, Callable[[], None]] = {
    "step": lambda: kill_before_step(6),
    "inside-checkpoint": lambda: kill_inside_checkpoint("00000008.pt"),
    "between-checkpoint-and-sum": lambda: kill_before_rename("00000008.json"),
    "inside-log-line": lambda: kill_inside_log_line(10),
    "final-evaluation": kill_before_result,
    "one-of-two": lambda: kill_before_step(6, rank=1),
    "main-of-two": lambda: kill_before_step(6, rank=0),
    "one-of-two-hangs": lambda: stop_before_step(6, rank=1),
    "one-of-two-detecting": lambda: kill_before_detecting(rank=1),
}

MOMENTS[os.environ["MOMENT"]]()

if __name__ == "__main__":
    from mrbench.cli.app import main

    main()
