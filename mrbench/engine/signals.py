"""Being asked to stop, which is noted and not obeyed at once: SIGTERM (a cluster wants its node back), SIGINT
(Ctrl-C), and what a cluster is told to send before a job's time is over (sbatch --signal)."""

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

ASKING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


class Preempted(Exception):
    """The run was asked to stop, and can go on later."""

    def __init__(self, signum: int, iteration: int | None = None) -> None:
        name = signal.Signals(signum).name
        super().__init__(f"stopped by {name}" + ("" if iteration is None else f" at iteration {iteration}"))
        self.signum = signum
        self.iteration = iteration

    def __reduce__(self) -> tuple[Any, ...]:
        return Preempted, (self.signum, self.iteration)


class StopSignal:
    """While it is entered, the signals ASKING only set `received`, and are passed to `forward` where given.

    Signals can be handled in the main thread only; elsewhere it stays silent, and the caller's own handling holds.
    """

    def __init__(self, forward: Callable[[int], None] | None = None) -> None:
        self.received: int | None = None
        self._forward = forward
        self._before: dict[int, Any] = {}

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        self.received = signum
        if self._forward is not None:
            self._forward(signum)

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            self._before = {s: signal.signal(s, self._handle) for s in ASKING}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
