"""Which settings a study has charts along, and which arms each line joins."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mrbench.report import charts_curves, charts_factor
from mrbench.report.build import build
from mrbench.report.collect import Arm, Study, load_study
from mrbench.report.factors import Factor, factors, number
from mrbench.report.run_record import RunRecord


def study(*configs: dict[str, Any], named: str = "") -> Study:
    arms = []
    for place, config in enumerate(configs):
        name = f"arm{place}"
        run = RunRecord(name, 0, name, "completed", config=config)
        arms.append(Arm(name, (f"{named}=1",) if named else (), None, "", (run,)))
    return Study("s", "", "", "arm0", ("box/AP",), tuple(arms))


def joined(found: Factor) -> dict[str, list[tuple[float, str]]]:
    return {line.label: list(line.points) for line in found.series}


def test_a_line_joins_arms_that_differ_in_the_factor_alone() -> None:
    configs = [
        {"schedule.iterations": length, "model.norm": norm} for norm in ("gn", "bn") for length in (900, 450, 1800)
    ]
    (found,) = factors(study(*configs))
    assert found.key == "schedule.iterations"
    assert joined(found) == {
        "norm=gn": [(450, "arm1"), (900, "arm0"), (1800, "arm2")],
        "norm=bn": [(450, "arm4"), (900, "arm3"), (1800, "arm5")],
    }


def test_settings_that_follow_from_the_factor_do_not_part_a_line_and_have_no_chart_of_their_own() -> None:
    configs = [
        {"schedule.iterations": n, "schedule.warmup_iterations": n // 10, "schedule.kind": f"{n}x"}
        for n in (1, 20, 30)
    ]
    for named in ("schedule.iterations", "schedule.warmup_iterations"):
        (found,) = factors(study(*configs, named=named))
        assert found.key == named


def test_a_norm_that_changes_with_every_length_is_no_line() -> None:
    lengths = zip((450, 900, 1800), ("gn", "bn", "ln"), strict=True)
    assert factors(study(*({"schedule.iterations": n, "model.norm": norm} for n, norm in lengths))) == []


def test_two_values_are_a_difference_and_no_line() -> None:
    assert factors(study({"a.b": 1}, {"a.b": 2}, {"a.b": 1, "c.d": "x"})) == []


def test_ranges_stand_as_their_ratio_and_nothing_else_is_a_number() -> None:
    assert number([0.1, 2.0]) == 20.0
    assert number([1.0, 1.0]) == 1.0
    assert [number(value) for value in (3, 0.5)] == [3.0, 0.5]
    assert [number(value) for value in (True, None, "3", [1, 2, 3], [2, 1], [0, 1], [1, "x"])] == [None] * 7
    (found,) = factors(study(*({"augmentation.jitter": pair} for pair in ([0.5, 1.5], [1.0, 1.0], [0.1, 2.0]))))
    assert joined(found) == {"": [(1.0, "arm1"), (3.0, "arm0"), (20.0, "arm2")]}
    assert "largest over smallest" in found.title


def test_the_chart_has_the_means_at_their_values(demo: Path) -> None:
    given = load_study(demo, "demo")
    length = {"gn": 450, "bn": 900, "roi_pool": 1800, "class_agnostic": 900, "longer": 3600}
    arms = tuple(
        replace(arm, runs=tuple(replace(run, config={"schedule.iterations": length[arm.name]}) for run in arm.runs))
        for arm in given.arms
        if arm.name != "class_agnostic"
    )
    report = build(replace(given, arms=arms), resamples=0)
    (chart,) = charts_factor.figures(report).values()
    for ax, answer in zip(chart.figure.axes, report.answers, strict=True):
        drawn = next(line for line in ax.lines if len(line.get_xdata()) == 4)
        names = ["gn", "bn", "roi_pool", "longer"]
        assert list(drawn.get_xdata()) == [length[name] for name in names]
        assert np.allclose(drawn.get_ydata(), [answer.summaries[name].mean or 0.0 for name in names])


def test_arms_of_one_schedule_share_the_line_of_their_learning_rate_and_long_lines_are_thinned(demo: Path) -> None:
    report = build(load_study(demo, "demo"), resamples=0)
    figure = charts_curves.curves(report, charts_curves.RATE)
    assert figure is not None
    assert [line.get_label() for line in figure.axes[0].lines] == ["gn and 4 more"]
    run = replace(report.study.arms[0].runs[0])
    points = list(range(0, 90_000, 20))
    run.__dict__["_logged"] = {("train", "loss"): (points, [1.0] * len(points))}
    line = charts_curves._line(replace(report.study.arms[0], runs=(run,)), charts_curves.LOSS)
    assert line is not None
    assert (len(line.x), line.x[0], line.x[-1]) == (charts_curves.MOST_POINTS, 0, points[-1])
