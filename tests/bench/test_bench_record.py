"""A record on disk, what is said about it, and what is held against it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mrbench.bench import record as records
from mrbench.bench.largest_batch import Search, Try
from mrbench.bench.matrix import Case
from mrbench.bench.plan import default_path
from mrbench.bench.record import Measurement, Plan, Record, measured
from mrbench.bench.session import suspicions
from mrbench.bench.telling import comparison_lines, efficiency, heading, measurement_text, search_text
from mrbench.errors import UserError

PROVENANCE = {"hardware": {"cpu": "A processor"}, "packages": {"torch": "2.15.0"}, "code": {}}
DEVICE = {"type": "cpu", "threads": 1, "refusals": {"fp32": None, "tf32": "not on a CPU"}}


def case(precision: str = "fp32", **changes: Any) -> Case:
    return replace(Case("train", "small", precision, 2, [128, 128]), **changes)


def plan(**changes: Any) -> Plan:
    values: dict[str, Any] = {
        "configs": {"small": "seed: 0\n"},
        "device": "cpu",
        "cases": [case("fp32"), case("bf16")],
        "instances": 7,
        "positives": None,
        "inputs": "synthetic",
        "repeats": 4,
        "largest_batch": True,
        "memory_limit": 2 << 30,
        "headroom": 0.05,
    }
    return Plan(**{**values, **changes})


ANSWER: dict[str, Any] = {
    "warmup": {"steps": 12, "seconds": 1.0, "stable": True, "step_seconds": 0.1},
    "steps_per_block": 10,
    "block_seconds": [1.0, 1.01, 0.99],
    "peak_memory": {"resident": 1 << 30},
    "facts": {"instances_per_image": 7.0, "loss_is_finite": True},
    "settings": {"compile": False},
    "others_cpu": 0.02,
    "latency": [],
    "split": None,
    "work": None,
    "telemetry": {"source": None},
}


def row(precision: str, seconds: list[float], **changes: Any) -> Measurement:
    return measured(case(precision), {**ANSWER, "block_seconds": seconds, **changes})


def whole() -> Record:
    record = Record(plan(), "2026-01-01T00:00:00+00:00", DEVICE, PROVENANCE)
    record.measurements = [row("fp32", [1.0, 1.02, 0.98]), Measurement(case("tf32"), "unsupported", "no")]
    record.searches = [Search(case(batch=0), [Try(1, "fits", "", 5, 0.1), Try(2, "memory", "too much")], 1, "memory")]
    return record


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "record.json"
    records.write(path, whole())
    assert records.read(path) == whole()
    assert json.loads(path.read_text())["protocol"] == records.PROTOCOL


@pytest.mark.parametrize("content", ["{}", "[]", '{"protocol": 999}', "not json"])
def test_what_is_no_record_is_refused_and_never_written_over(content: str, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"other\.json"):
        records.read(path)
    assert records.is_finished(path)


def test_an_unfinished_record_is_found_again_and_a_finished_one_is_kept(tmp_path: Path) -> None:
    record = whole()
    path = default_path(tmp_path, record.plan, DEVICE, PROVENANCE)
    assert path.name.startswith("small-cpu-a-processor-torch2.15.0-")
    records.write(path, record)
    assert default_path(tmp_path, record.plan, DEVICE, PROVENANCE) == path
    assert default_path(tmp_path, plan(repeats=5), DEVICE, PROVENANCE) != path
    record.state = "completed"
    records.write(path, record)
    assert default_path(tmp_path, record.plan, DEVICE, PROVENANCE).name == f"{path.stem}-2.json"


def test_rates_are_worked_out_of_blocks() -> None:
    rate = row("fp32", [1.0, 2.0]).images_per_second
    assert rate is not None
    assert (rate.mean, rate.low, rate.high) == (15.0, 10.0, 20.0)  # 20 images in 1 s, and in 2 s


def test_energy_an_image_is_that_of_all_blocks() -> None:
    # 3 blocks of 10 steps of 2 images
    telemetry = row("fp32", [1.0, 1.0, 1.0], telemetry={"source": "nvml", "energy_joules": 1200.0}).telemetry
    assert telemetry is not None
    assert telemetry.joules_per_image == 20


def full() -> Measurement:
    """A row with everything that there is to know: 20 images a second on two devices, half of the peak."""
    answer = {
        "latency": [0.1, 0.2, 0.3],
        "split": {"steps": 4, "step_seconds": 0.2, "parts": {"backward": 0.15, "roi_heads": 0.05}},
        "work": {"flops": 4e9, "peak_flops": 8e10, "peak_copy": 1e11},
        "telemetry": {"source": "nvml", "clock": [1700.0, 1750.0, 1800.0], "highest_clock": 1980.0, "power": 600.0},
    }
    return row("fp32", [1.0, 1.0, 1.0], **answer)


def test_work_is_the_step_s_flops_over_its_time_and_the_measured_peak() -> None:
    work = full().work
    assert work is not None
    # 4 GFLOP in a step of 2 images and 0.1 s
    assert (work.flops_per_image, work.flops_per_second, work.fraction) == (2e9, 4e10, 0.5)


def test_a_full_row_comes_back_and_is_told(tmp_path: Path) -> None:
    record = whole()
    record.measurements.append(full())
    records.write(tmp_path / "record.json", record)
    assert records.read(tmp_path / "record.json") == record
    text = measurement_text(full())
    for part in (
        "50 % within 200 ms (3 steps; too few for 90 and 99 %)",
        "backward 75 %, roi heads 25 %",
        "2.000 GFLOP an image, 40.0 GFLOP/s: 50 % of a matrix product's 80.0 (copying 100.0 GB/s)",
        "1750 MHz (1700 … 1800 of 1980), 600 W",
    ):
        assert part in text


def test_a_peer_s_turns_come_back_and_are_told(tmp_path: Path) -> None:
    """Seven rounds in which theirs take twice as long, and one that was disturbed: √0.8 in its means with them."""
    peer = {"name": "torchvision 0.29", "steps_per_block": 4, "our_seconds": [1.0] * 14 + [1.0, 9.0]}
    peer |= {"their_seconds": [2.0] * 16, "facts": {"loss_is_finite": True}}
    record = whole()
    record.plan.left_out, record.plan.budget = [case("fp16")], 60.0
    record.measurements = [row("fp32", [1.0, 1.0, 1.0], peer=peer)]
    records.write(tmp_path / "record.json", record)
    assert records.read(tmp_path / "record.json") == record
    told = "2.000 times as fast as torchvision 0.29 (95 % interval 0.894 … 2.000); 8 rounds in turns"
    assert told in measurement_text(record.measurements[0])
    assert comparison_lines(record.measurements) == [f"train fp32, batch 2: mrbench is {told}"]
    failed = row("fp32", [1.0], peer={"name": "torchvision 0.29", "note": "RuntimeError: no"})
    assert "torchvision 0.29 failed: RuntimeError: no" in measurement_text(failed)
    assert comparison_lines([failed]) == []


def test_devices_are_compared_with_as_many_times_one() -> None:
    # 20 images/s +- 0 on one; two do 4 images a step: 30 images/s: 75 %
    two = measured(case(devices=2), ANSWER | {"block_seconds": [4 / 3, 4 / 3, 4 / 3]})
    assert two.images_per_second is not None
    assert two.images_per_second.mean == pytest.approx(30)
    assert efficiency(two, row("fp32", [1.0, 1.0, 1.0])).value == pytest.approx(0.75)
    lines = comparison_lines([row("fp32", [1.0, 1.0, 1.0]), two])
    assert lines == ["train fp32, batch 2: 2 devices work at 75 ± 0 % of as many times one"]


def test_rows_are_compared_in_one_thing_at_a_time() -> None:
    cases = [case(), case(channels_last=True), case("bf16"), case("bf16", channels_last=True)]
    rows = [measured(c, ANSWER | {"block_seconds": [s] * 3}) for c, s in zip(cases, (1, 0.5, 0.8, 0.2), strict=True)]
    assert comparison_lines(rows) == [
        "train, batch 2: bf16 is 1.25 ± 0.00 times as fast as fp32",
        "train, batch 2, channels-last: bf16 is 2.50 ± 0.00 times as fast as fp32",
        "train fp32, batch 2: channels-last is 2.00 ± 0.00 times as fast as channels-first",
        "train bf16, batch 2: channels-last is 4.00 ± 0.00 times as fast as channels-first",
    ]


def test_the_comparison_names_the_faster_first_with_its_error() -> None:
    # 20, 10, 15 -> 15 +- 5 (1/3); 40, 20, 30 -> 30 +- 10 (1/3): 2 +- 2 * sqrt(2) / 3
    rows = [row("fp32", [1.0, 2.0, 4 / 3]), row("bf16", [0.5, 1.0, 2 / 3]), Measurement(case("fp16"), "memory")]
    assert comparison_lines(rows) == ["train, batch 2: bf16 is 2.00 ± 0.94 times as fast as fp32"]
    assert comparison_lines(rows[::-1]) == comparison_lines(rows)


def test_a_quiet_measurement_is_not_suspected() -> None:
    assert suspicions(row("fp32", [1.0, 1.01, 0.99, 1.02])) == []


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"block_seconds": [1.0, 1.2, 0.9, 1.1]}, "spread is 12 %"),
        ({"block_seconds": [1.0, 1.01]}, "two blocks are too few"),
        ({"block_seconds": [1.0]}, "one block is too few"),
        (
            {"split": {"steps": 4, "step_seconds": 0.15, "parts": {"backward": 0.15}}},
            "the steps that were split were 50 % slower than the timed ones",
        ),
        ({"block_seconds": [1.0, 1.001, 0.999, 1.0, 1.02]}, "1 of 5 blocks"),
        ({"warmup": {"steps": 9, "seconds": 1.0, "stable": False, "step_seconds": 1.0}}, "drifting after 9 steps"),
        ({"others_cpu": 0.5}, "other processes took 50 %"),
        ({"facts": {"loss_is_finite": False}}, "not finite"),
    ],
)
def test_what_makes_a_figure_suspect_is_said(changes: dict[str, Any], words: str) -> None:
    [warning] = suspicions(row("fp32", **{"seconds": [1.0, 1.01, 0.99], **changes}))  # type: ignore[arg-type]
    assert words in warning


def test_the_terminal_has_mean_spread_range_repeats_and_memory() -> None:
    text = measurement_text(row("fp32", [1.0, 1.0, 1.0, 1.0]))
    for part in ("train fp32, batch 2", "20.0 ± 0.000", "4 blocks of 10 steps", "1.00 GiB resident", "7 instances"):
        assert part in text
    assert "small on A processor (1 thread), torch 2.15.0; 128x128, 7 instances" in heading(whole())


def test_a_row_without_a_figure_says_why() -> None:
    assert "not on this device: needs a GPU" in measurement_text(
        Measurement(case("tf32"), "unsupported", "needs a GPU")
    )


@pytest.mark.parametrize(
    "search, words",
    [
        (
            Search(case(batch=0), [Try(1, "fits"), Try(2, "memory")], 1, "memory"),
            "1  (memory: 2.00 GiB, 5 % kept free; 2 tries",
        ),
        (Search(case(batch=0), [Try(1, "memory", "too much")], 0, "memory"), "not even one image fits"),
        (Search(case(batch=0), [Try(1, "fits"), Try(2, "time")], 1, "time"), "took too long"),
        (Search(case(batch=0), note="a bug"), "not found: a bug"),
    ],
)
def test_the_answer_of_a_search_in_words(search: Search, words: str) -> None:
    assert words in search_text(search, plan())
