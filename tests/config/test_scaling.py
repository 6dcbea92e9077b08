"""A schedule that is written for one batch fits another by the linear rule, and says so."""

import pytest
from typer.testing import CliRunner

from mrbench.cli.app import app
from mrbench.config.compose import load, to_yaml
from mrbench.config.composer import compose
from mrbench.config.identity import run_id
from mrbench.errors import UserError

ONE_X = ("recipe=mask_rcnn_r50_fpn_1x", "data.name=coco_2017")
HALF = ("schedule.images_per_batch=8", "schedule.scale_to_batch=16")
LARGER = ("images_per_batch=96", "scale_to_batch=64")


def test_half_the_batch_has_half_the_rate_and_twice_the_lengths() -> None:
    """Detectron2's auto_scale_workers from 8 to 4 workers, by hand: 1x becomes lr 0.01, 180k, (120k, 160k), 2000."""
    config = compose([*ONE_X, *HALF, "evaluation.period=5000"])
    assert config.optimizer.lr == pytest.approx(0.01)
    assert config.schedule.iterations == 180000
    assert config.schedule.milestones == [120000, 160000]
    assert config.schedule.warmup_iterations == 2000
    assert config.evaluation.period == 10000
    assert config.schedule.images_per_batch == 8


def test_a_larger_batch_is_rounded_to_the_nearest_iteration() -> None:
    """LSJ 100 epochs at 96 images: 184375 / 1.5 = 122916.67, 163889 / 1.5 = 109259.33, 500 / 1.5 = 333.33."""
    config = compose(["schedule=lsj_100ep", "optimizer=sgd_lsj", *("schedule." + x for x in LARGER)])
    assert config.optimizer.lr == pytest.approx(0.15)
    assert config.schedule.iterations == 122917
    assert config.schedule.milestones == [109259, 118364]
    assert config.schedule.warmup_iterations == 333
    assert config.schedule.warmup_factor == 0.067


def test_the_batch_it_is_written_for_changes_nothing() -> None:
    assert compose([*ONE_X, "schedule.scale_to_batch=16"]) == compose(ONE_X)


def test_a_scaled_run_is_the_run_whose_values_are_written_out(tmp_path_factory: pytest.TempPathFactory) -> None:
    ours = compose([*ONE_X, *HALF])
    lengths = ("iterations=180000", "milestones=[120000,160000]", "warmup_iterations=2000", "images_per_batch=8")
    plain = compose([*ONE_X, "optimizer.lr=0.01", *("schedule." + x for x in lengths)])
    assert run_id(ours) == run_id(plain)
    file = tmp_path_factory.mktemp("record") / "config.yaml"
    file.write_text(to_yaml(ours))
    assert load(file) == ours, "a record is not scaled again"


def test_milestones_that_fall_together_are_refused() -> None:
    with pytest.raises(UserError, match="not rising"):
        compose(
            [*ONE_X, "schedule.milestones=[10,12]", "schedule.images_per_batch=1600", "schedule.scale_to_batch=16"]
        )


def test_what_is_scaled_is_shown_with_old_and_new_value() -> None:
    shown = CliRunner().invoke(app, ["train", "--cfg", *ONE_X, *HALF]).output
    assert "# written for 16 images a batch, runs with 8: lengths x 2, rate x 0.5\n" in shown
    assert "#   optimizer.lr: 0.02 -> 0.01\n" in shown
    assert "\n  iterations: 180000\n" in shown
    assert "written for" not in CliRunner().invoke(app, ["train", "--cfg", *ONE_X]).output
