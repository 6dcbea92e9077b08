"""Timing a step so that the figure can be believed: warm-up until stable, then repeats in blocks.

Nothing here knows what a step does. A stopwatch waits until the device has finished what was queued before it is
read, so that a figure never misses work that is still running.
"""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from mrbench.bench.statistics import Summary, paired_ratio, summarise, trend_probability

Clock = Callable[[], float]
SAME = 0.01  # medians closer than this share are the same, however quiet the machine is
CHANCE = 0.2  # a trend that chance makes less often than this is one
WINDOW = 12  # steps that a warm-up is judged by, rounded up to whole cycles through the inputs
FEWEST_ROUNDS = 6  # that give an interval of 95 % by Wilcoxon's signed ranks
PRECISE = 0.015  # of the ratio: with an interval of so much to either side there are rounds enough


@dataclass
class Limits:
    """How long to warm up and to measure."""

    repeats: int = 10  # blocks
    block_seconds: float = 1.0  # a block lasts at least this long
    warmup_seconds: float = 60.0  # a warm-up that is not stable by then is given up, and said so: see `warm_up`
    warmup_steps: int = 200
    latency_seconds: float = 30.0  # for steps that are timed one by one
    latency_steps: int = 200
    rounds: int = 40  # of turns with a peer, each of two blocks of either, at most
    turn_seconds: float = 0.5  # such a block lasts at least this long
    turns_seconds: float = 300.0  # no further round begins after this, once there are enough for an interval
    turn_warmup_seconds: float = 10.0  # of either, before its turns


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


class Stopwatch:
    """The host's clock, read when nothing is queued any more: `synchronise` waits for that."""

    name = "host"

    def __init__(self, synchronise: Callable[[], object] = lambda: None, clock: Clock = time.perf_counter) -> None:
        self.synchronise, self.clock = synchronise, clock
        self.start = 0.0

    def begin(self) -> None:
        self.synchronise()
        self.start = self.clock()

    def end(self, look: Callable[[], object] = lambda: None) -> float:
        """Seconds since `begin`. `look` is called once all is queued, while the device may still be at work."""
        look()
        self.synchronise()
        return self.clock() - self.start


class WorkStopwatch(Stopwatch):
    """The processor time that this process has had: what others do meanwhile is not in it."""

    name = "processor time"

    def __init__(self) -> None:
        super().__init__(clock=time.process_time)


def same(value: float) -> float:
    """What one process agrees on with itself."""
    return value


def settled(times: Sequence[float], cycle: int) -> bool:
    """Whether the last step times show no trend.

    The last `WINDOW` steps or three cycles pass when the seasonal Kendall test finds their trend likely enough by
    chance (p > 0.2: a stricter level would call more drifts noise), or when the medians of their first and last third
    lie within 1 %.
    """
    cycles = max(math.ceil(WINDOW / cycle), 3)
    if len(times) < cycle * cycles:
        return False
    window = list(times[-cycle * cycles :])
    third = cycle * (cycles // 3)
    first, last = statistics.median(window[:third]), statistics.median(window[-third:])
    return abs(last - first) <= SAME * last or trend_probability(window, cycle) > CHANCE


def warm_up(
    step: Callable[[], object], watch: Stopwatch, cycle: int, limits: Limits, agree: Callable[[float], float] = same
) -> Warmup:
    """Run `step` until its time no longer drifts, or the limits are reached, in whole cycles.

    `cycle` is the number of different inputs that `step` goes through. `agree` gives every process the first one's
    value, so that all end after the same step. The limit in seconds counts every step like the fastest one, so that
    steps in which the network is compiled do not use it up.
    """
    times: list[float] = []
    while True:
        watch.begin()
        step()
        times.append(watch.end())
        whole = len(times) % cycle == 0
        stable = whole and settled(times, cycle)
        enough = len(times) >= limits.warmup_steps or len(times) * min(times) >= limits.warmup_seconds
        if agree(stable or (whole and enough)):
            recent = times[-max(WINDOW, cycle) :]
            return Warmup(len(times), sum(times), stable, agree(statistics.median(recent)))


def measure(
    step: Callable[[], object],
    watch: Stopwatch,
    cycle: int,
    limits: Limits,
    between: Callable[[], object] = lambda: None,
    look: Callable[[], object] = lambda: None,
    agree: Callable[[float], float] = same,
) -> Timing:
    """Warm up, call `between` (to reset counters), then time `limits.repeats` blocks of steps.

    A block is a whole number of cycles through the inputs, the fewest that last `limits.block_seconds`. Within a
    block nothing waits for the device. `look` is called in each block once all of its steps are queued, which is
    while a GPU may still work on them.
    """
    warmup = warm_up(step, watch, cycle, limits, agree)
    steps = steps_lasting(limits.block_seconds, warmup.step_seconds, cycle)
    between()
    blocks = []
    for _ in range(limits.repeats):
        watch.begin()
        for _ in range(steps):
            step()
        blocks.append(watch.end(look))
    return Timing(warmup, steps, blocks)


def take_turns(
    ours: Callable[[], object], theirs: Callable[[], object], watch: Stopwatch, cycle: int, limits: Limits
) -> tuple[int, list[float], list[float]]:
    """Warm both up, then time blocks of them in the order ours, theirs, theirs, ours: steps of a block, and seconds of
    each block of either.

    Blocks are short, single steps where these are long, so that both meet the same of whatever else the machine does.
    Within a round both go through the same inputs. Rounds go on until the ratio's interval is narrow.
    """
    short = replace(limits, warmup_seconds=min(limits.warmup_seconds, limits.turn_warmup_seconds))
    slower = max(warm_up(step, watch, cycle, short).step_seconds for step in (ours, theirs))
    steps = steps_lasting(limits.turn_seconds, slower, 1)
    seconds: tuple[list[float], list[float]] = ([], [])
    for done in range(limits.rounds):
        if done >= FEWEST_ROUNDS and (sum(map(sum, seconds)) >= limits.turns_seconds or _precise(*seconds)):
            break
        for which in (0, 1, 1, 0):
            watch.begin()
            for _ in range(steps):
                (ours, theirs)[which]()
            seconds[which].append(watch.end())
    return steps, *seconds


def _precise(ours: Sequence[float], theirs: Sequence[float]) -> bool:
    ratio = paired_ratio(ours, theirs)
    assert ratio.interval is not None
    low, high = ratio.interval
    return max(high - ratio.value, ratio.value - low) <= PRECISE * ratio.value


def steps_lasting(seconds: float, step_seconds: float, cycle: int) -> int:
    """The fewest whole cycles that last so long, in steps."""
    return cycle * max(1, math.ceil(seconds / max(step_seconds * cycle, 1e-9)))


def one_by_one(
    step: Callable[[], object], watch: Stopwatch, cycle: int, limits: Limits, step_seconds: float
) -> list[float]:
    """Seconds of steps that each begin when the one before is done: whole cycles, as many as the limits allow."""
    count = min(steps_lasting(limits.latency_seconds, step_seconds, cycle), limits.latency_steps)
    seconds = []
    for _ in range(max(count // cycle, 1) * cycle):
        watch.begin()
        step()
        seconds.append(watch.end())
    return seconds
