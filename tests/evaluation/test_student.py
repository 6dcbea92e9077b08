"""Student's t, its power and F against the tables of any textbook, and against closed forms."""

from math import atan, erfc, pi, sqrt

import pytest

from mrbench.evaluation.student import critical, f_tail, power, two_sided_p

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


@pytest.mark.parametrize(
    ("above", "below", "upper"),
    [(1, 20, 4.351), (2, 12, 3.885), (4, 30, 2.690), (10, 10, 2.978), (1, 1, 161.448), (5, 2, 19.296)],
)
def test_the_upper_five_percent_of_f_are_those_of_the_printed_table(above: int, below: int, upper: float) -> None:
    """NIST/SEMATECH e-Handbook 1.3.6.7.3."""
    assert f_tail(upper, above, below) == pytest.approx(0.05, abs=1e-4)
    assert f_tail(critical(below) ** 2, 1, below) == pytest.approx(0.05, abs=1e-9)  # F(1, df) is t squared


@pytest.mark.parametrize(
    ("per_group", "effect", "expected"),
    [
        (20, 1.0, 0.868953),  # R's power.t.test(n = 20, delta = 1, strict = TRUE), of its help page
        (64, 0.5, 0.801460),  # the 64 a group of Cohen 1988, table 2.4.1, for d = 0.5 and power 0.80
        (26, 0.8, 0.807),  # as above, d = 0.8
    ],
)
def test_power_of_two_groups_is_the_published_one(per_group: int, effect: float, expected: float) -> None:
    digits = 2e-6 if len(str(expected)) > 6 else 6e-4
    assert power(effect * sqrt(per_group / 2), 2 * per_group - 2) == pytest.approx(expected, abs=digits)


@pytest.mark.parametrize("alpha", [0.05, 0.05 / 7])
@pytest.mark.parametrize("df", [1, 2, 3, 10, 34, 1000])
def test_power_without_an_effect_is_the_level(df: int, alpha: float) -> None:
    assert power(0.0, df, alpha) == pytest.approx(alpha, rel=1e-6)


def test_power_with_many_degrees_of_freedom_is_the_normal_distributions() -> None:
    expected = 0.5 * erfc((1.959964 - 2.8) / sqrt(2)) + 0.5 * erfc((1.959964 + 2.8) / sqrt(2))
    assert power(2.8, 10**6) == pytest.approx(expected, abs=1e-5)
