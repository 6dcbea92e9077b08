"""Looks at a growing study: published boundaries, and mistakes over all looks together by simulation."""

from statistics import NormalDist

import numpy as np
import pytest

from mrbench.evaluation.student import critical
from mrbench.report.prior import Prior
from mrbench.report.sequential import SPENT, Design, decide, look_back
from mrbench.report.spending import levels, spent
from mrbench.report.statistics import NOISE, TOO_FEW, Scores, compare, noise_of


def scores(draw: np.ndarray) -> Scores:
    """float [arms, seeds] -> arm -> seed -> score; arm 0 is the baseline."""
    return {str(arm): dict(enumerate(map(float, values))) for arm, values in enumerate(draw)}


def test_boundaries_of_five_looks_are_the_published_ones() -> None:
    """Two-sided 5 %, spending like O'Brien and Fleming: 4.8769, 3.3569, 2.6803, 2.2898, 2.0310 (the example of the
    program of Reboussin, DeMets, Kim & Lan 2000, Computations for group sequential boundaries)."""
    found = [NormalDist().inv_cdf(1 - level / 2) for level in levels((0.2, 0.4, 0.6, 0.8, 1.0), 0.05)]
    assert found == pytest.approx([4.8769, 3.3569, 2.6803, 2.2898, 2.0310], abs=2e-4)


def test_one_look_spends_everything() -> None:
    assert levels((1.0,), 0.05)[0] == pytest.approx(0.05, abs=1e-6)
    assert spent(1.0, 0.03) == pytest.approx(0.03)
    with pytest.raises(ValueError):
        levels((0.5, 0.4), 0.05)


@pytest.mark.parametrize("first", [2, 3, 5])
@pytest.mark.parametrize("most", [6, 10, 20])
def test_paired_t_tests_at_every_look_are_mistaken_in_at_most_five_percent(first: int, most: int) -> None:
    """40,000 fixed studies without a difference, every look with the spread of its own pairs: the hardest case, since
    degrees of freedom are fewest. Standard error 0.11 points."""
    x = np.random.default_rng(most).normal(size=(40_000, most))
    n = np.arange(first, most + 1)
    sums, squares = x.cumsum(1)[:, first - 1 :], (x**2).cumsum(1)[:, first - 1 :]
    t = np.abs(sums) / np.sqrt(n * (squares - sums**2 / n) / (n - 1))
    bounds = [critical(int(k) - 1, max(1 - Design(first, most).level(int(k), 1), 0.5)) for k in n]
    rate = float((t > bounds).any(1).mean())
    assert 0.03 < rate <= 0.05 + 3 * 0.0011
    assert rate * 1.02 + 0.003 > SPENT


@pytest.mark.parametrize(
    ("arms", "first", "most", "public"), [(1, 3, 6, False), (3, 2, 5, False), (5, 3, 5, False), (1, 1, 5, True)]
)
def test_growing_studies_of_arms_without_effect_name_one_in_at_most_five_percent(
    arms: int, first: int, most: int, public: bool
) -> None:
    """The decisions of sweep and report on 600 fixed studies; the standard error of 5 % is 0.89 points."""
    prior = Prior("public").spread("box/AP") if public else None
    draws = np.random.default_rng(10 * arms + first).normal(38, 0.104, (600, arms + 1, most))
    mistaken = sum(bool(look_back(scores(d), "0", Design(first, most), prior, 1).decided) for d in draws)
    assert mistaken / 600 <= 0.05 + 2 * 0.0089


def test_a_large_effect_is_decided_early_and_stays_decided() -> None:
    draw = np.random.default_rng(0).normal(38, 0.1, (3, 8))
    draw[1] += 2
    early = look_back(scores(draw[:, :5]), "0", Design(3, 8))
    late = look_back(scores(draw), "0", Design(3, 8))
    assert early.decided["1"] == late.decided["1"]
    assert early.decided["1"][0] == "better"
    assert early.decided["1"][1] < 6
    assert "2" in early.open
    assert not early.final
    assert late.final


def test_an_arm_that_stopped_keeps_its_word_when_the_others_go_on() -> None:
    """The decided arm has no scores beyond its look; the looks that follow leave its decision alone."""
    draw = np.random.default_rng(1).normal(38, 0.1, (3, 8))
    draw[1] -= 2
    whole = scores(draw)
    taken = look_back(whole, "0", Design(3, 8)).decided["1"][1]
    stopped = {arm: {s: x for s, x in own.items() if arm != "1" or s < taken} for arm, own in whole.items()}
    assert look_back(stopped, "0", Design(3, 8)).decided["1"] == ("worse", taken)


def test_an_open_arm_is_noise_after_the_last_look_only() -> None:
    draw = np.random.default_rng(2).normal(38, 0.1, (2, 6))
    for seeds, word in ((4, TOO_FEW), (6, NOISE)):
        part = scores(draw[:, :seeds])
        noise = noise_of(part)
        found = decide({"1": compare(part["1"], part["0"], noise)}, look_back(part, "0", Design(3, 6)))
        assert found["1"].decision == word
        assert found["1"].p_holm is None


def test_levels_rise_from_look_to_look_and_fall_with_arms() -> None:
    design = Design(3, 8)
    found = [design.level(n, 1) for n in range(3, 9)]
    assert found == sorted(found)
    assert found[-1] < SPENT
    assert design.level(8, 4) < found[-1] / 3
