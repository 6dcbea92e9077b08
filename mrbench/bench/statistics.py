"""Numbers that summarise repeated measurements, and the ratio of two of them with its error."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from mrbench.evaluation.student import critical

OUTLIER_SCORE = 3.5  # modified z-score (Iglewicz & Hoaglin 1993)
MAD_TO_SIGMA = 1.4826  # a normal distribution's standard deviation over its median absolute deviation
FEWEST_FOR_OUTLIERS = 5  # values: of fewer, two that happen to be close make the third one look far
FEWEST = 3  # values for an interval: with two, Student's t is 12.7, and the interval says nothing


@dataclass
class Summary:
    """What is told of a list of positive values. The spread is null with one value, the interval with one or two."""

    count: int
    mean: float
    std: float | None  # sample standard deviation (n - 1)
    median: float
    low: float
    high: float
    interval: list[float] | None  # 95 % interval of the mean: Student's t over the values, cut off at zero
    outliers: list[int]  # places of the values whose modified z-score exceeds 3.5

    @property
    def spread(self) -> float | None:
        """The standard deviation as a share of the mean."""
        return None if self.std is None or self.mean == 0 else self.std / abs(self.mean)


@dataclass
class Latency:
    """Seconds from handing a batch over until its result is there, each step on its own. A percentile is null where
    there are too few steps for one of them to lie above it."""

    steps: int
    p50: float
    p90: float | None
    p99: float | None
    seconds: list[float]


@dataclass
class PairedRatio:
    """How many times as fast one is as another, out of measurements that took turns."""

    value: float  # over the rounds, by Hodges and Lehmann
    interval: list[float] | None  # at least 95 %, by Wilcoxon's signed ranks; null below six rounds
    rounds: list[float]


@dataclass
class Ratio:
    """`a / b` and the error that the standard deviations of both give it."""

    value: float
    error: float | None


def summarise(values: Sequence[float]) -> Summary:
    """Mean, spread, median, range, 95 % interval of the mean and outliers of at least one positive value."""
    if not values:
        raise ValueError("nothing was measured")
    mean = statistics.fmean(values)
    std = statistics.stdev(values) if len(values) > 1 else None
    interval = None
    if std is not None and len(values) >= FEWEST:
        half = critical(len(values) - 1) * std / math.sqrt(len(values))
        interval = [max(mean - half, 0.0), mean + half]
    return Summary(
        count=len(values),
        mean=mean,
        std=std,
        median=statistics.median(values),
        low=min(values),
        high=max(values),
        interval=interval,
        outliers=outliers(values),
    )


def percentile(values: Sequence[float], percent: float) -> float | None:
    """Interpolated between the two nearest values (Hyndman & Fan 1996, type 7, as NumPy); None where not even one
    value is expected above it."""
    if round(len(values) * (100 - percent), 6) < 100:
        return None
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    below = min(int(place), len(ordered) - 2)
    return ordered[below] + (place - below) * (ordered[below + 1] - ordered[below])


def latency(seconds: Sequence[float]) -> Latency:
    """Of at least one step."""
    middle = statistics.median(seconds)
    return Latency(len(seconds), middle, percentile(seconds, 90), percentile(seconds, 99), list(seconds))


def deviation(values: Sequence[float]) -> float:
    """Standard deviation estimated from the median absolute deviation, which single stragglers do not move."""
    middle = statistics.median(values)
    return MAD_TO_SIGMA * statistics.median(abs(value - middle) for value in values)


def outliers(values: Sequence[float]) -> list[int]:
    """Places of the values that lie further from the median than the bulk of the others allows."""
    sigma = deviation(values)
    if sigma == 0 or len(values) < FEWEST_FOR_OUTLIERS:
        return []
    middle = statistics.median(values)
    return [place for place, value in enumerate(values) if abs(value - middle) / sigma > OUTLIER_SCORE]


def trend_probability(values: Sequence[float], seasons: int) -> float:
    """How probable so strong a rise or fall is by chance (two-sided), by the seasonal Kendall test (Hirsch, Slack &
    Smith 1982; with one season Mann 1945 and Kendall 1975).

    Each value is compared only with those of the same place in their cycle of `seasons`, so inputs of different cost
    are no trend. Normal approximation with continuity correction; the variance is corrected for ties.
    """
    score, variance = 0, 0.0
    for season in range(seasons):
        row = values[season::seasons]
        n = len(row)
        score += sum((b > a) - (b < a) for i, a in enumerate(row) for b in row[i + 1 :])
        ties = [row.count(value) for value in set(row)]
        variance += (n * (n - 1) * (2 * n + 5) - sum(t * (t - 1) * (2 * t + 5) for t in ties)) / 18
    if score == 0 or variance == 0:
        return 1.0
    return math.erfc((abs(score) - 1) / math.sqrt(2 * variance))


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> PairedRatio:
    """`theirs / ours` of seconds, whose blocks were measured in the order ours, theirs, theirs, ours, and so on.

    Such a round has both in the middle of the same stretch of time, so that a steady drift cancels. Over rounds it is
    Hodges and Lehmann's estimate (1963) on logarithms, the median of all pairs' means: single disturbed rounds hardly
    move it, and it spreads less than the median.
    """
    if not ours or len(ours) != len(theirs) or len(ours) % 2:
        raise ValueError("rounds have two blocks of each")
    rounds = [(theirs[k] + theirs[k + 1]) / (ours[k] + ours[k + 1]) for k in range(0, len(ours), 2)]
    means = walsh_averages([math.log(value) for value in rounds])
    rank = signed_rank(len(rounds)) + 1
    interval = [math.exp(means[rank - 1]), math.exp(means[-rank])] if rank > 0 else None
    return PairedRatio(math.exp(statistics.median(means)), interval, rounds)


def walsh_averages(values: Sequence[float]) -> list[float]:
    """The means of all pairs, each value with itself too, in rising order."""
    return sorted((a + b) / 2 for place, a in enumerate(values) for b in values[place:])


def signed_rank(count: int, tail: float = 0.025) -> int:
    """The largest sum of positive ranks that Wilcoxon's signed-rank test calls significant: its probability, and that
    of all smaller ones together, is at most `tail`. -1 where there is none."""
    ways = [1] + [0] * (count * (count + 1) // 2)  # in which ranks up to `count` add up to each sum
    for rank in range(1, count + 1):
        for total in range(len(ways) - 1, rank - 1, -1):
            ways[total] += ways[total - rank]
    below, found = 0, -1
    while (below := below + ways[found + 1]) <= tail * 2**count:
        found += 1
    return found


def ratio(a: Summary, b: Summary) -> Ratio:
    """`a.mean / b.mean`; independent relative errors add in squares (as hyperfine compares commands)."""
    value = a.mean / b.mean
    if a.spread is None or b.spread is None:
        return Ratio(value, None)
    return Ratio(value, value * math.hypot(a.spread, b.spread))
