"""The learning rate as a pure function of the iteration: linear warm-up, then steps or a cosine."""

import math
from bisect import bisect_right

from mrbench.config.schema_training import ScheduleConfig


def warmup_factor(schedule: ScheduleConfig, iteration: int) -> float:
    """Linear from `warmup_factor` at iteration 0 to 1 at `warmup_iterations` (Goyal et al. 2017, section 2.2)."""
    if iteration >= schedule.warmup_iterations:
        return 1.0
    alpha = iteration / schedule.warmup_iterations
    return schedule.warmup_factor * (1.0 - alpha) + alpha


def decay_factor(schedule: ScheduleConfig, iteration: int) -> float:
    """The schedule without its warm-up.

    steps: `gamma` to the power of the milestones reached; the iteration of a milestone has the lower rate already.
    cosine: half a cosine over the whole run, from 1 at iteration 0 to 0 at `iterations` (Loshchilov & Hutter 2017).
    """
    if schedule.decay == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * min(iteration / max(schedule.iterations, 1), 1.0)))
    return schedule.gamma ** bisect_right(schedule.milestones, iteration)


def factor(schedule: ScheduleConfig, iteration: int) -> float:
    """What the base learning rate is multiplied by in the update number `iteration` (counted from 0).

    Warm-up times decay, as Detectron2's `WarmupMultiStepLR` and `WarmupCosineLR` (solver/lr_scheduler.py).
    """
    return warmup_factor(schedule, iteration) * decay_factor(schedule, iteration)
