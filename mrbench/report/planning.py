"""How many more seeds would settle a row: the power of the test that the report makes, looked up before it is run."""

from dataclasses import dataclass
from math import sqrt

from mrbench.errors import UserError
from mrbench.evaluation.student import power
from mrbench.report.statistics import LEVEL, NOISE, OWN_SPREAD_FROM, SETTLED_FROM, TOO_FEW, Difference

MOST = 1000  # seeds an arm: whoever needs more needs a larger difference


@dataclass(frozen=True)
class Aim:
    """The true difference (points of the metric) that is to be seen, and the chance with which. Raises UserError
    for what cannot be planned for."""

    difference: float = 0.4
    power: float = 0.8

    def __post_init__(self) -> None:
        if not (self.difference > 0 and LEVEL < self.power < 1):
            raise UserError(
                f"No number of seeds is for a difference of {self.difference:g} seen with a chance of {self.power:g}.",
                "--difference is above 0; --power lies between 0.05 and 1.",
            )


@dataclass(frozen=True)
class MoreSeeds:
    """`seeds` beyond those that arm and baseline share; None: more than `MOST`. `images_forbid`: the choice of test
    images alone leaves too little power, however many seeds there are."""

    seeds: int | None
    images_forbid: bool = False


def more_seeds(found: Difference, aim: Aim, rows: int) -> MoreSeeds | None:
    """Seeds to add to an undecided row, shared by arm and baseline, until `aim` is reached; None where the row is
    decided or its noise is not known.

    The noise at hand is taken for true: standard error sqrt(2 seed_sd^2 / n + image_sd^2), degrees of freedom as
    the report would have them. `rows` are the comparisons that Holm's correction covers: planned is for its first
    step, at 0.05 / rows. Without noise no seed is needed but those that the decision asks for: a row with too few
    seeds takes at least one, and as many as make `SETTLED_FROM` degrees of freedom.
    """
    interval = found.interval
    if interval is None or found.decision not in (NOISE, TOO_FEW):
        return None
    now = len(found.seeds)
    alpha = LEVEL / max(rows, 1)
    from_images = interval.image_sd or 0.0

    def reached(n: int) -> bool:
        error = sqrt(2 * interval.seed_sd**2 / n + from_images**2)
        df = n - 1 if n >= OWN_SPREAD_FROM else interval.df + max(0, n - now)
        if df < SETTLED_FROM:
            return False
        return error == 0 or power(aim.difference / error, df, alpha) >= aim.power

    if from_images and power(aim.difference / from_images, 1e6, alpha) < aim.power:
        return MoreSeeds(None, images_forbid=True)
    first = max(now + (found.decision == TOO_FEW), 1)
    for n in range(first, OWN_SPREAD_FROM):
        if reached(n):
            return MoreSeeds(n - now)
    low, high = max(first, OWN_SPREAD_FROM) - 1, MOST  # from here on power grows with n: bisection
    if not reached(MOST):
        return MoreSeeds(None)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return MoreSeeds(high - now)
