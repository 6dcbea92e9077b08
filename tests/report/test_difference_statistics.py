"""Means, differences and decisions against cases worked by hand, and their error rate on fixed draws."""

from math import sqrt

import numpy as np
import pytest

from mrbench.report.statistics import (
    BETTER,
    NOISE,
    TOO_FEW,
    WORSE,
    Difference,
    ImageNoise,
    Noise,
    Spread,
    compare,
    decide,
    noise_of,
    of_pairs,
    summarise,
    within_arms,
)

Scores = dict[str, dict[int, float]]


def against(scores: Scores, arm: str, baseline: str, images: ImageNoise | None = None) -> Difference:
    return compare(scores[arm], scores[baseline], noise_of(scores), images)


def test_two_arms_are_the_paired_t_test() -> None:
    """Student (1908), Biometrika 6: extra hours of sleep of ten patients under two drugs.

    Mean difference 1.58, standard deviation 1.23, t = 4.06 with 9 degrees of freedom, p = 0.0028.
    """
    first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    scores = {"first": dict(enumerate(first)), "second": dict(enumerate(second))}
    found = against(scores, "second", "first")
    assert found.mean == pytest.approx(1.58)
    assert found.interval is not None
    assert found.mean / found.interval.standard_error == pytest.approx(4.0621, abs=1e-4)
    assert found.interval.df == 9
    assert found.p == pytest.approx(0.002833, abs=1e-6)
    assert (found.interval.low, found.interval.high) == pytest.approx((0.7001142, 2.4598858), abs=1e-6)
    assert found.decision == BETTER
    pooled = of_pairs(scores)  # the same number by the two-way layout
    assert pooled.df == 9
    assert pooled.sd * sqrt(2) == pytest.approx(1.2299955, abs=1e-6)


def test_three_arms_two_seeds_by_hand() -> None:
    """Arms (1, 2), (3, 6), (5, 7): residuals -+0.25 +-... sum of squares by hand.

    Arm means 1.5, 4.5, 6; seed means 3, 5; mean 4. Residuals: 0.5, -0.5 | -0.5, 0.5 | 0, 0. Sum of squares 1,
    (3-1)(2-1) = 2 degrees of freedom, so sd = sqrt(0.5); a difference of means of 2 seeds has variance 2 * 0.5 / 2.
    """
    scores = {"a": {0: 1.0, 1: 2.0}, "b": {0: 3.0, 1: 6.0}, "c": {0: 5.0, 1: 7.0}}
    pooled = of_pairs(scores)
    assert pooled.df == 2
    assert pooled.sd == pytest.approx(sqrt(0.5))
    found = against(scores, "b", "a")
    assert found.interval is not None
    assert found.interval.standard_error == pytest.approx(sqrt(0.5))
    assert found.interval.high - 3.0 == pytest.approx(4.302653 * sqrt(0.5), abs=1e-5)
    assert found.interval.pooled


def test_within_arms_by_hand() -> None:
    """(1, 3) and (2, 4, 6): squares 2 and 8 over 1 + 2 degrees of freedom."""
    spread = within_arms({"a": {0: 1.0, 1: 3.0}, "b": {0: 2.0, 1: 4.0, 2: 6.0}, "c": {0: 9.0}, "d": {}})
    assert spread.df == 3
    assert spread.sd == pytest.approx(sqrt(10 / 3))


@pytest.mark.parametrize("arms, seeds, present", [(7, 3, 0.7), (2, 9, 0.6), (5, 5, 0.4), (4, 3, 1.0)])
def test_the_spread_of_pairs_is_that_of_least_squares_on_all_effects(arms: int, seeds: int, present: float) -> None:
    generator = np.random.default_rng(arms)
    cells = [(a, s) for a in range(arms) for s in range(seeds) if generator.random() < present]
    y = 40 + generator.normal(size=len(cells))
    design = np.zeros((len(cells), arms + seeds))
    for row, (a, s) in enumerate(cells):
        design[row, [a, arms + s]] = 1
    solution, _, rank, _ = np.linalg.lstsq(design, y, rcond=None)
    scores: Scores = {}
    for (a, s), value in zip(cells, y.tolist(), strict=True):
        scores.setdefault(f"arm {a}", {})[s] = value
    found = of_pairs(scores)
    assert found.df == len(cells) - rank
    assert found.sd == pytest.approx(np.sqrt(((y - design @ solution) ** 2).sum() / found.df))


def test_an_incomplete_layout_loses_the_degrees_of_freedom_of_what_is_missing() -> None:
    generator = np.random.default_rng(0)
    full = {arm: {seed: float(generator.normal()) for seed in range(4)} for arm in "abc"}
    assert of_pairs(full).df == 6
    del full["c"][3]
    assert of_pairs(full).df == 5
    del full["b"][3]  # seed 3 is left with one arm: it explains itself
    assert of_pairs(full).df == 4
    assert of_pairs({"a": {0: 1.0}, "b": {1: 2.0}}).df == 0
    assert of_pairs({}).df == 0


def test_seed_effects_shared_by_all_arms_do_not_widen_differences() -> None:
    scores = {
        "a": {0: 10.0, 1: 20.0, 2: 30.0, 3: 40.1},
        "b": {0: 11.0, 1: 21.1, 2: 31.0, 3: 41.0},
    }
    found = against(scores, "b", "a")
    assert found.decision == BETTER
    assert found.interval is not None
    assert found.interval.half_width < 0.2
    assert within_arms(scores).sd > 10


def test_an_arm_with_five_seeds_speaks_for_itself() -> None:
    own = dict(enumerate([1.0, 2.0, 3.0, 4.0, 5.0]))
    wide = Noise(Spread(100.0, 50), Spread(100.0, 50))
    found = summarise(own, wide)
    assert found.interval is not None
    assert not found.interval.pooled
    assert found.interval.high - 3.0 == pytest.approx(2.776445 * sqrt(2.5 / 5), abs=1e-5)
    few = summarise({0: 1.0, 1: 2.0}, wide)
    assert few.interval is not None
    assert few.interval.pooled
    assert few.sd == pytest.approx(sqrt(0.5))


def test_unshared_seeds_are_compared_unpaired() -> None:
    """Pooled two-sample t: means 1.5 and 6.5, pooled variance 0.5, standard error sqrt(0.5 * (1/2 + 1/2))."""
    found = against({"a": {0: 1.0, 1: 2.0}, "b": {2: 6.0, 3: 7.0}}, "b", "a")
    assert not found.paired
    assert found.mean == 5.0
    assert found.interval is not None
    assert found.interval.standard_error == pytest.approx(sqrt(0.5))
    assert found.interval.df == 2


def test_image_noise_is_added_as_variance_and_never_narrows_the_interval() -> None:
    """Seeds: 0.5 with 2 degrees of freedom; images: 0.3. Student's t with 2 degrees of freedom is 4.303."""
    scores = {"a": {0: 1.0, 1: 2.0}, "b": {0: 3.0, 1: 6.0}, "c": {0: 5.0, 1: 7.0}}
    found = against(scores, "b", "a", ImageNoise(0.3, 100)).interval
    seeds_alone = against(scores, "b", "a").interval
    assert found is not None
    assert seeds_alone is not None
    assert found.standard_error == pytest.approx(sqrt(0.8))
    assert found.half_width == pytest.approx(4.303 * sqrt(0.8), rel=1e-3)
    assert found.half_width > seeds_alone.half_width
    assert found.image_sd == pytest.approx(sqrt(0.3))


@pytest.mark.parametrize(
    ("arm", "decision"),
    [
        ([20.0, 20.1, 20.2], BETTER),
        ([1.0, 1.1, 1.2], WORSE),
        ([10.1, 10.0, 10.3], NOISE),
        ([20.0], TOO_FEW),
        ([], TOO_FEW),
    ],
)
def test_the_decision_is_a_word(arm: list[float], decision: str) -> None:
    scores = {"base": {0: 10.0, 1: 10.2, 2: 10.1}, "arm": dict(enumerate(arm)), "third": {0: 5.0, 1: 5.1, 2: 5.3}}
    assert against(scores, "arm", "base").decision == decision


def test_nothing_seen_with_one_degree_of_freedom_is_too_few_seeds_not_noise() -> None:
    scores = {"a": {0: 10.0, 1: 10.5}, "b": {0: 12.0, 1: 13.5}}
    assert against(scores, "b", "a").decision == TOO_FEW


def test_single_runs_have_no_interval() -> None:
    found = against({"a": {0: 10.0}, "b": {0: 30.0}}, "b", "a")
    assert found.mean == 20.0
    assert found.interval is None
    assert found.p is None
    assert found.decision == TOO_FEW


def test_equal_runs_are_no_difference() -> None:
    scores = {"a": {0: 1.0, 1: 1.0, 2: 1.0, 3: 1.0}, "b": {0: 1.0, 1: 1.0, 2: 1.0, 3: 1.0}}
    found = against(scores, "b", "a")
    assert found.p == 1.0
    assert found.decision == NOISE


@pytest.mark.parametrize("arms, seeds", [(2, 3), (2, 5), (4, 2), (5, 3)])
def test_arms_from_one_distribution_are_called_different_in_five_percent(arms: int, seeds: int) -> None:
    """2,000 fixed draws with seed effects: between 3 and 7 %, for two arms and for the first of several."""
    generator = np.random.default_rng(arms * 10 + seeds)
    draws = generator.normal(40, 0.5, (2000, arms, seeds)) + generator.normal(0, 1, (2000, 1, seeds))
    called = 0
    for draw in draws:
        scores = {str(arm): dict(enumerate(map(float, row))) for arm, row in enumerate(draw)}
        called += against(scores, "1", "0").decision in (BETTER, WORSE)
    assert 0.03 <= called / len(draws) <= 0.07


def test_intervals_with_missing_runs_cover_the_truth_in_ninety_five_percent() -> None:
    generator = np.random.default_rng(7)
    covered = 0
    for _ in range(2000):
        seed_effect = generator.normal(0, 1, 4)
        scores: Scores = {
            arm: {s: shift + float(seed_effect[s] + generator.normal(0, 0.5)) for s in range(4)}
            for arm, shift in (("a", 0.0), ("b", 1.0), ("c", 5.0))
        }
        del scores["a"][0], scores["b"][3], scores["c"][1]
        interval = against(scores, "b", "a").interval
        assert interval is not None
        covered += interval.low < 1.0 < interval.high
    assert 0.93 <= covered / 2000 <= 0.97


@pytest.mark.parametrize("seeds", [2, 3])
def test_a_table_of_arms_without_effect_names_one_in_five_percent(seeds: int) -> None:
    """1,000 fixed tables of five arms that are all the baseline: Holm's correction holds for the table as a whole."""
    generator = np.random.default_rng(seeds)
    mistaken = 0
    for draw in generator.normal(40, 0.5, (1000, 6, seeds)):
        scores = {str(arm): dict(enumerate(map(float, values))) for arm, values in enumerate(draw)}
        noise = noise_of(scores)
        found = decide({arm: compare(scores[arm], scores["0"], noise) for arm in list(scores)[1:]}, noise)
        mistaken += any(difference.decision in (BETTER, WORSE) for difference in found.values())
    assert 0.02 <= mistaken / 1000 <= 0.065
