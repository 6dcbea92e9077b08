"""Timing a step so that the figure can be believed: warm-up until stable, then repeats in blocks.

Nothing here knows what a step does. `synchronise` waits until the device has finished what was queued; the clock
is read only after it, so that a figure never misses work that is still running.
"""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mrbench.bench.statistics import Summary, deviation, summarise

Clock = Callable[[], float]
SAME = 0.01  # medians closer than this share are the same, however quiet the machine is


@dataclass
class Limits:
    """How long to warm up and to measure."""

    repeats: int = 10  # blocks
    block_seconds: float = 1.0  # a block lasts at least this long
    warmup_seconds: float = 60.0  # a warm-up that is not stable by then is given up, and said so
    warmup_steps: int = 200


@dataclass
class Warmup:
    steps: int
    seconds: float
    stable: bool
    step_seconds: float  # median of the last window


@dataclass
class Timing:
    """Times of the blocks of one measurement."""

    warmup: Warmup
    steps_per_block: int
    block_seconds: list[float]
    step_seconds: Summary = field(init=False)

    def __post_init__(self) -> None:
        self.step_seconds = summarise([seconds / self.steps_per_block for seconds in self.block_seconds])

    def rates(self, images: int) -> list[float]:
        """Images per second of each block, for steps of `images` images."""
        return [images * self.steps_per_block / seconds for seconds in self.block_seconds]


def settled(times: Sequence[float], window: int) -> bool:
    """Whether the last window's median step time agrees with both windows before it.

    Two medians of n values of standard deviation s differ by sqrt(2) * 1.2533 * s / sqrt(n) by chance (normal
    errors); twice that, or 1 %, counts as agreement. s comes from the median absolute deviation within windows.
    """
    if len(times) < 3 * window:
        return False
    parts = [times[len(times) - (3 - part) * window :][:window] for part in range(3)]
    medians = [statistics.median(part) for part in parts]
    within = [time - middle for part, middle in zip(parts, medians, strict=True) for time in part]
    allowed = max(2 * math.sqrt(2 / window) * 1.2533 * deviation(within), SAME * medians[2])
    return all(abs(medians[2] - middle) <= allowed for middle in medians[:2])


def warm_up(
    step: Callable[[], object],
    synchronise: Callable[[], object],
    cycle: int,
    limits: Limits,
    clock: Clock = time.perf_counter,
) -> Warmup:
    """Run `step` until its time no longer drifts, or the limits are reached.

    `cycle` is the number of different inputs that `step` goes through: windows hold whole cycles, so that they
    compare the same work.
    """
    window = cycle * math.ceil(4 / cycle)
    times: list[float] = []
    synchronise()
    begin = clock()
    while True:
        start = clock()
        step()
        synchronise()
        times.append(clock() - start)
        stable = len(times) % cycle == 0 and settled(times, window)
        if stable or len(times) >= limits.warmup_steps or clock() - begin >= limits.warmup_seconds:
            return Warmup(len(times), clock() - begin, stable, statistics.median(times[-window:]))


def measure(
    step: Callable[[], object],
    synchronise: Callable[[], object],
    cycle: int,
    limits: Limits,
    between: Callable[[], object] = lambda: None,
    clock: Clock = time.perf_counter,
) -> Timing:
    """Warm up, call `between` (to reset counters of memory), then time `limits.repeats` blocks of steps.

    A block is a whole number of cycles through the inputs, the fewest that last `limits.block_seconds`. Within a
    block nothing waits for the device.
    """
    warmup = warm_up(step, synchronise, cycle, limits, clock)
    cycles = max(1, math.ceil(limits.block_seconds / max(warmup.step_seconds * cycle, 1e-9)))
    steps = cycle * cycles
    between()
    blocks = []
    for _ in range(limits.repeats):
        synchronise()
        start = clock()
        for _ in range(steps):
            step()
        synchronise()
        blocks.append(clock() - start)
    return Timing(warmup, steps, blocks)
