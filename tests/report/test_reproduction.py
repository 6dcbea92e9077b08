"""Published numbers beside ours: what counts as reproduced, and where nothing is said of it."""

from dataclasses import replace
from math import sqrt
from pathlib import Path

import pytest

from mrbench.evaluation.student import critical
from mrbench.report import published, reproduction, rerun
from mrbench.report.collect import Arm
from mrbench.report.prior import public_spread
from mrbench.report.run_record import RunRecord
from mrbench.report.statistics import BETTER, Difference, Interval, Summary

ROW, BASELINE = "lsj/table/weight_decay", "lsj/table/baseline"  # val2017; published change -1.6 box AP


def arm(recipe: bool = True, scale: str | None = "full", images: int = 5000) -> Arm:
    runs = [RunRecord("a", seed, f"r{seed}", "completed", metrics={"box/AP": 1.0}, images=images) for seed in (0, 1)]
    return Arm("a", (), ROW, "", tuple(runs), scale, recipe)


def interval(mean: float, half: float) -> Interval:
    fields = dict.fromkeys(Interval.__dataclass_fields__)
    return Interval(**{**fields, "low": mean - half, "high": mean + half})  # type: ignore[arg-type]


def summary(mean: float, half: float = 0.2) -> Summary:
    return Summary((0, 1), mean, 0.1, interval(mean, half))


def difference(mean: float, half: float = 0.3) -> Difference:
    fields = dict.fromkeys(Difference.__dataclass_fields__)
    changed = {"seeds": (0, 1), "paired": True, "mean": mean, "interval": interval(mean, half), "decision": BETTER}
    return Difference(**{**fields, **changed})  # type: ignore[arg-type]


def noise() -> float:
    """Of one public run: t times the standard deviation over seeds."""
    spread = public_spread("box/AP")
    assert 0.1 < spread.sd < 0.2
    return critical(spread.df) * spread.sd


def test_a_value_is_reproduced_inside_our_interval_widened_by_the_noise_of_one_run() -> None:
    value = published.lookup(ROW).metrics["box/AP"]
    reach = sqrt(0.2**2 + noise() ** 2)
    for off, expected in ((0.0, True), (0.95 * reach, True), (-0.95 * reach, True), (1.05 * reach, False)):
        found = reproduction.beside(arm(), ROW, BASELINE, "box/AP", summary(value + off), None)
        assert (found.reproduced, found.why_not) == (expected, "")


def test_our_change_less_the_published_one_has_the_noise_of_two_published_runs() -> None:
    found = reproduction.beside(arm(), ROW, BASELINE, "box/AP", summary(40.0), difference(-1.1))
    assert found.change == -1.6
    assert found.gap == pytest.approx(0.5)
    assert found.gap_high is not None
    assert found.gap_high - 0.5 == pytest.approx(sqrt(0.3**2 + 2 * noise() ** 2))


@pytest.mark.parametrize(
    ("arm", "metric", "why"),
    [
        (arm(recipe=False, scale="small"), "box/AP", "at small scale"),
        (arm(recipe=False, scale=None), "box/AP", "not the published training"),
        (arm(images=200), "box/AP", "not tested on val2017"),
        (replace(arm(), published="zoo/r50_fpn_1x"), "box/AP75", "not published"),
    ],
)
def test_nothing_is_said_where_the_arm_is_not_the_published_training(arm: Arm, metric: str, why: str) -> None:
    assert arm.published
    value = published.lookup(arm.published).metrics.get(metric, 40.0)
    found = reproduction.beside(arm, arm.published, BASELINE, metric, summary(value), difference(0.0))
    assert found.reproduced is None
    assert found.why_not == why
    assert found.value == published.lookup(arm.published).metrics.get(metric)


def full_study(extra: tuple[str, ...] = ()) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """Base and arms of ablations/weight_decay.yaml at full scale, as a sweep records them."""
    from mrbench.study.ablation import load_study

    study = load_study("weight_decay").at_scale("full")
    return study.base + extra, {one.name: one.overrides for one in study.arms}


def test_a_shipped_study_at_full_scale_is_the_published_training_unless_it_was_changed() -> None:
    for extra, is_it in (((), True), (("data.root=/coco", "runtime.devices=8"), True), (("optimizer.lr=1",), False)):
        base, arms = full_study(extra)
        added = rerun.added("weight_decay-full", "full", base, arms)
        assert added == extra
        assert rerun.is_published_recipe((*base, *arms["1e-4"]), ROW, "full", added) is is_it
        assert not rerun.is_published_recipe((*base, *arms["1e-4"]), ROW, "small", added)
    base, arms = full_study()
    assert rerun.added("weight_decay-full", "full", base[:-1], arms) is None
    assert rerun.added("weight_decay-full", "full", base, {**arms, "1e-4": ("optimizer.weight_decay=1",)}) is None
    assert rerun.added("no_such_study-full", "full", base, arms) is None


def test_a_recipe_is_the_published_training_of_the_row_that_its_file_names() -> None:
    recipe = "recipe=mask_rcnn_r50_fpn_1x"
    assert rerun.is_published_recipe((recipe, "data.root=/coco"), "zoo/r50_fpn_1x", None, None)
    assert not rerun.is_published_recipe((recipe,), "zoo/r50_fpn_3x", None, None)
    assert not rerun.is_published_recipe((recipe, "schedule.iterations=10"), "zoo/r50_fpn_1x", None, None)


def test_a_study_runs_again_by_one_command() -> None:
    base, arms = full_study(("data.root=/my coco",))
    assert rerun.sweep_command("weight_decay-full", "full", base, arms, [0, 1]) == (
        "mrbench sweep weight_decay --scale full --seeds 0,1 'data.root=/my coco'"
    )
    grid = {"a": ("model.norm=gn", "optimizer.lr=1"), "b": ("model.norm=bn", "optimizer.lr=1")}
    assert rerun.sweep_command("mine", None, ("data=shapes",), grid, [0, 2]) == (
        "mrbench sweep data=shapes model.norm=gn,bn optimizer.lr=1 seed=0,2 --name mine"
    )
    incomplete = {**grid, "c": ("model.norm=bn", "optimizer.lr=2")}
    assert rerun.sweep_command("mine", None, (), incomplete, [0]) == ""


def test_a_grids_command_makes_the_same_arms_again(tmp_path: Path) -> None:
    """Read back by the sweep itself."""
    from mrbench.study.grid import grid_study

    grid = {"a": ("model.norm=gn",), "b": ("model.norm=bn",)}
    words = rerun.sweep_command("mine", None, ("data=shapes",), grid, [0, 2]).split()[2:-2]
    study = grid_study(words, "mine")
    assert [one.overrides for one in study.arms] == [("model.norm=gn",), ("model.norm=bn",)]
    assert (study.base, study.seeds) == (("data=shapes",), (0, 2))
