"""Seeds that a row still needs, against power worked out by other means."""

from math import sqrt

import numpy as np
import pytest

from mrbench.errors import UserError
from mrbench.report.planning import MOST, Aim, more_seeds
from mrbench.report.statistics import Difference, ImageNoise, Noise, Spread, compare


def row(sd: float, df: int, seeds: int = 3, images: float = 0.0) -> Difference:
    """A row without any difference, of `seeds` pairs, whose noise has standard deviation `sd`."""
    scores = dict.fromkeys(range(seeds), 10.0)
    noise = ImageNoise(images, 100) if images else None
    return compare(scores, scores, Noise(Spread(sd, df), Spread(sd, df)), noise)


def test_the_number_of_pairs_is_cohens() -> None:
    """R's power.t.test(delta = 1, sd = 1, power = 0.9, type = "paired") gives n = 12.59: 13 pairs.

    A pair's difference has standard deviation sqrt(2) times that of a run.
    """
    need = more_seeds(row(1 / sqrt(2), 20), Aim(1.0, 0.9), rows=1)
    assert need is not None
    assert need.seeds == 13 - 3


def test_a_simulated_study_of_that_many_seeds_finds_the_difference() -> None:
    need = more_seeds(row(0.5, 20), Aim(0.4, 0.8), rows=1)
    assert need is not None
    assert need.seeds is not None
    n = need.seeds + 3
    generator = np.random.default_rng(3)
    d = generator.normal(0.4, 0.5 * sqrt(2), (4000, n))
    t = d.mean(1) / (d.std(1, ddof=1) / sqrt(n))
    from mrbench.evaluation.student import critical

    assert np.mean(np.abs(t) > critical(n - 1)) == pytest.approx(0.8, abs=0.03)


def test_more_rows_need_more_seeds_and_more_noise_too() -> None:
    def seeds(sd: float, rows: int) -> int:
        need = more_seeds(row(sd, 20), Aim(), rows)
        assert need is not None
        assert need.seeds is not None
        return need.seeds

    assert seeds(0.5, 1) < seeds(0.5, 10)
    assert seeds(0.3, 1) < seeds(0.5, 1) < seeds(1.0, 1)


def test_a_row_that_would_have_shown_it_needs_none() -> None:
    need = more_seeds(row(0.1, 30), Aim(), rows=1)
    assert need is not None
    assert need.seeds == 0


@pytest.mark.parametrize(("df", "seeds", "needs"), [(1, 2, 2), (2, 3, 1), (1, 3, 2)])
def test_a_row_with_too_few_seeds_takes_as_many_as_make_three_degrees_of_freedom(
    df: int, seeds: int, needs: int
) -> None:
    """Two arms of two seeds share (2 - 1) x (2 - 1) = 1 degree; 0.001 AP of noise would show 0.4 even so."""
    found = row(0.001, df, seeds)
    assert found.decision == "too few seeds"
    need = more_seeds(found, Aim(), rows=1)
    assert need is not None
    assert need.seeds == needs


def test_single_runs_that_may_not_be_decided_take_another_seed() -> None:
    scores = {0: 10.0}
    noise = Noise(Spread(0.001, 30), Spread(0.001, 30), fewest_seeds=2)
    need = more_seeds(compare(scores, scores, noise), Aim(), rows=1)
    assert need is not None
    assert need.seeds == 1


def test_what_seeds_cannot_settle_is_said() -> None:
    """Images alone: a standard error of 0.2 leaves a difference of 0.4 a chance of 52 %, however many seeds."""
    need = more_seeds(row(0.1, 30, images=0.04), Aim(), rows=1)
    assert need is not None
    assert need.images_forbid
    many = more_seeds(row(30.0, 30), Aim(), rows=1)
    assert many is not None
    assert many.seeds is None
    assert not many.images_forbid
    assert MOST == 1000


def test_decided_and_unknown_rows_have_no_plan() -> None:
    scores = {0: 1.0, 1: 1.1, 2: 1.2, 3: 1.0}
    better = compare({s: x + 5 for s, x in scores.items()}, scores, Noise(Spread(0.1, 9), Spread(0.1, 9)))
    assert better.decision == "better"
    assert more_seeds(better, Aim(), rows=1) is None
    nothing = compare({0: 1.0}, {0: 2.0}, Noise(Spread(float("nan"), 0), Spread(float("nan"), 0)))
    assert more_seeds(nothing, Aim(), rows=1) is None


@pytest.mark.parametrize(("difference", "power"), [(0.0, 0.8), (-1.0, 0.8), (0.4, 1.0), (0.4, 0.01)])
def test_what_cannot_be_planned_for_is_one_message(difference: float, power: float) -> None:
    with pytest.raises(UserError):
        Aim(difference, power)
