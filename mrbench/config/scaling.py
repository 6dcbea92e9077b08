"""The linear scaling rule: a schedule that is written for one batch, made to fit another."""

from dataclasses import replace

from mrbench.config.schema import RunConfig


def scaled(config: RunConfig) -> RunConfig:
    """What really runs where `schedule.scale_to_batch` names the batch that the schedule is written for.

    With k = images_per_batch / scale_to_batch the learning rate is multiplied by k, and the iterations of the run, of
    its warm-up, of its milestones and between its evaluations are divided by k and rounded (Goyal et al. 2017, section
    2.1; Detectron2, engine/defaults.py, `DefaultTrainer.auto_scale_workers`). As many images are seen, at the same
    points of the schedule. `scale_to_batch` is null in what is returned: its values are those of its batch. What is
    counted in updates otherwise (momentum, `optimizer.ema`) and checkpoints stay as they are.
    """
    written = config.schedule
    if written.scale_to_batch is None:
        return config
    images, base = written.images_per_batch, written.scale_to_batch

    def fewer(iterations: int) -> int:
        return round(iterations * base / images)

    def some(iterations: int) -> int:
        return max(fewer(iterations), min(iterations, 1))

    schedule = replace(
        written,
        scale_to_batch=None,
        iterations=some(written.iterations),
        milestones=[fewer(milestone) for milestone in written.milestones],
        warmup_iterations=fewer(written.warmup_iterations),
    )
    optimizer = replace(config.optimizer, lr=config.optimizer.lr * images / base)
    evaluation = replace(config.evaluation, period=some(config.evaluation.period))
    return replace(config, schedule=schedule, optimizer=optimizer, evaluation=evaluation)
