"""What a person sees of a running training, and how fast it is."""

import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from mrbench.runs.record import Run


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that tensors took of the GPU, or that this process took of main memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def duration(seconds: float) -> str:
    """h:mm:ss."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


class Throughput:
    """Images a second of training alone: without the first iterations, checkpoints and evaluation.

    Args:
        images: in one iteration, over all processes.
        warmup: iterations that are not counted; memory is allocated and kernels are chosen in them.
    """

    def __init__(self, images: int, warmup: int = 5) -> None:
        self._images = images
        self._warmup = warmup
        self._iterations = 0
        self._paused = 0.0
        self._start = self._lap_start = (0.0, 0)

    def iteration_done(self) -> None:
        self._iterations += 1
        if self._iterations == self._warmup:
            self._start = self._lap_start = (self._clock(), self._iterations)

    def _clock(self) -> float:
        return time.perf_counter() - self._paused

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What happens in the block does not count."""
        start = time.perf_counter()
        yield
        self._paused += time.perf_counter() - start

    def lap(self) -> float | None:
        """Images a second since the last call; None where nothing was measured yet."""
        rate = self._since(self._lap_start)
        if rate is not None:
            self._lap_start = (self._clock(), self._iterations)
        return rate

    def overall(self) -> float | None:
        """Images a second since the first iterations; None where nothing was measured yet."""
        return self._since(self._start)

    def _since(self, mark: tuple[float, int]) -> float | None:
        seconds, iterations = self._clock() - mark[0], self._iterations - mark[1]
        if self._iterations <= self._warmup or iterations == 0:
            return None
        return self._images * iterations / seconds


class Reporter:
    """Tells the terminal and log.txt. One line that is rewritten where there is a terminal, else a line each.

    Args:
        run: whose log.txt is written to.
        main: False for the processes that say nothing.
    """

    def __init__(self, run: Run, main: bool) -> None:
        self._run = run
        self._main = main
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def say(self, text: str) -> None:
        """A line for the terminal and the log."""
        if self._main:
            self._run.log(text)
            self._console.print(text, markup=False)

    def show(
        self, done: int, total: int, losses: Mapping[str, float], rate: float | None, images: int, memory: int
    ) -> None:
        """Progress after `done` iterations of `images` images each. Losses are means since the last call."""
        if not self._main:
            return
        left = "" if rate is None else f"{rate:.1f} images/s  {duration((total - done) * images / rate)} left  "
        numbers = f"loss {losses['loss']:.3f}  {left}{memory / 2**20:.0f} MiB"
        parts = " ".join(f"{name} {value:.3f}" for name, value in losses.items() if name != "loss")
        self._run.log(f"iteration {done}/{total}  {numbers}  {parts}")
        if not self._console.is_terminal:
            self._console.print(f"iteration {done}/{total}  {numbers}", markup=False)
            return
        if self._progress is None:
            columns = (TextColumn("train"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
            self._progress = Progress(*columns, console=self._console, transient=True)
            self._progress.start()
            self._task = self._progress.add_task("", total=total)
        assert self._task is not None
        self._progress.update(self._task, completed=done, description=numbers)
