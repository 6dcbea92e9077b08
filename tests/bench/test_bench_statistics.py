"""Summaries and ratios against hand-worked values and formulas."""

import math

import pytest

from mrbench.bench.statistics import Summary, ratio, summarise


def test_summary_of_five_values_worked_by_hand() -> None:
    # mean 12; squared deviations 4 + 1 + 0 + 1 + 4 = 10; variance 10 / 4; t with 4 degrees of freedom 2.776
    summary = summarise([10.0, 11.0, 12.0, 13.0, 14.0])
    half = 2.776 * math.sqrt(2.5) / math.sqrt(5)
    assert (summary.count, summary.mean, summary.median, summary.low, summary.high) == (5, 12, 12, 10, 14)
    assert summary.std == pytest.approx(math.sqrt(2.5))
    assert summary.interval == pytest.approx([12 - half, 12 + half], rel=1e-4)
    assert summary.outliers == []
    assert summary.spread == pytest.approx(math.sqrt(2.5) / 12)


def test_one_value_has_no_spread() -> None:
    summary = summarise([3.0])
    assert (summary.mean, summary.std, summary.interval, summary.spread) == (3.0, None, None, None)


def test_a_straggler_is_an_outlier_and_even_values_are_not() -> None:
    assert summarise([1.0, 1.01, 0.99, 1.02, 5.0, 0.98]).outliers == [4]
    assert summarise([1.0] * 6).outliers == []


def of(mean: float, std: float | None) -> Summary:
    return Summary(5, mean, std, mean, mean, mean, None, [])


def test_relative_errors_of_a_ratio_add_in_squares() -> None:
    # 120 +- 6 (5 %) over 100 +- 12 (12 %): 1.2 with 13 % of error
    result = ratio(of(120, 6), of(100, 12))
    assert result.value == pytest.approx(1.2)
    assert result.error == pytest.approx(1.2 * 0.13)


def test_the_ratio_of_single_values_has_no_error() -> None:
    assert ratio(of(2, None), of(1, 0.1)).error is None
