"""How a run can fail through no mistake of its user: the reasons that its record names."""

import signal
from typing import Any


class RunFailed(Exception):
    """A run ended before its time, and its record says why: exit code 1."""

    kind = "failed"

    def record(self) -> dict[str, Any]:
        """The error as status.json holds it."""
        return {"kind": self.kind, "message": str(self)}


class NonFiniteLoss(RunFailed):
    """A loss was infinite or not a number; or the weights became so (loss "weights") though every loss was finite.

    `iteration` counts from 1, as metrics.jsonl does; `image_ids` are those of its global batch.
    """

    kind = "non_finite_loss"

    def __init__(self, iteration: int, loss: str, value: float, image_ids: list[int]) -> None:
        super().__init__(f"{loss} is {value} at iteration {iteration} (images {', '.join(map(str, image_ids))})")
        self.iteration = iteration
        self.loss = loss
        self.value = value
        self.image_ids = image_ids

    def record(self) -> dict[str, Any]:
        # JSON has no infinity: the value is a word.
        details = {"iteration": self.iteration, "loss": self.loss, "value": str(self.value)}
        return {**super().record(), **details, "image_ids": self.image_ids}

    def __reduce__(self) -> tuple[Any, ...]:
        return NonFiniteLoss, (self.iteration, self.loss, self.value, self.image_ids)


class ProcessDied(RunFailed):
    """One of the processes of a run ended without a word of its own. `rank` is None where it is not known which."""

    kind = "process_died"

    def __init__(self, rank: int | None, exit_code: int | None = None) -> None:
        how = "is gone"
        if exit_code is not None:
            how = f"was ended by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"ended with {exit_code}"
        super().__init__(f"{'another process' if rank is None else f'process {rank}'} of the run {how}")
        self.rank = rank
        self.exit_code = exit_code

    def __reduce__(self) -> tuple[Any, ...]:
        return ProcessDied, (self.rank, self.exit_code)

    def record(self) -> dict[str, Any]:
        return {**super().record(), "rank": self.rank, "exit_code": self.exit_code}


class ProcessSilent(RunFailed):
    """A process waited for another one as long as `runtime.timeout` allows: that one hangs, or never came."""

    kind = "process_silent"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"another process of the run did not answer for {seconds:g} s (runtime.timeout)")
        self.seconds = seconds

    def __reduce__(self) -> tuple[Any, ...]:
        return ProcessSilent, (self.seconds,)


class ProcessFailed(RunFailed):
    """An exception that is a bug in one of the processes of a run; the message ends with its traceback."""

    kind = "exception"


class OutOfMemory(RunFailed):
    """The device's memory does not hold a step."""

    kind = "out_of_memory"
