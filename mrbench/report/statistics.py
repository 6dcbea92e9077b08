"""From scores (arm x seed) to means, intervals and decisions. Knows nothing of files, plots or detection.

The model is the two-way layout  score[arm, seed] = arm's mean + seed's effect + noise,  noise normal with the same
standard deviation in every arm. Two estimates of spread follow from it:

- *within arms* (seed's effect and noise together), for the interval of one arm's mean;
- *of pairs* (noise alone: what is left after arm and seed effects are removed), for a difference paired over seeds,
  whose variance is 2 noise^2 / shared seeds.  With all A arms x S seeds present it has (A-1)(S-1) degrees of
  freedom; with two arms it is the paired t test.

An ablation has few seeds an arm, so both are pooled over the arms of the study until an arm has `OWN_SPREAD_FROM`
seeds of its own. Chance in the choice of test images, where it is known, comes in as a variance that is added; the
degrees of freedom stay those of the seeds. Satterthwaite's would grow with the images' share, and where two seeds
happen to agree, a second source of chance would make the interval narrower.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt

import numpy as np

from mrbench.evaluation.student import critical, two_sided_p

OWN_SPREAD_FROM = 5  # seeds; fewer say too little about an arm's own spread
SETTLED_FROM = 3.0  # degrees of freedom below which "no difference seen" only means "could not have seen one"

BETTER, WORSE, NOISE, TOO_FEW = "better", "worse", "inside the noise", "too few seeds"

Scores = Mapping[str, Mapping[int, float]]  # arm -> seed -> score


@dataclass(frozen=True)
class Spread:
    """A standard deviation and the degrees of freedom behind it (0: nothing is known, `sd` is nan)."""

    sd: float
    df: int


@dataclass(frozen=True)
class ImageNoise:
    """Variance of a mean, or of a difference of means, from the choice of test images; see `images.py`."""

    variance: float
    images: int


@dataclass(frozen=True)
class Interval:
    """A 95 % interval, and what it holds."""

    low: float
    high: float
    standard_error: float
    df: int  # the seeds'
    seed_sd: float  # spread over seeds that went in
    pooled: bool  # seed_sd is pooled over the arms of the study
    image_sd: float | None  # standard error from the choice of images; None: not in the interval

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Summary:
    """One arm, one metric. `sd` (over its own seeds) needs two of them; mean needs one."""

    seeds: tuple[int, ...]
    mean: float | None
    sd: float | None
    interval: Interval | None

    @property
    def n(self) -> int:
        return len(self.seeds)


@dataclass(frozen=True)
class Difference:
    """An arm against the baseline, one metric. `seeds` are the shared ones; unpaired where none is shared."""

    seeds: tuple[int, ...]
    paired: bool
    mean: float | None
    interval: Interval | None
    p: float | None  # two-sided, of no difference
    decision: str


def within_arms(scores: Scores) -> Spread:
    """Standard deviation over seeds about each arm's own mean, pooled over arms."""
    groups = [np.array(list(arm.values()), dtype=float) for arm in scores.values() if arm]
    df = sum(len(group) - 1 for group in groups)
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in groups)
    return Spread(sqrt(squares / df) if df else float("nan"), df)


def of_pairs(scores: Scores) -> Spread:
    """Residual standard deviation of the two-way layout arm + seed, by least squares, complete or not."""
    arms = sorted(scores)
    seeds = sorted({seed for arm in scores.values() for seed in arm})
    cells = [(a, s, scores[a][s]) for a in arms for s in seeds if s in scores[a]]
    if not cells:
        return Spread(float("nan"), 0)
    design = np.zeros((len(cells), len(arms) + len(seeds)))
    for row, (a, s, _) in enumerate(cells):
        design[row, arms.index(a)] = 1
        design[row, len(arms) + seeds.index(s)] = 1
    y = np.array([score for _, _, score in cells])
    y = y - y.mean()  # the same residuals, without digits lost to a large common level
    solution, _, rank, _ = np.linalg.lstsq(design, y, rcond=None)
    df = len(cells) - int(rank)
    residual = y - design @ solution
    return Spread(sqrt(float(residual @ residual) / df) if df else float("nan"), df)


def summarise(own: Mapping[int, float], pooled: Spread, images: ImageNoise | None = None) -> Summary:
    """Mean of one arm with its interval; `pooled` is `within_arms` of the study, used while the arm has few seeds."""
    seeds = tuple(sorted(own))
    values = np.array([own[seed] for seed in seeds], dtype=float)
    if not seeds:
        return Summary((), None, None, None)
    sd = float(values.std(ddof=1)) if len(seeds) > 1 else None
    enough = len(seeds) >= OWN_SPREAD_FROM and sd is not None
    spread = Spread(sd, len(seeds) - 1) if enough and sd is not None else pooled
    mean = float(values.mean())
    return Summary(seeds, mean, sd, _interval(mean, spread, 1 / len(seeds), not enough, images))


def compare(
    arm: Mapping[int, float],
    baseline: Mapping[int, float],
    pairs: Spread,
    within: Spread,
    images: ImageNoise | None = None,
) -> Difference:
    """`arm` minus `baseline`, paired over the seeds that both have, with interval, p-value and decision.

    `pairs` and `within` are `of_pairs` and `within_arms` of the study. Where no seed is shared the difference of the
    means is taken, with the spread within arms. The decision is `too few seeds` where a side has fewer than two
    seeds, where no spread is known, or where nothing was found with fewer than `SETTLED_FROM` degrees of freedom.
    """
    shared = tuple(sorted(set(arm) & set(baseline)))
    if shared:
        differences = np.array([arm[seed] - baseline[seed] for seed in shared], dtype=float)
        mean, fewest, share = float(differences.mean()), len(shared), 2 / len(shared)
        enough = fewest >= OWN_SPREAD_FROM
        spread = Spread(float(differences.std(ddof=1)) / sqrt(2), fewest - 1) if enough else pairs
    elif arm and baseline:
        mean = float(np.mean(list(arm.values())) - np.mean(list(baseline.values())))
        fewest, share = min(len(arm), len(baseline)), 1 / len(arm) + 1 / len(baseline)
        enough, spread = False, within
    else:
        return Difference((), True, None, None, None, TOO_FEW)
    interval = _interval(mean, spread, share, not enough, images)
    if interval is None:
        return Difference(shared, bool(shared), mean, None, None, TOO_FEW)
    if interval.standard_error > 0:
        p = two_sided_p(mean / interval.standard_error, interval.df)
    else:
        p = 1.0 if mean == 0 else 0.0
    return Difference(shared, bool(shared), mean, interval, p, _decide(mean, interval, fewest))


def _interval(mean: float, spread: Spread, share: float, pooled: bool, images: ImageNoise | None) -> Interval | None:
    """mean -+ t standard errors; `share` times the seeds' variance is the variance of the mean."""
    if spread.df < 1:
        return None
    from_seeds = spread.sd**2 * share
    from_images = images.variance if images else 0.0
    error = sqrt(from_seeds + from_images)
    half = critical(spread.df) * error
    return Interval(
        low=mean - half,
        high=mean + half,
        standard_error=error,
        df=spread.df,
        seed_sd=spread.sd,
        pooled=pooled,
        image_sd=sqrt(from_images) if images else None,
    )


def _decide(mean: float, interval: Interval, fewest_seeds: int) -> str:
    if fewest_seeds < 2:
        return TOO_FEW
    if interval.low > 0:
        return BETTER
    if interval.high < 0:
        return WORSE
    return NOISE if interval.df >= SETTLED_FROM else TOO_FEW
