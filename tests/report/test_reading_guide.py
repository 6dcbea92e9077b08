"""The worked example of docs/reading-a-report.md is that of results/demo, and its arithmetic is right."""

import json
import re
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev, variance
from typing import Any

import numpy as np
import pytest

from mrbench.evaluation import bootstrap
from mrbench.evaluation.matches import Matches
from mrbench.evaluation.student import critical, two_sided_p
from mrbench.report import words
from mrbench.report.cost import unbeaten
from mrbench.report.reproduction import noise_of_one

TOP = Path(__file__).resolve().parents[2]
DEMO = TOP / "results" / "demo"
ARMS = ["gn", "frozen_bn", "roi_pool", "longer"]


@pytest.fixture(scope="module")
def guide() -> str:
    """In one line, as sentences go on over the ends of lines."""
    return " ".join((TOP / "docs" / "reading-a-report.md").read_text().split())


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return json.loads((DEMO / "report.json").read_text())


@pytest.fixture(scope="module")
def scores(report: dict[str, Any]) -> dict[str, list[float]]:
    """Box AP by arm, in the order of seeds."""
    runs = sorted(report["runs"], key=lambda run: run["seed"])
    return {arm: [run["box/AP"] for run in runs if run["arm"] == arm] for arm in ARMS}


@pytest.fixture(scope="module")
def drawn() -> dict[str, np.ndarray]:
    """Mean box AP of two arms over seeds, [400] draws of the test images, from the records' matches."""
    arms = json.loads((DEMO / "studies" / "demo.json").read_text())["arms"]

    def of_run(run: str) -> np.ndarray:
        matches = Matches.load(DEMO / "runs" / run / "matches.npz")
        return bootstrap.compute(matches, "box").scores["AP"]

    return {arm: np.mean([of_run(run) for run in arms[arm]["runs"].values()], axis=0) for arm in ("gn", "frozen_bn")}


def row_of(report: dict[str, Any], arm: str) -> dict[str, Any]:
    (row,) = [r for r in report["accuracy"] if r["arm"] == arm and r["metric"] == "box AP"]
    return row


def has(guide: str, *texts: str) -> None:
    missing = [text for text in texts if text not in guide]
    assert not missing


def number(value: float, digits: int = 2) -> str:
    return words.number(value, digits)


def row(name: str, values: list[float]) -> str:
    return f"| {name} | " + " | ".join(number(value) for value in [*values, fmean(values)]) + " |"


def test_runs_and_row_of_the_example_are_the_demo_s(
    guide: str, report: dict[str, Any], scores: dict[str, list[float]]
) -> None:
    assert report["baseline"] == "gn"
    names = ["gn (baseline)", *ARMS[1:]]
    has(guide, *(row(name, scores[arm]) for name, arm in zip(names, ARMS, strict=True)))
    has(guide, row("mean", [fmean(column) for column in zip(*scores.values(), strict=True)]))
    shown = row_of(report, "frozen_bn")
    half = (shown["difference_high"] - shown["difference_low"]) / 2
    has(
        guide,
        f"| frozen_bn | {shown['seeds']} | {number(shown['mean'], 1)} ± {number(shown['sd'], 1)} | "
        f"{number(shown['low'], 1)} to {number(shown['high'], 1)} | "
        f"{number(shown['difference'], 1)} ± {number(half, 1)} | "
        f"{words.p_value(shown['p_holm'])} | {shown['decision']} |",
        f"or {number(shown['difference_low'], 1)} to {number(shown['difference_high'], 1)}",
    )


def test_mean_and_interval_are_worked_as_the_report_has_them(
    guide: str, report: dict[str, Any], scores: dict[str, list[float]], drawn: dict[str, np.ndarray]
) -> None:
    shown, runs = row_of(report, "frozen_bn"), scores["frozen_bn"]
    assert shown["mean"] == pytest.approx(fmean(runs))
    assert shown["sd"] == pytest.approx(stdev(runs))
    off = [words.signed(value - fmean(runs), 2) for value in runs]
    squares = sum((value - fmean(runs)) ** 2 for value in runs)
    has(guide, f"({' + '.join(map(number, runs))}) / 3 = {number(fmean(runs))}")
    has(guide, f"{off[0]}, {off[1]} and {off[2]} from it", f"add up to {number(squares)}")
    has(guide, f"divided by 3 − 1 that is {number(squares / 2)}, and the root is {number(stdev(runs))}")
    # Of the variance of three numbers, chi-squared with 2 degrees of freedom: its quantile q is -2 log(1 - q).
    has(guide, "from 0.16 to 1.92")
    variances = [variance(values) for values in scores.values()]
    pooled = fmean(variances)
    noise = report["seed_noise"]["box/AP"]["within_arms"]
    assert (noise["sd"], noise["df"]) == (pytest.approx(sqrt(pooled)), 8)
    has(guide, f"({' + '.join(map(number, variances))}) / 4 = {number(pooled)}", f"s = {number(sqrt(pooled))} with")
    seeds, images = pooled / 3, drawn["frozen_bn"].var(ddof=1)
    error = sqrt(seeds + images)
    half = critical(8) * error
    has(
        guide,
        f"{number(pooled)} / 3 = {number(seeds)}",
        f"The variance of these 400 is {number(images)}",
        f"√({number(seeds)} + {number(images)}) = {number(error)} is the standard error; times",
        f"8 degrees, {critical(8):.3f}, that",
    )
    has(guide, f"from {number(fmean(runs))} − {number(half)} to {number(fmean(runs))} + {number(half)}")
    assert (shown["low"], shown["high"]) == (pytest.approx(fmean(runs) - half), pytest.approx(fmean(runs) + half))


def test_difference_and_its_p_are_worked_as_the_report_has_them(
    guide: str, report: dict[str, Any], scores: dict[str, list[float]], drawn: dict[str, np.ndarray]
) -> None:
    shown = row_of(report, "frozen_bn")
    pairs = list(zip(scores["frozen_bn"], scores["gn"], strict=True))
    for arm, base in pairs:
        has(guide, f"{number(arm)} − {number(base)} = {number(arm - base)}")
    assert shown["difference"] == pytest.approx(fmean(arm - base for arm, base in pairs))
    has(guide, f"the mean is {number(shown['difference'])}")
    by_seed = [fmean(column) for column in zip(*scores.values(), strict=True)]
    left = [v - fmean(vs) - by_seed[i] + fmean(by_seed) for vs in scores.values() for i, v in enumerate(vs)]
    squares = sum(value**2 for value in left)
    noise = report["seed_noise"]["box/AP"]["pairs"]
    assert (noise["sd"], noise["df"]) == (pytest.approx(sqrt(squares / 6)), 6)
    has(
        guide,
        f"{number(scores['gn'][0])} − {number(fmean(scores['gn']))} − {number(by_seed[0])} + "
        f"{number(fmean(by_seed))} = {number(left[0])}",
        f"squares add up to {number(squares)}",
        f"√({number(squares)} / 6) = {number(noise['sd'])}",
    )
    seeds = 2 * noise["sd"] ** 2 / 3
    images = (drawn["frozen_bn"] - drawn["gn"]).var(ddof=1)
    error = sqrt(seeds + images)
    half = critical(6) * error
    has(
        guide,
        f"2 × {number(noise['sd'])}² / 3 = {number(seeds)}",
        f"the difference of their means has the variance {number(images)}",
        f"√({number(seeds)} + {number(images)}) = {number(error)} is",
    )
    has(guide, f"t = {critical(6):.3f} for", f"the half-width is {number(half)}:")
    assert shown["difference_low"] == pytest.approx(shown["difference"] - half)
    assert shown["difference_high"] == pytest.approx(shown["difference"] + half)
    t = shown["difference"] / error
    assert shown["p"] == pytest.approx(two_sided_p(t, 6), rel=1e-3)
    has(guide, f"{number(shown['difference'])} is {number(-t)} standard errors from 0")
    has(guide, f"the half-width of box AP is {number(half, 1)} for `frozen_bn`")


def test_holm_s_correction_is_worked_as_the_report_has_it(guide: str, report: dict[str, Any]) -> None:
    rows = [row_of(report, arm) for arm in ("longer", "frozen_bn", "roi_pool")]
    raw = [r["p"] for r in rows]
    assert raw == sorted(raw)
    adjusted = [3 * raw[0], 2 * raw[1], raw[2]]
    assert adjusted == sorted(adjusted)
    digits = (7, 5, 4)
    plain = [f"{value:.{n}f}" for value, n in zip(raw, digits, strict=True)]
    has(guide, f"p = {plain[0]} (`longer`), {plain[1]} (`frozen_bn`) and {plain[2]} (`roi_pool`)")
    has(guide, f"{adjusted[0]:.6f}, {adjusted[1]:.5f} and {adjusted[2]:.4f}.", f"{adjusted[1]:.5f} is at most 0.05")
    for found, value in zip(rows, adjusted, strict=True):
        assert found["p_holm"] == pytest.approx(value)
        assert found["decision"] in ("better", "worse")


def test_costs_and_which_of_them_are_unbeaten_are_the_demo_s(guide: str, report: dict[str, Any]) -> None:
    costs = {found["arm"]: found for found in report["cost"]}
    best = unbeaten({arm: (row_of(report, arm)["mean"], costs[arm]["hours"]) for arm in ARMS})
    for arm in ARMS:
        speed, seconds = costs[arm]["images_per_second"], costs[arm]["hours"] * 3600
        has(guide, f"| {arm} | {speed:.1f} | {seconds:.0f} s | {'yes' if best[arm] else 'no'} |")
    speed = costs["gn"]["images_per_second"]
    has(guide, f"450 iterations × 2 pictures / {speed:.1f} = {450 * 2 / speed:.0f} s")
    beaten, by = (row_of(report, arm)["mean"] for arm in ("frozen_bn", "roi_pool"))
    seconds, fewer = (costs[arm]["hours"] * 3600 for arm in ("frozen_bn", "roi_pool"))
    has(guide, f"with {beaten:.1f} against {by:.1f} in {seconds:.0f} against {fewer:.0f} s")
    one, two, three = (run["images_per_second"] for run in report["runs"] if run["arm"] == "gn")
    has(guide, f"at {one:.1f}, {two:.1f} and {three:.1f} images/s")


def test_the_warnings_name_numbers_that_hold(
    guide: str, report: dict[str, Any], scores: dict[str, list[float]]
) -> None:
    _, high, low = scores["gn"]
    has(guide, f"{number(high)} − {number(low)} = {number(high - low)}")
    has(guide, f"`longer` gains {number(row_of(report, 'longer')['difference'], 1)}")
    has(guide, f"±{noise_of_one('box/AP'):.2f} box AP (±{noise_of_one('mask/AP'):.2f} mask AP)")
    has(guide, f"by more than {sqrt(2) * noise_of_one('box/AP'):.2f} box AP")
    assert any("below 400 and large above 1600" in note for note in report["notes"])


def test_every_column_of_a_report_has_its_heading(guide: str) -> None:
    source = (TOP / "mrbench" / "report" / "table.py").read_text()
    columns = set(re.findall(r'Column\("([^"]+)"', source)) - {"arm", "seed", "state", "run", "runs"}
    missing = {name for name in columns if name.lower() not in guide.lower()}
    assert not missing
