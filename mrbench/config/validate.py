"""Checks that the schema's types alone cannot make: allowed words, ranges, and values that must fit together."""

from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any

from mrbench.config.job_time import NOTATIONS, job_minutes
from mrbench.config.require import require, require_range
from mrbench.config.schema import RunConfig
from mrbench.config.schema_execution import TRACKERS
from mrbench.config.suggest import did_you_mean, nearest
from mrbench.config.validate_model import check_model
from mrbench.errors import UserError


def validate(config: RunConfig) -> None:
    """Raises UserError, naming the key, at the first value that cannot be."""
    validate_for_testing(config)
    _share_of_batch(config)
    if config.launcher.kind == "slurm":
        _processes(config)


def validate_asked(config: RunConfig) -> None:
    """Raises UserError for values that would change nothing: asked where a run is composed. One that is on disk may
    have them, and is read all the same."""
    schedule = config.schedule
    require(
        schedule.decay == "steps" or not schedule.milestones,
        f"schedule.milestones={schedule.milestones} has no effect with schedule.decay={schedule.decay}",
        "Set schedule.milestones=[], or schedule.decay=steps.",
    )
    reached = [milestone for milestone in schedule.milestones if milestone < schedule.iterations]
    require(
        schedule.iterations == 0 or reached == schedule.milestones,
        f"schedule.milestones={schedule.milestones} has iterations that schedule.iterations={schedule.iterations} "
        "does not reach",
        f"Set schedule.milestones={str(reached).replace(' ', '')}, or others below schedule.iterations.",
    )


def validate_for_testing(config: RunConfig) -> None:
    """The same, but for how processes share the batch that a model is trained on: they may test it all the same."""
    _validate_fields(config, "")
    _validate_together(config)


@cache
def _checks(kind: type) -> tuple[list[tuple[str, tuple[Any, ...], Any, Any]], list[str]]:
    """What the schema asks of a dataclass: (name, choices, low, high) of its limited fields, and its parts' names."""
    limited, parts = [], []
    for f, value in ((f, getattr(kind(), f.name)) for f in fields(kind)):
        if is_dataclass(value):
            parts.append(f.name)
        elif f.metadata:
            of = f.metadata
            limited.append((f.name, of.get("choices", ()), of.get("low"), of.get("high")))
    return limited, parts


def _validate_fields(node: Any, prefix: str) -> None:
    kind: Any = type(node)
    limited, parts = _checks(kind)
    for name, choices, low, high in limited:
        value = getattr(node, name)
        if choices and value not in choices:
            words = [str(c) for c in choices]
            what = f"{prefix}{name}={value} is not one of {', '.join(words)}"
            raise UserError(what, did_you_mean(str(value), nearest(str(value), words)))  # all of them stand there
        if value is None:
            continue
        if low is not None and value < low:
            raise UserError(f"{prefix}{name}={value} is too small", f"The least is {low}.")
        if high is not None and value > high:
            raise UserError(f"{prefix}{name}={value} is too large", f"The most is {high}.")
    for name in parts:
        _validate_fields(getattr(node, name), f"{prefix}{name}.")


def _validate_together(config: RunConfig) -> None:
    schedule = config.schedule
    check_model(config.model)
    _proposals(config)
    _job_time(config.launcher.time)
    require(
        all(a < b for a, b in zip(schedule.milestones, schedule.milestones[1:], strict=False)),
        f"schedule.milestones={schedule.milestones} are not rising",
    )
    require(
        config.optimizer.clip_norm is None or config.optimizer.clip_value is None,
        "optimizer.clip_norm and optimizer.clip_value both clip the gradient",
        "Set one of them to null.",
    )
    require(
        config.optimizer.ema < 1,
        "optimizer.ema=1 would average nothing: the weights would stay as they began",
        "Set 0.9998 or so, or 0 for none.",
    )
    require(
        not (config.runtime.compile and config.runtime.activation_checkpointing),
        "runtime.compile does not go with runtime.activation_checkpointing",
        "torch.compile decides itself what it keeps and what it computes again: set one of them.",
    )
    for word in config.runtime.track:
        require(
            word in TRACKERS,
            f"runtime.track={word} is not one of {', '.join(TRACKERS)}",
            did_you_mean(str(word), TRACKERS),
        )
    _augmentation(config)
    require_range("evaluation.areas", config.evaluation.areas)
    edges = config.evaluation.tta.short_edge
    require(
        all(edge > 0 for edge in edges) and len(set(edges)) == len(edges),
        f"evaluation.tta.short_edge={edges} needs sizes of 1 pixel or more, each once",
        "Give sizes, as [400,500,600], or [] for the size of plain inference.",
    )
    require(
        not config.evaluation.tta.enabled or config.model.rpn.mode != "only",
        "evaluation.tta.enabled=true needs detections, but model.rpn.mode=only makes proposals",
        "Leave test-time augmentation out.",
    )
    require_range("data.shapes.instances", config.data.shapes.instances)
    require_range("data.shapes.diameters", config.data.shapes.diameters)
    require(
        all(more.annotations and more.images for more in config.data.train_more),
        "data.train_more has an entry without annotations or images",
        "Give both, as data.train_more=[{annotations: annotations/more.json, images: more}].",
    )
    require(
        not (config.data.train_more and config.data.train.proposals),
        "data.train.proposals does not go with data.train_more",
        "Proposals are told apart by the image's id, which several files may use again.",
    )
    require(
        config.data.kind != "shapes" or not config.data.train_more,
        "data.train_more does not go with the embedded data set",
        "Set data=coco_folder.",
    )


def _share_of_batch(config: RunConfig) -> None:
    share = config.schedule.images_per_batch / config.runtime.devices
    require(
        share.is_integer(),
        f"schedule.images_per_batch={config.schedule.images_per_batch} does not divide by "
        f"runtime.devices={config.runtime.devices}",
        "Every device takes the same number of images.",
    )
    require(
        (share / config.runtime.accumulate).is_integer(),
        f"A device's {int(share)} images do not divide by runtime.accumulate={config.runtime.accumulate}",
    )


def _job_time(text: str | None) -> None:
    try:
        if text is not None:
            job_minutes(text)
    except ValueError:
        raise UserError(f"launcher.time={text} is no time that a job may take", f"Write {NOTATIONS}.") from None


def _processes(config: RunConfig) -> None:
    launcher, runtime = config.launcher, config.runtime
    tasks = launcher.nodes * launcher.tasks_per_node
    require(
        tasks == 1 or runtime.devices == 1,
        f"launcher.nodes={launcher.nodes} with launcher.tasks_per_node={launcher.tasks_per_node} starts {tasks} "
        f"processes, and runtime.devices={runtime.devices} starts more in each",
        "Set runtime.devices=1: a task is a process, as torchrun's.",
    )
    require(
        config.schedule.images_per_batch % tasks == 0,
        f"schedule.images_per_batch={config.schedule.images_per_batch} does not divide by the {tasks} processes of "
        "launcher.nodes and launcher.tasks_per_node",
        "Every process takes the same number of images.",
    )
    require(
        launcher.time is None or 60 * job_minutes(launcher.time) > launcher.warning + 20,
        f"launcher.warning={launcher.warning} s leaves a job of launcher.time={launcher.time} no time to train",
        "Allow more time, or a shorter warning.",
    )


def _proposals(config: RunConfig) -> None:
    mode = config.model.rpn.mode
    require(
        mode != "precomputed" or not config.data.train_more,
        "model.rpn.mode=precomputed reads the proposals of one file of annotations, but data.train_more names others",
        "Put the annotations into one file, or set data.train_more=[].",
    )
    for split in ("train", "val"):
        given = getattr(config.data, split).proposals is not None
        require(
            given or mode != "precomputed",
            f"model.rpn.mode=precomputed needs the proposals of the {split} split",
            f"Set data.{split}.proposals=FILE; `mrbench proposals` writes it.",
        )
        require(
            not given or mode == "precomputed",
            f"data.{split}.proposals is given, but model.rpn.mode={mode} makes its own",
            "Set model.rpn.mode=precomputed, or leave the file out.",
        )


def _augmentation(config: RunConfig) -> None:
    augmentation, model = config.augmentation, config.model
    edges, colours = augmentation.short_edge, augmentation.colour_jitter
    require(
        bool(edges) and min(edges) > 0,
        f"augmentation.short_edge={edges} needs at least one size of 1 pixel or more",
        "Give a size, as [800].",
    )
    if augmentation.short_edge_sampling == "range":
        require_range("augmentation.short_edge", edges)
    require_range("augmentation.jitter", augmentation.jitter)
    require(
        len(colours) == 4 and min(colours) >= 0 and colours[3] <= 0.5,
        f"augmentation.colour_jitter={colours} is not four strengths from 0, the last of them at most 0.5",
        "They are those of brightness, contrast, saturation and hue, as [0.4,0.4,0.4,0.1].",
    )
    if augmentation.copy_paste == 0:
        return
    require(
        not model.keypoint_head.enabled,
        "augmentation.copy_paste does not know which keypoints the objects on top hide",
        "Set augmentation.copy_paste=0, or model.keypoint_head.enabled=false.",
    )
    require(
        model.rpn.mode != "precomputed",
        "augmentation.copy_paste shows objects that precomputed proposals know nothing of",
        "Set augmentation.copy_paste=0, or another model.rpn.mode.",
    )
