"""Decisions on groups of public runs of one recipe: as often wrong as promised, as often right as theory says."""

import numpy as np
import pytest

from mrbench.report.calibration import SEEDS, drawn, rates, recipe_scores
from mrbench.report.prior import Prior


@pytest.mark.parametrize("metric", ["box/AP", "mask/AP"])
@pytest.mark.parametrize("seeds", SEEDS)
def test_groups_of_one_recipe_are_called_different_in_five_percent_and_shifts_are_found(
    metric: str, seeds: int
) -> None:
    """4,000 fixed draws. The standard error of 5 % is 0.34 points."""
    none, small, large = rates(metric, seeds, Prior("public", 5000))
    assert 0.03 <= none.measured <= 0.06
    assert small.measured == pytest.approx(small.theory, abs=0.05)
    assert large.measured == pytest.approx(large.theory, abs=0.05)
    assert large.measured > 0.7


@pytest.mark.parametrize("seeds", [2, 3])
def test_own_seeds_alone_are_as_honest_and_see_less(seeds: int) -> None:
    none, small, large = rates("box/AP", seeds, Prior("own"), draws=2500)
    assert 0.035 <= none.measured <= 0.065
    assert small.measured == pytest.approx(small.theory, abs=0.05)
    assert large.measured == pytest.approx(large.theory, abs=0.05)
    assert large.theory < rates("box/AP", seeds, Prior("public"), draws=10)[2].theory


def test_draws_are_of_distinct_runs() -> None:
    scores = recipe_scores("box/AP")
    assert len(scores) == 207
    found = drawn(np.arange(207.0), 5, 300)
    assert found.shape == (300, 2, 5)
    assert all(len(set(row.ravel())) == 10 for row in found)
    assert abs(found.mean() - 103) < 4
