"""Student's t against the tables of any textbook, and against closed forms for 1 and 2 degrees of freedom."""

from math import atan, pi, sqrt

import pytest

from mrbench.evaluation.student import critical, two_sided_p

# Two-sided 5 % and 1 % points, as printed (Fisher & Yates, table III; NIST/SEMATECH e-Handbook 1.3.6.7.2).
TABLE = {
    1: (12.706, 63.657),
    2: (4.303, 9.925),
    3: (3.182, 5.841),
    4: (2.776, 4.604),
    5: (2.571, 4.032),
    8: (2.306, 3.355),
    10: (2.228, 3.169),
    20: (2.086, 2.845),
    30: (2.042, 2.750),
    60: (2.000, 2.660),
    120: (1.980, 2.617),
    10**7: (1.960, 2.576),
}


@pytest.mark.parametrize("df", TABLE)
def test_quantiles_are_those_of_the_printed_table(df: int) -> None:
    assert critical(df, 0.95) == pytest.approx(TABLE[df][0], abs=6e-4)
    assert critical(df, 0.99) == pytest.approx(TABLE[df][1], abs=6e-4)


@pytest.mark.parametrize("t", [0.0, 0.1, 1.0, 2.5, -3.0, 40.0, 1e6])
def test_tails_equal_the_closed_forms(t: float) -> None:
    assert two_sided_p(t, 1) == pytest.approx(1 - 2 * atan(abs(t)) / pi, rel=1e-6, abs=1e-12)
    assert two_sided_p(t, 2) == pytest.approx(1 - abs(t) / sqrt(2 + t * t), rel=1e-3, abs=1e-12)


def test_fractional_degrees_lie_between_their_neighbours() -> None:
    assert critical(4) < critical(3.5) < critical(3)
    assert two_sided_p(critical(3.5), 3.5) == pytest.approx(0.05, abs=1e-9)


def test_no_degrees_of_freedom_is_an_error_of_the_caller() -> None:
    with pytest.raises(ValueError):
        two_sided_p(1.0, 0)
