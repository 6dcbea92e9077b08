"""p-values that need no model, and their correction, against worked examples and enumeration by hand."""

import numpy as np
import pytest

from mrbench.report.significance import holm, sign_flips, welch


def test_welch_is_that_of_the_sleep_data() -> None:
    """Student's sleep data unpaired: R's t.test(extra ~ group) prints t = -1.8608, df = 17.776, p-value = 0.07939."""
    first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    assert welch(first, second) == pytest.approx(0.07939, abs=1e-5)


def test_welch_needs_two_runs_a_side_that_vary() -> None:
    assert welch([1.0], [1.0, 2.0]) is None
    assert welch([1.0, 1.0], [2.0, 2.0]) is None


def test_sign_flips_are_enumerated() -> None:
    """(3, 1, 2) sums to 6 or -6 in two of eight patterns; (3, 1, -2): at least 2 away from 0 in six of eight."""
    found = sign_flips([3.0, 1.0, 2.0])
    assert found is not None
    assert (found.p, found.least) == (0.25, 0.25)
    mixed = sign_flips([3.0, 1.0, -2.0])
    assert mixed is not None
    assert mixed.p == 6 / 8
    assert sign_flips([1.0]) is None


def test_fishers_plants_have_his_p() -> None:
    """Fisher (1935), The Design of Experiments, section 21: Darwin's 15 pairs of maize; 1,726 of 32,768 patterns.

    Fifteen pairs are drawn, not enumerated, here: 0.0527 within four standard errors of 16,384 draws.
    """
    differences = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
    found = sign_flips([float(d) for d in differences])
    assert found is not None
    assert found.p == pytest.approx(1726 / 32768, abs=0.007)
    fewer = sign_flips([float(d) for d in differences[:14]])
    assert fewer is not None
    assert fewer.least == 2.0**-13


def test_holm_is_the_worked_example() -> None:
    """0.01, 0.04, 0.03, 0.005 times 3, 1, 2, 4 in order of size, never falling: as R's p.adjust(method="holm")."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_keeps_the_chance_of_any_mistake() -> None:
    p = np.random.default_rng(0).uniform(size=(4000, 6))
    assert np.mean([min(holm(list(row))) <= 0.05 for row in p]) == pytest.approx(0.05, abs=0.011)
