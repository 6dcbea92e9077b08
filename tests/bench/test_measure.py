"""Warm-up and blocks on a clock that the test moves."""

import random
from itertools import chain, repeat

import pytest

from mrbench.bench.measure import Limits, Stopwatch, measure, one_by_one, settled, warm_up


class Machine:
    """Steps that take the times given; queued work is only paid for at the next synchronisation."""

    def __init__(self, times: object) -> None:
        self.times = iter(times)  # type: ignore[call-overload]
        self.now, self.queued, self.steps = 0.0, 0.0, 0

    def step(self) -> None:
        self.queued += next(self.times)
        self.steps += 1

    def synchronise(self) -> None:
        self.now += self.queued
        self.queued = 0.0

    def watch(self) -> Stopwatch:
        return Stopwatch(self.synchronise, lambda: self.now)


def test_blocks_hold_exactly_their_steps_and_their_time() -> None:
    machine = Machine(repeat(0.25))
    timing = measure(machine.step, machine.watch(), 2, Limits(repeats=3, block_seconds=1.2))
    # three windows of 4 steps to be stable; 1.2 s need 2.4 cycles of 0.5 s, so 3 cycles: 6 steps
    assert (timing.warmup.steps, timing.warmup.stable) == (12, True)
    assert timing.steps_per_block == 6
    assert timing.block_seconds == [1.5, 1.5, 1.5]
    assert timing.step_seconds.mean == 0.25
    assert timing.rates(8) == [32.0, 32.0, 32.0]
    assert machine.steps == 12 + 3 * 6


def test_warm_up_goes_on_while_steps_get_faster() -> None:
    machine = Machine(chain((1.0 * 0.9**i + 0.1 for i in range(60)), repeat(0.1)))
    warmup = warm_up(machine.step, machine.watch(), 1, Limits())
    assert warmup.stable
    assert 1.0 * 0.9**warmup.steps < 0.01  # what is left of the drift
    assert warmup.step_seconds == pytest.approx(0.1, rel=0.15)


def test_noise_alone_does_not_keep_the_warm_up_going() -> None:
    steps = []
    for seed in range(20):
        noise = random.Random(seed)
        machine = Machine(iter(lambda noise=noise: 0.1 * noise.gauss(1, 0.1), None))
        steps.append(warm_up(machine.step, machine.watch(), 1, Limits()).steps)
    assert sorted(steps)[10] <= 16
    assert max(steps) < 100


def test_inputs_of_different_cost_are_stable_when_windows_hold_whole_cycles() -> None:
    machine = Machine(t for _ in repeat(None) for t in (0.1, 0.2, 0.3, 0.4))
    assert warm_up(machine.step, machine.watch(), 4, Limits()).steps == 12


def test_a_warm_up_that_never_settles_is_given_up_and_said_so() -> None:
    machine = Machine(1.1**i for i in range(1000))
    warmup = warm_up(machine.step, machine.watch(), 1, Limits(warmup_steps=40, warmup_seconds=1e9))
    assert (warmup.steps, warmup.stable) == (40, False)
    machine = Machine(repeat(50.0))
    warmup = warm_up(machine.step, machine.watch(), 1, Limits(warmup_seconds=60))
    assert (warmup.steps, warmup.stable) == (2, False)
    machine = Machine(repeat(50.0))
    assert warm_up(machine.step, machine.watch(), 4, Limits(warmup_seconds=60)).steps == 4  # each input as often


def test_a_first_step_that_compiles_for_minutes_does_not_use_the_warm_up_up() -> None:
    machine = Machine(chain([200.0, 5.0], repeat(0.2)))
    warmup = warm_up(machine.step, machine.watch(), 4, Limits(warmup_seconds=60))
    assert warmup.stable
    assert warmup.steps in (12, 16)
    assert warmup.step_seconds == pytest.approx(0.2)
    assert warmup.seconds == pytest.approx(205 + 0.2 * (warmup.steps - 2))  # which it did last


def test_one_drifting_window_is_not_settled() -> None:
    assert settled([1.0] * 12, 4)
    assert not settled([1.0] * 11, 4)
    assert not settled([1.5] * 4 + [1.0] * 8, 4)
    assert not settled([1.0] * 8 + [0.9] * 4, 4)
    assert settled([1.0] * 8 + [0.995] * 4, 4)  # a trend beyond doubt, of half a percent


def test_counters_are_reset_after_the_warm_up() -> None:
    machine = Machine(repeat(0.5))
    seen = []
    limits = Limits(repeats=2, block_seconds=0.1)
    measure(machine.step, machine.watch(), 1, limits, lambda: seen.append(machine.steps))
    assert seen == [12]


def test_a_block_is_looked_at_while_its_work_is_still_queued() -> None:
    machine = Machine(repeat(0.5))
    queued = []
    limits = Limits(repeats=2, block_seconds=1.0)
    measure(machine.step, machine.watch(), 1, limits, look=lambda: queued.append(machine.queued))
    assert queued == [1.0, 1.0]


def test_processes_stop_warming_up_after_the_same_step() -> None:
    # The other one, whose values count, has settled after 20 steps.
    machine, asked = Machine(1.1**i for i in range(1000)), []

    def agree(value: float) -> float:
        asked.append(value)
        return float(len(asked) >= 20)

    assert warm_up(machine.step, machine.watch(), 1, Limits(), agree).steps == 20


def test_steps_are_timed_one_by_one_without_what_comes_before() -> None:
    machine = Machine(t for _ in repeat(None) for t in (0.1, 0.3))
    machine.queued = 5.0
    seconds = one_by_one(machine.step, machine.watch(), 2, Limits(latency_seconds=1.0), 0.2)
    assert seconds == pytest.approx([0.1, 0.3] * 3)
    assert len(one_by_one(machine.step, machine.watch(), 2, Limits(latency_steps=7), 1e-6)) == 6
