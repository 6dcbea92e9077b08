"""Checks that the schema's types alone cannot make: allowed words, ranges, and values that must fit together."""

from dataclasses import fields, is_dataclass
from typing import Any

from mrbench.config.schema import RunConfig
from mrbench.config.suggest import did_you_mean
from mrbench.errors import UserError


def validate(config: RunConfig) -> None:
    """Raises UserError, naming the key, at the first value that cannot be."""
    _validate_fields(config, "")
    _validate_together(config)


def _validate_fields(node: Any, prefix: str) -> None:
    for f in fields(node):
        key, value = f"{prefix}{f.name}", getattr(node, f.name)
        if is_dataclass(value):
            _validate_fields(value, f"{key}.")
            continue
        choices = f.metadata.get("choices")
        if choices and value not in choices:
            names = [str(c) for c in choices]
            raise UserError(f"{key}={value} is not one of {', '.join(names)}", did_you_mean(str(value), names))
        low, high = f.metadata.get("low"), f.metadata.get("high")
        if value is None:
            continue
        if low is not None and value < low:
            raise UserError(f"{key}={value} is too small", f"The least is {low}.")
        if high is not None and value > high:
            raise UserError(f"{key}={value} is too large", f"The most is {high}.")


def _require(holds: bool, what: str, hint: str = "") -> None:
    if not holds:
        raise UserError(what, hint)


def _range(key: str, pair: list[Any]) -> None:
    _require(
        len(pair) == 2 and 0 < pair[0] <= pair[1],
        f"{key}={pair} is not a range of two positive numbers, the smaller first",
    )


def _validate_together(config: RunConfig) -> None:
    model, schedule = config.model, config.schedule
    levels = 5 if model.neck.last_level == "pool" else 4
    _require(
        len(model.rpn.anchor_sizes) == levels,
        f"model.rpn.anchor_sizes has {len(model.rpn.anchor_sizes)} sizes for {levels} pyramid levels",
        "Give one size for each of P2..P5, and one for P6 where model.neck.last_level=pool.",
    )
    _require(bool(model.rpn.anchor_ratios), "model.rpn.anchor_ratios is empty", "Give at least one, as [1.0].")
    for key, length in (("pixel_mean", 3), ("pixel_std", 3)):
        _require(len(getattr(model, key)) == length, f"model.{key} needs {length} numbers (R, G, B)")
    _require(len(model.roi.box_weights) == 4, "model.roi.box_weights needs 4 numbers (x, y, w, h)")
    _require(
        model.pooler.method != "separable" or model.pooler.sampling_ratio > 0,
        "model.pooler.method=separable needs a fixed number of points a bin",
        "Set model.pooler.sampling_ratio=2, or model.pooler.method=torchvision.",
    )
    _require(
        model.pooler.aggregate != "max" or model.pooler.kind == "roi_pool" or model.pooler.sampling_ratio > 0,
        "model.pooler.aggregate=max needs a fixed number of points a bin",
        "Set model.pooler.sampling_ratio=2, as the paper's four points.",
    )
    _cascade(config)
    _require(
        model.rpn.background_iou <= model.rpn.foreground_iou,
        "model.rpn.background_iou is above model.rpn.foreground_iou",
    )
    _require(
        all(a < b for a, b in zip(schedule.milestones, schedule.milestones[1:], strict=False)),
        f"schedule.milestones={schedule.milestones} are not rising",
    )
    edges = config.augmentation.short_edge
    _require(
        bool(edges) and min(edges) > 0,
        f"augmentation.short_edge={edges} needs at least one size of 1 pixel or more",
        "Give a size, as [800].",
    )
    _range("augmentation.jitter", config.augmentation.jitter)
    _range("evaluation.areas", config.evaluation.areas)
    _range("data.shapes.instances", config.data.shapes.instances)
    _range("data.shapes.diameters", config.data.shapes.diameters)
    share = schedule.images_per_batch / config.runtime.devices
    _require(
        share.is_integer(),
        f"schedule.images_per_batch={schedule.images_per_batch} does not divide by "
        f"runtime.devices={config.runtime.devices}",
        "Every device takes the same number of images.",
    )
    _require(
        (share / config.runtime.accumulate).is_integer(),
        f"A device's {int(share)} images do not divide by runtime.accumulate={config.runtime.accumulate}",
    )


def _cascade(config: RunConfig) -> None:
    head, ious = config.model.box_head, config.model.box_head.cascade
    if not ious:
        return
    _require(
        all(0 < a < b < 1 for a, b in zip(ious, [*ious[1:], 1 - 1e-9], strict=True)),
        f"model.box_head.cascade={ious} are not rising overlaps between 0 and 1",
        "Give one a stage, as [0.5,0.6,0.7], or [] for one box head.",
    )
    _require(
        ious[0] == config.model.roi.foreground_iou,
        f"model.box_head.cascade begins with {ious[0]}, but regions are sampled by "
        f"model.roi.foreground_iou={config.model.roi.foreground_iou}",
        "The first stage trains on the sampled regions: set both to the same value.",
    )
    _require(
        head.class_agnostic,
        "model.box_head.cascade needs boxes that do not depend on the class",
        "Set model.box_head.class_agnostic=true.",
    )
    _require(head.kind == "fc", "model.box_head.cascade is for model.box_head.kind=fc only")
