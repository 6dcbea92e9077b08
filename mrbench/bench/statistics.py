"""Numbers that summarise repeated measurements, and the ratio of two of them with its error."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from mrbench.evaluation.student import critical

OUTLIER_SCORE = 3.5  # modified z-score (Iglewicz & Hoaglin 1993)
MAD_TO_SIGMA = 1.4826  # a normal distribution's standard deviation over its median absolute deviation


@dataclass
class Summary:
    """What is told of a list of values. Spreads and intervals are null with a single value."""

    count: int
    mean: float
    std: float | None  # sample standard deviation (n - 1)
    median: float
    low: float
    high: float
    interval: list[float] | None  # 95 % interval of the mean: Student's t over the values
    outliers: list[int]  # places of the values whose modified z-score exceeds 3.5

    @property
    def spread(self) -> float | None:
        """The standard deviation as a share of the mean."""
        return None if self.std is None or self.mean == 0 else self.std / abs(self.mean)


@dataclass
class Ratio:
    """`a / b` and the error that the standard deviations of both give it."""

    value: float
    error: float | None


def summarise(values: Sequence[float]) -> Summary:
    """Mean, spread, median, range, 95 % interval of the mean and outliers of at least one value."""
    if not values:
        raise ValueError("nothing was measured")
    mean = statistics.fmean(values)
    std, interval = None, None
    if len(values) > 1:
        std = statistics.stdev(values)
        half = critical(len(values) - 1) * std / math.sqrt(len(values))
        interval = [mean - half, mean + half]
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


def deviation(values: Sequence[float]) -> float:
    """Standard deviation estimated from the median absolute deviation, which single stragglers do not move."""
    middle = statistics.median(values)
    return MAD_TO_SIGMA * statistics.median(abs(value - middle) for value in values)


def outliers(values: Sequence[float]) -> list[int]:
    """Places of the values that lie further from the median than the bulk of the others allows."""
    sigma = deviation(values)
    if sigma == 0:
        return []
    middle = statistics.median(values)
    return [place for place, value in enumerate(values) if abs(value - middle) / sigma > OUTLIER_SCORE]


def ratio(a: Summary, b: Summary) -> Ratio:
    """`a.mean / b.mean`; independent relative errors add in squares (as hyperfine compares commands)."""
    value = a.mean / b.mean
    if a.spread is None or b.spread is None:
        return Ratio(value, None)
    return Ratio(value, value * math.hypot(a.spread, b.spread))
