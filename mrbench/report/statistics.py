"""From scores (arm x seed) to means, intervals and decisions. Knows nothing of files, plots or detection.

The model is the two-way layout  score[arm, seed] = arm's mean + seed's effect + noise,  noise normal with the same
standard deviation in every arm. Two estimates of spread follow from it:

- *within arms* (seed's effect and noise together), for the interval of one arm's mean;
- *of pairs* (noise alone: what is left after arm and seed effects are removed), for a difference paired over seeds,
  whose variance is 2 noise^2 / shared seeds.  With all A arms x S seeds present it has (A-1)(S-1) degrees of
  freedom; with two arms it is the paired t test.

An ablation has few seeds an arm, so both are pooled over the arms of the study until an arm has `OWN_SPREAD_FROM`
seeds of its own, and combined with what is known beforehand where something is (`moderated`). A difference is
decided by its p-value after Holm's correction over the arms of the study (`decide`). Chance in the choice of test
images, where it is known, comes in as a variance that is added; the degrees of freedom stay those of the seeds.
Satterthwaite's would grow with the images' share, and where two seeds happen to agree, a second source of chance
would make the interval narrower.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import sqrt

import numpy as np

from mrbench.evaluation.student import critical, f_tail, two_sided_p
from mrbench.report.significance import Permutation, holm, sign_flips, welch

OWN_SPREAD_FROM = 5  # seeds; fewer say too little about an arm's own spread
CONFLICT = 0.05  # a study whose own spread is this improbable under the prior's does not use the prior
LEVEL = 0.05  # of the decisions
SETTLED_FROM = 3.0  # degrees of freedom below which "no difference seen" only means "could not have seen one"

BETTER, WORSE, NOISE, TOO_FEW = "better", "worse", "inside the noise", "too few seeds"

Scores = Mapping[str, Mapping[int, float]]  # arm -> seed -> score


@dataclass(frozen=True)
class Spread:
    """A standard deviation and the degrees of freedom behind it (0: nothing is known, `sd` is nan)."""

    sd: float
    df: int


@dataclass(frozen=True)
class Noise:
    """What intervals of a study rest on: `of_pairs`, `within_arms`, a spread known beforehand (None: nothing is),
    and the fewest runs on either side of a difference that is decided."""

    pairs: Spread
    within: Spread
    prior: Spread | None = None
    fewest_seeds: int = 2


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
    prior: bool  # a spread known beforehand is part of it
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
    def limits(self) -> tuple[float, float] | None:
        """The interval's ends as they are shown: a score in percent is between 0 and 100."""
        return None if self.interval is None else (max(0.0, self.interval.low), min(100.0, self.interval.high))

    @property
    def n(self) -> int:
        return len(self.seeds)


@dataclass(frozen=True)
class Difference:
    """An arm against the baseline, one metric. `seeds` are the shared ones; `paired`: over them.

    The p-values are two-sided, of no difference: `p` belongs to the interval, `p_holm` is that after Holm's
    correction over the table, `p_welch` takes all runs of both unpaired, each side with its own spread.
    """

    seeds: tuple[int, ...]
    paired: bool
    fewest_seeds: int  # runs that went in, on the side that has fewer
    mean: float | None
    interval: Interval | None = None
    p: float | None = None
    p_holm: float | None = None
    p_welch: float | None = None
    permutation: Permutation | None = None
    decision: str = TOO_FEW


def within_arms(scores: Scores) -> Spread:
    """Standard deviation over seeds about each arm's own mean, pooled over arms."""
    groups = [np.array(list(arm.values()), dtype=float) for arm in scores.values() if arm]
    df = sum(len(group) - 1 for group in groups)
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in groups)
    return Spread(sqrt(squares / df) if df else float("nan"), df)


def of_pairs(scores: Scores) -> Spread:
    """Residual standard deviation of the two-way layout arm + seed, by least squares, complete or not.

    The factor with more levels is taken out as means within it, of the scores and of the other factor's columns alike;
    what is left is a small problem with the same residuals (Frisch and Waugh 1933, Econometrica 1).
    """
    cells = [(arm, seed, score) for arm, own in scores.items() for seed, score in own.items()]
    if not cells:
        return Spread(float("nan"), 0)
    arm_of = np.unique([arm for arm, _, _ in cells], return_inverse=True)[1]
    seed_of = np.unique([seed for _, seed, _ in cells], return_inverse=True)[1]
    many, few = sorted((arm_of, seed_of), key=lambda levels: -int(levels.max()))
    y = np.array([score for _, _, score in cells], dtype=float)
    y = y - y.mean()  # the same residuals, without digits lost to a large common level
    columns = np.column_stack([y, few[:, None] == np.arange(few.max() + 1)])
    counts = np.bincount(many)
    means = np.zeros((len(counts), columns.shape[1]))
    np.add.at(means, many, columns)
    columns -= (means / counts[:, None])[many]
    solution, _, rank, _ = np.linalg.lstsq(columns[:, 1:], columns[:, 0], rcond=None)
    df = len(cells) - len(counts) - int(rank)
    residual = columns[:, 0] - columns[:, 1:] @ solution
    return Spread(sqrt(float(residual @ residual) / df) if df else float("nan"), df)


def noise_of(scores: Scores, prior: Spread | None = None, fewest_seeds: int = 2) -> Noise:
    """The noise of a study, from its scores and what was known before them."""
    return Noise(of_pairs(scores), within_arms(scores), prior, fewest_seeds)


def moderated(own: Spread, prior: Spread | None) -> Spread:
    """`own` and `prior` in one: variances weighted by degrees of freedom, which add up.

    The posterior under a scaled inverse chi-squared prior, and the t test with it is exact where the prior holds
    (Smyth 2004, Linear models and empirical Bayes methods for assessing differential expression, section 3). Where
    the study's own spread is larger than the prior allows (F test, `CONFLICT`), the prior does not hold here and
    `own` stands alone.
    """
    if prior is None or not prior.df:
        return own
    if not own.df:
        return prior
    if f_tail((own.sd / prior.sd) ** 2, own.df, prior.df) < CONFLICT:
        return own
    df = own.df + prior.df
    return Spread(sqrt((own.df * own.sd**2 + prior.df * prior.sd**2) / df), df)


def summarise(own: Mapping[int, float], noise: Noise, images: ImageNoise | None = None) -> Summary:
    """Mean of one arm with its interval; the study's noise is used while the arm has few seeds."""
    seeds = tuple(sorted(own))
    values = np.array([own[seed] for seed in seeds], dtype=float)
    if not seeds:
        return Summary((), None, None, None)
    sd = float(values.std(ddof=1)) if len(seeds) > 1 else None
    alone = Spread(sd, len(seeds) - 1) if len(seeds) >= OWN_SPREAD_FROM and sd is not None else None
    mean = float(values.mean())
    return Summary(seeds, mean, sd, _interval(mean, alone, noise.within, noise.prior, 1 / len(seeds), images))


def compare(
    arm: Mapping[int, float], baseline: Mapping[int, float], noise: Noise, images: ImageNoise | None = None
) -> Difference:
    """`arm` minus `baseline`, with interval, p-values, and the decision as if it were the table's only row.

    Paired over the seeds that both have; where none is shared, or the one that is says nothing because no arm of
    the study has two, the means of all runs are compared with the spread within arms. The decision is `too few
    seeds` where a side has fewer runs than `noise.fewest_seeds`, where no spread is known, or where nothing was
    found with fewer than `SETTLED_FROM` degrees of freedom.
    """
    if not arm or not baseline:
        return Difference((), True, 0, None)
    shared = tuple(sorted(set(arm) & set(baseline)))
    paired = len(shared) > 1 or (bool(shared) and noise.pairs.df > 0)
    differences = np.array([arm[seed] - baseline[seed] for seed in shared], dtype=float)
    if paired:
        mean, fewest, share = float(differences.mean()), len(shared), 2 / len(shared)
        pooled = noise.pairs
    else:
        mean = float(np.mean(list(arm.values())) - np.mean(list(baseline.values())))
        fewest, share = min(len(arm), len(baseline)), 1 / len(arm) + 1 / len(baseline)
        pooled = noise.within
    alone = None
    if paired and fewest >= OWN_SPREAD_FROM:
        alone = Spread(float(differences.std(ddof=1)) / sqrt(2), fewest - 1)
    interval = _interval(mean, alone, pooled, noise.prior, share, images)
    if interval is None:
        return Difference(shared, paired, fewest, mean)
    if interval.standard_error > 0:
        p = two_sided_p(mean / interval.standard_error, interval.df)
    else:
        p = 1.0 if mean == 0 else 0.0
    return Difference(
        seeds=shared,
        paired=paired,
        fewest_seeds=fewest,
        mean=mean,
        interval=interval,
        p=p,
        p_holm=p,
        p_welch=welch(list(arm.values()), list(baseline.values())),
        permutation=sign_flips(differences.tolist()) if paired else None,
        decision=_decide(mean, p, interval.df, fewest, noise),
    )


def decide(differences: Mapping[str, Difference], noise: Noise) -> dict[str, Difference]:
    """The rows of one metric's table, decided together: with 5 % chance that any arm without effect is called
    better or worse (Holm's correction over the rows that have a p-value)."""
    tested = [name for name, found in differences.items() if found.p is not None]
    adjusted = holm([p for found in differences.values() if (p := found.p) is not None])
    decided = dict(differences)
    for name, p in zip(tested, adjusted, strict=True):
        found = differences[name]
        if found.mean is not None and found.interval is not None:
            word = _decide(found.mean, p, found.interval.df, found.fewest_seeds, noise)
            decided[name] = replace(found, p_holm=p, decision=word)
    return decided


def _interval(
    mean: float,
    alone: Spread | None,
    pooled: Spread,
    prior: Spread | None,
    share: float,
    images: ImageNoise | None,
) -> Interval | None:
    """mean -+ t standard errors; `share` times the seeds' variance is the variance of the mean.

    `alone` is the spread of a row with enough seeds of its own; without it, `pooled` and the prior.
    """
    spread = alone or moderated(pooled, prior)
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
        pooled=alone is None and pooled.df > 0,
        prior=alone is None and spread != pooled,
        image_sd=sqrt(from_images) if images else None,
    )


def _decide(mean: float, p: float, df: int, fewest_seeds: int, noise: Noise) -> str:
    """One run on a side is decided only where degrees of freedom from elsewhere settle what the noise is."""
    if fewest_seeds < noise.fewest_seeds or (fewest_seeds < 2 and df < SETTLED_FROM):
        return TOO_FEW
    if p <= LEVEL and mean != 0:
        return BETTER if mean > 0 else WORSE
    return NOISE if df >= SETTLED_FROM else TOO_FEW
