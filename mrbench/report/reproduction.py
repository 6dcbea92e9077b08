"""Our numbers beside the published ones: how far the changes differ, and whether the value is reproduced.

A published value is a single run. It is reproduced when it lies within our 95 % interval, widened by the noise of one
run: the spread over public runs of one recipe (`prior.public_spread`). Changes are compared likewise, with the noise
of two published runs. Nothing is said to be reproduced, or not, unless the arm is the published training itself.
"""

from dataclasses import dataclass
from math import hypot, sqrt

from mrbench.evaluation.student import critical
from mrbench.report import published
from mrbench.report.collect import Arm
from mrbench.report.prior import METRICS, public_spread
from mrbench.report.statistics import Difference, Interval, Summary

TEST_IMAGES = {"val2017": 5000, "minival": 5000}  # of the splits on which ours and theirs can be the same


@dataclass(frozen=True)
class Beside:
    """One arm and metric. `value` and `change` are published; `gap` is our change less theirs, with its 95 % interval
    where one is known. `reproduced` is None where that cannot be said, for the reason `why_not`."""

    row: str
    value: float | None
    change: float | None
    gap: float | None = None
    gap_low: float | None = None
    gap_high: float | None = None
    reproduced: bool | None = None
    why_not: str = ""


def beside(
    arm: Arm, row_id: str, baseline_row: str | None, metric: str, ours: Summary, difference: Difference | None
) -> Beside:
    """`difference` is that to the study's baseline, None for the baseline. UserError where there is no such row."""
    row = published.lookup(row_id)
    value, change = row.metrics.get(metric), published.change(row_id, baseline_row, metric)
    gap = low = high = None
    if change is not None and difference is not None and difference.mean is not None:
        gap = difference.mean - change
        if difference.interval is not None and metric in METRICS:
            half = hypot(difference.interval.half_width, sqrt(2) * noise_of_one(metric))
            low, high = gap - half, gap + half
    why_not = _why_not(arm, row, metric, value, ours.interval)
    reproduced = None
    if not why_not and value is not None and ours.interval is not None and ours.mean is not None:
        reproduced = abs(value - ours.mean) <= hypot(ours.interval.half_width, noise_of_one(metric))
    return Beside(row_id, value, change, gap, low, high, reproduced, why_not)


def noise_of_one(metric: str) -> float:
    """Half of the 95 % interval of a single public run, in points."""
    spread = public_spread(metric)
    return critical(spread.df) * spread.sd


def _why_not(arm: Arm, row: published.AccuracyRow, metric: str, value: float | None, interval: Interval | None) -> str:
    if value is None:
        return "not published"
    if not arm.published_recipe:
        return "at small scale" if arm.scale == "small" else "not the published training"
    if metric not in METRICS:
        return "the noise of one published run is not known"
    images = {run.images for run in arm.runs if metric in run.metrics}
    if images != {TEST_IMAGES.get(row.test)}:
        return f"not tested on {row.test}"
    return "" if interval is not None else "too few seeds"
