"""The learning rate is that of the formula, and of Detectron2, at every milestone."""

import math

import pytest
import torch
from torch.optim.lr_scheduler import ChainedScheduler, LinearLR, MultiStepLR

from mrbench.config.schema import ScheduleConfig
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
