"""The chart of accuracy: what its axis holds."""

import pytest

from mrbench.report import charts
from mrbench.report.build import build
from mrbench.report.collect import Arm, Study
from mrbench.report.run_record import RunRecord


@pytest.mark.parametrize("levels", [{"gn": [0.06, 0.4], "bn": [0.0, 0.0]}, {"gn": [3.0, 4.0], "bn": [0.0, 6.0]}])
def test_the_axis_of_accuracy_holds_every_seed_and_nothing_below_zero(levels: dict[str, list[float]]) -> None:
    arms = []
    for name, values in levels.items():
        runs = (
            RunRecord(name, seed, f"{name}{seed}", "completed", metrics={"box/AP": x}) for seed, x in enumerate(values)
        )
        arms.append(Arm(name, (), None, "", tuple(runs)))
    (ax,) = charts.accuracy(build(Study("s", "s", "", "gn", ("box/AP",), tuple(arms)), resamples=0)).axes
    low, high = ax.get_xlim()
    assert low == 0
    assert high >= max(1.0, *levels["gn"], *levels["bn"])
