"""The learning rate is that of the formula, and of Detectron2, at every milestone."""

import math

import pytest
import torch
from torch.optim.lr_scheduler import ChainedScheduler, LinearLR, MultiStepLR

from mrbench.config.composer import compose
from mrbench.config.schema_training import ScheduleConfig
from mrbench.engine.schedule import factor

ONE_X = ScheduleConfig(iterations=90000, milestones=[60000, 80000], warmup_iterations=1000, warmup_factor=0.001)
LSJ = ScheduleConfig(
    images_per_batch=64,
    iterations=184375,
    milestones=[163889, 177546],
    warmup_iterations=500,
    warmup_factor=0.067,
)


@pytest.mark.parametrize(
    "schedule, iteration, expected",
    [
        # Detectron2's WarmupMultiStepLR, 1x schedule, by hand: 0.001 (1 - t/1000) + t/1000, then 0.1 a milestone.
        (ONE_X, 0, 0.001),
        (ONE_X, 500, 0.5005),
        (ONE_X, 999, 0.999001),
        (ONE_X, 1000, 1.0),
        (ONE_X, 59999, 1.0),
        (ONE_X, 60000, 0.1),
        (ONE_X, 79999, 0.1),
        (ONE_X, 80000, 0.01),
        (ONE_X, 89999, 0.01),
        # new_baselines/mask_rcnn_R_50_FPN_100ep_LSJ
        (LSJ, 0, 0.067),
        (LSJ, 250, 0.5335),
        (LSJ, 163888, 1.0),
        (LSJ, 163889, 0.1),
        (LSJ, 177546, 0.01),
    ],
)
def test_steps_have_detectron2s_values(schedule: ScheduleConfig, iteration: int, expected: float) -> None:
    assert factor(schedule, iteration) == pytest.approx(expected, rel=1e-12)


def test_steps_are_torchs_linear_warmup_times_multistep() -> None:
    schedule = ScheduleConfig(
        iterations=60, milestones=[5, 30, 45], gamma=0.3, warmup_iterations=10, warmup_factor=0.01
    )
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    warmup = LinearLR(optimizer, start_factor=0.01, total_iters=10)
    reference = ChainedScheduler([warmup, MultiStepLR(optimizer, [5, 30, 45], gamma=0.3)])
    for iteration in range(60):
        assert factor(schedule, iteration) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        reference.step()


def test_cosine_is_half_a_cosine_times_the_warmup() -> None:
    schedule = ScheduleConfig(iterations=900, decay="cosine", warmup_iterations=90, warmup_factor=0.001)
    assert factor(schedule, 0) == pytest.approx(0.001)
    assert factor(schedule, 45) == pytest.approx(0.5005 * (1 + math.cos(math.pi / 20)) / 2)
    assert factor(schedule, 300) == pytest.approx(0.75)
    assert factor(schedule, 450) == pytest.approx(0.5)
    assert factor(schedule, 600) == pytest.approx(0.25)
    assert factor(schedule, 900) == pytest.approx(0.0)


def test_no_warmup_starts_at_the_full_rate() -> None:
    assert factor(ScheduleConfig(warmup_iterations=0), 0) == 1.0


def published(*overrides: str) -> ScheduleConfig:
    return compose(overrides).schedule


@pytest.mark.parametrize(
    "name, warmup_iterations, warmup_factor, milestones, iterations",
    [
        ("1x", 1000, 0.001, [60000, 80000], 90000),
        ("3x", 1000, 0.001, [210000, 250000], 270000),
        ("lsj_100ep", 500, 0.067, [163889, 177546], 184375),
        ("lsj_400ep", 500, 0.067, [655556, 710184], 737500),
        ("paper_160k", 500, 1 / 3, [120000], 160000),
    ],
)
def test_published_schedules_have_their_formulas_values_around_every_milestone(
    name: str, warmup_iterations: int, warmup_factor: float, milestones: list[int], iterations: int
) -> None:
    """Detectron2's WarmupMultiStepLR (solver/lr_scheduler.py), and the same as its WarmupParamScheduler over fvcore's
    MultiStepParamScheduler, since no milestone lies in the warm-up: linear from the factor to 1, a tenth from each
    milestone on, the iteration of the milestone included."""
    schedule = published(f"schedule={name}")
    assert schedule.iterations == iterations
    for iteration in (0, 1, warmup_iterations // 2, warmup_iterations - 1):
        alpha = iteration / warmup_iterations
        assert factor(schedule, iteration) == pytest.approx(warmup_factor * (1 - alpha) + alpha, rel=1e-12)
    assert factor(schedule, warmup_iterations) == 1.0
    for passed, milestone in enumerate(milestones):
        assert factor(schedule, milestone - 1) == pytest.approx(0.1**passed, rel=1e-12)
        assert factor(schedule, milestone) == pytest.approx(0.1 ** (passed + 1), rel=1e-12)
    assert factor(schedule, iterations - 1) == pytest.approx(0.1 ** len(milestones), rel=1e-12)


def test_the_cosine_of_the_default_run_has_its_formulas_values() -> None:
    """Detectron2's WarmupCosineLR: the half-cosine over the whole run times the warm-up."""
    schedule = published()
    assert (schedule.decay, schedule.iterations, schedule.warmup_iterations) == ("cosine", 900, 90)
    for iteration in (0, 30, 89, 90, 91, 450, 899):
        alpha = min(iteration / 90, 1.0)
        warmup = 0.001 * (1 - alpha) + alpha
        expected = warmup * 0.5 * (1 + math.cos(math.pi * iteration / 900))
        assert factor(schedule, iteration) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("images", [8, 32, 64])
def test_a_scaled_schedule_has_the_written_rate_after_as_many_images(images: int) -> None:
    written = published("recipe=mask_rcnn_r50_fpn_1x")
    fitted = published(
        "recipe=mask_rcnn_r50_fpn_1x", f"schedule.images_per_batch={images}", "schedule.scale_to_batch=16"
    )
    for seen in range(0, written.iterations * 16, 160000):
        assert factor(fitted, seen // images) == pytest.approx(factor(written, seen // 16), rel=1e-12)
