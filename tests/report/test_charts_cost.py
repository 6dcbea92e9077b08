"""The chart of accuracy against speed: what is in it."""

from collections.abc import Callable
from pathlib import Path

from mrbench.report import charts_cost
from mrbench.report.build import build
from mrbench.report.collect import load_study


def test_every_arm_with_a_result_and_a_speed_is_a_point(make_study: Callable[..., Path], tmp_path: Path) -> None:
    report = build(load_study(make_study(tmp_path, seeds=2, matches=False), "demo"), resamples=0)
    figure = charts_cost.against_speed(report, report.answers[0])
    assert figure is not None
    drawn = sorted((line.get_xdata()[0], line.get_ydata()[0]) for line in figure.axes[0].lines)
    assert drawn == sorted((32.9, report.answers[0].summaries[arm.name].mean) for arm in report.study.arms)
