"""A time budget: what it is read as, what a row is expected to take, and which rows are kept."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mrbench.bench import fitting
from mrbench.bench import plan as plans
from mrbench.bench import record as records
from mrbench.bench.budget import Probe, choose, duration, expected, kinds, probed, time_text
from mrbench.bench.matrix import Case
from mrbench.bench.measure import Limits
from mrbench.bench.plan import default_path, make_plan
from mrbench.bench.process import Ending
from mrbench.bench.telling import left_out_lines, remaining_text
from mrbench.errors import UserError

FIRST = Case("train", "small", "fp32", 2, [100, 100])
PROVENANCE = {"hardware": {"cpu": "A processor"}, "packages": {"torch": "2.15.0"}, "code": {}}
DEVICE = {"type": "cpu", "threads": 1, "refusals": dict.fromkeys(("fp32", "bf16"))}


@pytest.mark.parametrize("text, seconds", [("90s", 90), ("5m", 300), ("1.5h", 5400), ("2 M", 120)])
def test_times_have_units(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["5", "m", "0s", "5 days", "-1m"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--budget"):
        duration(text)


def test_times_are_told_as_one_says_them() -> None:
    assert [time_text(s) for s in (0.2, 45, 240, 4800, 7200)] == ["1 s", "45 s", "4 min", "80 min", "2 h"]
    assert remaining_text(2, 5, [10.0, 20.0]) == "2 of 5 rows, about 45 s left"
    assert remaining_text(5, 5, [10.0]) == ""


def test_the_smallest_row_of_each_kind_is_probed() -> None:
    larger = replace(FIRST, batch=8)
    infer = replace(FIRST, mode="infer")
    assert kinds([larger, replace(FIRST, precision="bf16"), FIRST, infer]) == [replace(FIRST, precision="bf16"), infer]


def test_a_row_takes_its_process_and_its_steps_in_proportion_to_its_pixels() -> None:
    probe = Probe(FIRST, 0.1, 7.0)
    limits = Limits(repeats=10)
    # 24 steps of warm-up; 10 blocks of 12 steps, the fewest whole rounds of 4 that last a second; 20 split; 4 counted
    assert expected(FIRST, [probe], limits, False) == pytest.approx(7 + 2.4 + 12 + 2.0 + 0.4)
    # twice the pixels: steps of 0.2 s, blocks of 8 (1.6 s), a split of 12 (2.4 s)
    assert expected(replace(FIRST, batch=4), [probe], limits, False) == pytest.approx(7 + 4.8 + 16 + 2.4 + 0.8)
    # latency: 200 steps; with a peer, both warm up, and 40 rounds of 4 blocks of 5 steps
    infer = replace(FIRST, mode="infer")
    of_infer = expected(infer, [Probe(infer, 0.1, 7.0)], limits, True)
    assert of_infer == pytest.approx(7 + 2.4 + 12 + 20 + 2.0 + 0.4 + 4.8 + 160 * 0.5)
    # steps of 5 s: the warm-up is cut off at 60 s, a peer's at one round through the inputs, its turns at 300 s
    slow = expected(infer, [Probe(infer, 5.0, 7.0)], limits, True)
    assert slow == pytest.approx(7 + 60 + 200 + 30 + 20 + 20 + 2 * 20 + 300)


def test_a_probe_s_own_steps_are_not_counted_with_the_process() -> None:
    answer: dict[str, Any] = {
        "warmup": {"steps": 1},
        "steps_per_block": 4,
        "block_seconds": [2.0],
        "latency": [0.5] * 4,
        "split": {"steps": 4},
    }
    assert probed(FIRST, answer, 10.0) == Probe(FIRST, 0.5, 3.5)


def test_each_mode_s_first_row_comes_first_then_what_differs_in_one_thing() -> None:
    cases = [
        FIRST,
        replace(FIRST, precision="bf16"),
        replace(FIRST, batch=8),
        replace(FIRST, precision="bf16", batch=8),
        replace(FIRST, mode="infer"),
    ]
    cost = dict(zip(map(repr, cases), (10.0, 12.0, 40.0, 5.0, 10.0), strict=True))

    def kept(budget: float) -> list[int]:
        chosen, left_out = choose(cases, lambda case: cost[repr(case)], budget)
        assert len(chosen) + len(left_out) == len(cases)
        return [cases.index(case) for case in chosen]

    assert kept(77) == [0, 1, 2, 3, 4]
    assert kept(72) == [0, 1, 2, 4]
    assert kept(40) == [0, 1, 3, 4]  # the larger batch does not fit; a quicker row after it does
    assert kept(20) == [0, 4]
    assert kept(10) == [0]
    with pytest.raises(UserError, match="the quickest row takes about 5 s"):
        kept(4)


def test_what_is_left_out_is_said_and_an_interrupted_choice_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    took = iter([5.0])  # asked only once

    def fresh(task: dict[str, Any], *_: object) -> Ending:
        answer = {
            "warmup": {"steps": 1},
            "steps_per_block": 4,
            "block_seconds": [4.0],
            "latency": [],
            "split": {"steps": 4},
        }
        return Ending("done", "", next(took) + 9, answer)

    class Silent:
        def begins(self, what: str) -> None: ...
        def measured(self, row: object) -> None: ...
        def searched(self, search: object) -> None: ...

    monkeypatch.setattr(fitting, "run_fresh", fresh)
    monkeypatch.setattr(plans, "describe_device", lambda _config: DEVICE)
    asked = {"mode": "train", "precision": "fp32,bf16", "batch": "1,2", "repeats": 3, "largest_batch": True}
    plan, device = make_plan([], **asked, budget="3m")  # type: ignore[arg-type]
    path = default_path(tmp_path, plan, device, PROVENANCE)
    # rows take 5 + 24 + 12 + 4 + 4 = 49 s and, of two images, 5 + 48 + 24 + 8 + 8 = 93 s
    chosen = fitting.within_budget(plan, device, path, Silent())
    assert [(c.precision, c.batch) for c in chosen.cases] == [("fp32", 1), ("bf16", 1)]
    assert left_out_lines(chosen, True) == [
        "Left out for want of time: train fp32, batch 2",
        "Left out for want of time: train bf16, batch 2",
        "Left out for want of time: the search of the largest batch",
    ]
    records.write(path, records.Record(chosen, "2026-01-01T00:00:00+00:00", DEVICE, PROVENANCE))
    assert default_path(tmp_path, plan, device, PROVENANCE) == path
    assert fitting.within_budget(plan, device, path, Silent()) == chosen
    # where no row fits with thirty blocks: 5 + 24 + 5 * 4 + 8 = 57 s of 60
    took, plan = iter([5.0]), replace(plan, repeats=30)
    fewer = fitting.within_budget(replace(plan, budget=60.0), device, tmp_path / "b.json", Silent())
    assert (fewer.repeats, len(fewer.cases)) == (5, 1)
    assert "5 blocks a row instead of 30, for want of time" in left_out_lines(fewer, False)
    assert fitting.whole(fewer) == fitting.whole(replace(plan, budget=60.0))
    without, _ = make_plan([], **asked)  # type: ignore[arg-type]
    assert default_path(tmp_path, without, device, PROVENANCE) != path
