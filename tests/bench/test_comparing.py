"""A benchmark against an earlier one: Welch's interval, what is refused, and the exit code."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mrbench.bench import plan as plans
from mrbench.bench import record as records
from mrbench.bench import session
from mrbench.bench.comparing import (
    FASTER,
    INSIDE,
    SLOWER,
    UNKNOWN,
    change_lines,
    changes,
    check_comparable,
    ratio_interval,
)
from mrbench.bench.matrix import Case
from mrbench.bench.process import Ending
from mrbench.bench.record import Measurement, Plan, Record, measured
from mrbench.bench.statistics import summarise
from mrbench.cli.app import app
from mrbench.errors import UserError
from mrbench.evaluation.student import critical

CASE = Case("train", "small", "fp32", 2, [128, 128])
DEVICE = {"type": "cpu", "threads": 1, "refusals": {"fp32": None, "bf16": None}}
PROVENANCE = {"hardware": {"cpu": "A processor", "cores": 2}, "packages": {"torch": "2.15.0"}}
ANSWER: dict[str, Any] = {
    "warmup": {"steps": 12, "seconds": 1.0, "stable": True, "step_seconds": 0.1},
    "steps_per_block": 10,
    "peak_memory": {},
    "facts": {},
    "settings": {},
    "others_cpu": None,
    "latency": [],
    "split": None,
    "work": None,
    "telemetry": {"source": None},
}
QUIET = [1.0, 1.01, 0.99, 1.0, 1.01, 0.99]


def record(seconds: list[float], **changed: Any) -> Record:
    plan = Plan({"small": "seed: 0\nmodel: {a: 1}\n"}, "cpu", [CASE], "synthetic", 7, None, 6, False, None, 0.05)
    found = Record(plan, "2026-01-01T00:00:00+00:00", DEVICE, PROVENANCE)
    found.measurements = [measured(CASE, ANSWER | {"block_seconds": seconds})]
    return replace(found, **changed)


def test_the_interval_is_welch_s_with_the_noise_of_sessions_added() -> None:
    old, new = [100.0, 101, 99, 100, 102], [95.0, 97, 93, 96]
    # relative spreads stand for the spreads of logarithms
    a, b = summarise(old), summarise(new)
    assert a.std is not None
    assert b.std is not None
    va, vb = (a.std / a.mean) ** 2 / 5, (b.std / b.mean) ** 2 / 4
    freedom = (va + vb) ** 2 / (va**2 / 4 + vb**2 / 3)
    half = critical(freedom) * math.sqrt(va + vb)
    middle = math.log(b.mean / a.mean)
    found = ratio_interval(a, b, session_noise=0.0)
    assert found == pytest.approx([math.exp(middle - half), math.exp(middle + half)], rel=1e-9)
    wider = ratio_interval(a, b, session_noise=0.02)
    assert wider is not None
    assert wider[0] < found[0] < found[1] < wider[1]


def test_equal_samples_have_their_hand_worked_interval() -> None:
    # six blocks each with a spread of 1 %: 10 degrees of freedom, t = 2.228
    values = [100.0, 101, 99, 100, 101, 99]
    found = summarise(values)
    assert found.spread is not None
    half = 2.228 * found.spread * math.sqrt(2 / 6)
    assert ratio_interval(found, found, 0.0) == pytest.approx([math.exp(-half), math.exp(half)], rel=1e-4)


@pytest.mark.parametrize(
    "now, verdict",
    [(QUIET, INSIDE), ([s * 1.03 for s in QUIET], INSIDE), ([s * 1.2 for s in QUIET], SLOWER), ([0.8] * 6, FASTER)],
)
def test_only_what_exceeds_blocks_and_sessions_is_a_change(now: list[float], verdict: str) -> None:
    [change] = changes(record(QUIET), record(now))
    assert change.verdict == verdict
    if verdict == INSIDE:
        # blocks alone would have called 3 % a change
        assert [c.verdict for c in changes(record(QUIET), record([s * 1.03 for s in QUIET]), 0.0)] == [SLOWER]


def test_rows_without_a_counterpart_or_with_few_blocks_are_not_compared() -> None:
    assert [c.verdict for c in changes(record(QUIET), record([1.0, 1.0]))] == [UNKNOWN]
    assert [c.verdict for c in changes(record(QUIET, measurements=[]), record(QUIET))] == [UNKNOWN]
    gone = record(QUIET, measurements=[Measurement(CASE, "memory", "too much")])
    [change] = changes(record(QUIET), gone)
    assert change.verdict == SLOWER
    assert "no figure now: too much" in change_lines([change], 0.02)[0]


@pytest.mark.parametrize(
    "other, words",
    [
        ({"protocol": 1}, "protocol 1"),
        ({"device": {**DEVICE, "threads": 2}}, "threads 2, now 1"),
        ({"provenance": {"hardware": {"cpu": "Another", "cores": 2}, "packages": {}}}, "cpu Another"),
        ({"plan": replace(record(QUIET).plan, instances=20)}, "instances 20, now 7"),
        ({"plan": replace(record(QUIET).plan, configs={"small": "seed: 0\nmodel: {a: 2}\n"})}, "model.a 2, now 1"),
    ],
)
def test_what_was_measured_otherwise_is_refused(other: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match="not measured like this one") as caught:
        check_comparable(record(QUIET, **other), record(QUIET))
    assert words in caught.value.what


def test_other_software_and_new_keys_may_be_compared() -> None:
    newer = record(QUIET, provenance={**PROVENANCE, "packages": {"torch": "2.16.0"}})
    newer.plan.configs["small"] = "seed: 0\nmodel: {a: 1, new: 5}\n"
    check_comparable(record(QUIET), newer)


@pytest.mark.parametrize("factor, code", [(1.0, 0), (1.3, 3), (0.7, 0)])
def test_the_exit_code_says_whether_something_is_slower(
    factor: float, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provenance = session.collect()
    monkeypatch.setattr(session, "collect", lambda: provenance)
    monkeypatch.setattr(plans, "describe_device", lambda _config: DEVICE)
    seconds = [QUIET]
    monkeypatch.setattr(
        session, "run_fresh", lambda *_, **_options: Ending("done", "", 1.0, ANSWER | {"block_seconds": seconds[0]})
    )
    arguments = ["gpu-bench", "--mode", "train", "--repeats", "6", "--out"]
    before = tmp_path / "before.json"
    assert CliRunner().invoke(app, [*arguments, str(before)], catch_exceptions=False).exit_code == 0
    assert (tmp_path / "before.csv").read_text().count("\n") == 2
    seconds[0] = [s * factor for s in QUIET]
    result = CliRunner().invoke(
        app, [*arguments, str(tmp_path / "after.json"), "--compare", str(before)], catch_exceptions=False
    )
    assert result.exit_code == code, result.output
    assert "Noise between sessions is counted as 2 %" in result.output
    assert records.read(tmp_path / "after.json").state == "completed"


def test_a_row_that_no_longer_fits_is_slower_though_it_is_the_only_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provenance = session.collect()
    monkeypatch.setattr(session, "collect", lambda: provenance)
    monkeypatch.setattr(plans, "describe_device", lambda _config: DEVICE)
    endings = [Ending("done", "", 1.0, ANSWER | {"block_seconds": QUIET}), Ending("memory", "killed", 1.0)]
    monkeypatch.setattr(session, "run_fresh", lambda *_, **_options: endings.pop(0))
    arguments = ["gpu-bench", "--mode", "train", "--repeats", "6", "--out"]
    before = tmp_path / "before.json"
    assert CliRunner().invoke(app, [*arguments, str(before)], catch_exceptions=False).exit_code == 0
    after = [*arguments, str(tmp_path / "after.json"), "--compare", str(before)]
    result = CliRunner().invoke(app, after, catch_exceptions=False)
    assert result.exit_code == 3, result.output
    assert "slower" in result.output
