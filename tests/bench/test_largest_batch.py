"""The search for the largest batch, against machines whose limit is known."""

import math

import pytest

from mrbench.bench.largest_batch import MOST, Search, Try, find_largest, next_batch
from mrbench.bench.matrix import Case

CASE = Case("train", "small", "fp32", 0, [64, 64])


class Machine:
    """Fits `limit` images; counts what it was asked."""

    def __init__(self, limit: int, ended: str = "memory") -> None:
        self.limit, self.ended, self.asked = limit, ended, list[int]()

    def attempt(self, batch: int) -> Try:
        self.asked.append(batch)
        return Try(batch, "fits" if batch <= self.limit else self.ended)


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 7, 8, 9, 37, 100, 1023, 1024, 5000])
def test_the_answer_is_exact_and_takes_few_tries(limit: int) -> None:
    machine = Machine(limit)
    search = find_largest(Search(CASE), machine.attempt, lambda: None)
    assert (search.largest, search.bound) == (limit, "memory")
    assert len(machine.asked) <= 2 * math.log2(max(limit, 1)) + 2
    assert len(set(machine.asked)) == len(machine.asked)


@pytest.mark.parametrize("after", range(10))
def test_a_killed_search_goes_on_from_what_it_remembers(after: int) -> None:
    whole = Machine(37)
    find_largest(Search(CASE), whole.attempt, lambda: None)
    search = Search(CASE)
    first = Machine(37)

    def interrupted(batch: int) -> Try:
        if len(first.asked) == after:
            raise KeyboardInterrupt
        return first.attempt(batch)

    with pytest.raises(KeyboardInterrupt):
        find_largest(search, interrupted, lambda: None)
    assert search.largest is None
    second = Machine(37)
    assert find_largest(search, second.attempt, lambda: None).largest == 37
    assert first.asked + second.asked == whole.asked


def test_every_try_is_remembered_before_the_next() -> None:
    seen: list[int] = []
    search = Search(CASE)
    find_largest(search, Machine(5).attempt, lambda: seen.append(len(search.tries)))
    # 1, 2, 4, 8, 6, 5; and once more with the answer
    assert seen == [1, 2, 3, 4, 5, 6, 6]


def test_a_search_without_a_wall_ends_at_the_most() -> None:
    search = find_largest(Search(CASE), Machine(10**9).attempt, lambda: None, most=100)
    assert (search.largest, search.bound, [t.batch for t in search.tries]) == (
        100,
        "most",
        [1, 2, 4, 8, 16, 32, 64, 100],
    )
    assert MOST >= 4096


def test_what_is_too_slow_bounds_the_answer_and_says_so() -> None:
    search = find_largest(Search(CASE), Machine(6, "time").attempt, lambda: None)
    assert (search.largest, search.bound) == (6, "time")


def test_a_contradiction_is_settled_on_the_safe_side() -> None:
    tries = [Try(1, "fits"), Try(2, "fits"), Try(4, "memory"), Try(8, "fits"), Try(3, "memory")]
    assert next_batch(tries) is None
    assert find_largest(Search(CASE, tries), Machine(0).attempt, lambda: None).largest == 2
