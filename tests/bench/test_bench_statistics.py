"""Summaries and ratios against hand-worked values and formulas."""

import math

import numpy as np
import pytest

from mrbench.bench.statistics import (
    Summary,
    latency,
    paired_ratio,
    percentile,
    ratio,
    signed_rank,
    summarise,
    trend_probability,
)


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


def test_two_values_are_too_few_for_an_interval() -> None:
    assert summarise([3.0, 5.0]).interval is None
    assert summarise([3.0, 5.0]).std == pytest.approx(math.sqrt(2))


def test_an_interval_of_what_cannot_be_negative_begins_at_zero() -> None:
    # mean 4, s 5.196; t with 2 degrees of freedom 4.303: 4 +- 12.9
    interval = summarise([1.0, 1.0, 10.0]).interval
    assert interval == pytest.approx([0.0, 4 + 4.3027 * math.sqrt(27) / math.sqrt(3)], rel=1e-4)


def test_percentiles_are_numpy_s_and_are_left_out_where_no_value_lies_above() -> None:
    values = np.random.default_rng(0).lognormal(size=250)
    found = latency(values.tolist())
    assert (found.p50, found.p90, found.p99) == pytest.approx(tuple(np.percentile(values, [50, 90, 99])))
    assert percentile(values[:99].tolist(), 99) is None
    assert percentile(values[:100].tolist(), 99) is not None
    few = latency([1.0, 2.0])
    assert (few.p50, few.p90, few.p99) == (1.5, None, None)


def test_the_trend_test_is_mann_and_kendall_s() -> None:
    # Kendall's exact tau test of 1..10 has p 5.5e-7; the normal approximation (S 45, variance 125) 8.3e-5.
    assert trend_probability(list(range(10)), 1) == pytest.approx(8.303e-5, rel=1e-3)
    # With a tie of two and of three: S = 8; variance (5 * 4 * 15 - 2 * 1 * 9 - 3 * 2 * 11) / 18 = 12: z = 5 / sqrt(12)
    assert trend_probability([1, 1, 2, 2, 2], 1) == pytest.approx(math.erfc(5 / math.sqrt(24)), rel=1e-9)
    assert trend_probability([2.0] * 9, 3) == 1.0


def test_the_trend_test_compares_like_with_like() -> None:
    # Two seasons, each 1, 2, 3 on its own level: S 3 + 3, variance 2 * 66 / 18
    assert trend_probability([1, 101, 2, 102, 3, 103], 2) == pytest.approx(math.erfc(5 / math.sqrt(2 * 132 / 18)))
    assert trend_probability([1, 101, 1, 101, 1, 101], 2) == 1.0


def test_the_trend_test_rejects_noise_as_often_as_it_says() -> None:
    random = np.random.default_rng(1)
    rejected = [trend_probability(random.normal(size=12).tolist(), 4) <= 0.2 for _ in range(2000)]
    assert 0.1 <= np.mean(rejected) <= 0.22  # discrete, so at most as often


def test_a_straggler_is_an_outlier_and_even_values_are_not() -> None:
    assert summarise([1.0, 1.01, 0.99, 1.02, 5.0, 0.98]).outliers == [4]
    assert summarise([1.0] * 6).outliers == []
    assert summarise([1.0, 1.001, 1.5, 1.0005]).outliers == []  # four are too few to tell


def of(mean: float, std: float | None) -> Summary:
    return Summary(5, mean, std, mean, mean, mean, None, [])


def test_relative_errors_of_a_ratio_add_in_squares() -> None:
    # 120 +- 6 (5 %) over 100 +- 12 (12 %): 1.2 with 13 % of error
    result = ratio(of(120, 6), of(100, 12))
    assert result.value == pytest.approx(1.2)
    assert result.error == pytest.approx(1.2 * 0.13)


def test_the_ratio_of_single_values_has_no_error() -> None:
    assert ratio(of(2, None), of(1, 0.1)).error is None


def test_rounds_of_turns_are_worked_by_hand() -> None:
    # (4 + 6) / (2 + 3) = 2; (9 + 9) / (3 + 3) = 3; (1 + 1) / (1 + 1) = 1. Geometric means of pairs: 1, 2 ** 0.5,
    # 3 ** 0.5, 2, 6 ** 0.5, 3; half way between the middle two: (2 * 3 ** 0.5) ** 0.5
    found = paired_ratio([2.0, 3, 3, 3, 1, 1], [4.0, 6, 9, 9, 1, 1])
    assert (found.rounds, found.interval) == ([2.0, 3.0, 1.0], None)
    assert found.value == pytest.approx((2 * 3**0.5) ** 0.5)
    with pytest.raises(ValueError, match="two blocks of each"):
        paired_ratio([1.0], [1.0])


@pytest.mark.parametrize(
    "count, critical", [(5, -1), (6, 0), (7, 2), (8, 3), (10, 8), (12, 13), (15, 25), (20, 52), (25, 89), (30, 137)]
)
def test_the_signed_rank_is_that_of_the_printed_tables(count: int, critical: int) -> None:
    """Wilcoxon & Wilcox 1964, two-sided 5 %, as statistics books reprint it."""
    assert signed_rank(count) == critical


def test_the_interval_has_the_tabled_ranks_among_all_pairs() -> None:
    rounds = [math.exp(k / 100) for k in (3, 1, 4, 1, 5, 9, 2, 6, 5, 3)]
    found = paired_ratio([1.0] * 20, [r for r in rounds for _ in range(2)])
    means = sorted((a + b) / 2 for i, a in enumerate(rounds) for b in rounds[i:])
    # ten rounds: 8 is critical, so the 9th of 55 from either end; the logarithms' means are close to the means'
    assert found.interval == pytest.approx([means[8], means[-9]], rel=1e-3)


def test_a_disturbed_round_hardly_moves_the_ratio() -> None:
    quiet = paired_ratio([1.0] * 40, [2.0] * 40).value
    disturbed = paired_ratio([1.0] * 38 + [20.0] * 2, [2.0] * 40).value
    assert (quiet, disturbed) == (pytest.approx(2), pytest.approx(2))
