"""Checks that the schema's types alone cannot make: allowed words, ranges, and values that must fit together."""

from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any

from mrbench.config.job_time import NOTATIONS, job_minutes
from mrbench.config.schema import TRACKERS, BackboneConfig, ModelConfig, RunConfig
from mrbench.config.suggest import did_you_mean, nearest
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
    _require(
        schedule.decay == "steps" or not schedule.milestones,
        f"schedule.milestones={schedule.milestones} has no effect with schedule.decay={schedule.decay}",
        "Set schedule.milestones=[], or schedule.decay=steps.",
    )
    reached = [milestone for milestone in schedule.milestones if milestone < schedule.iterations]
    _require(
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
    _backbone(model.backbone)
    _neck(model)
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
    _proposals(config)
    _job_time(config.launcher.time)
    _require(
        model.rpn.background_iou <= model.rpn.foreground_iou,
        "model.rpn.background_iou is above model.rpn.foreground_iou",
    )
    _require(
        all(a < b for a, b in zip(schedule.milestones, schedule.milestones[1:], strict=False)),
        f"schedule.milestones={schedule.milestones} are not rising",
    )
    _require(
        config.optimizer.clip_norm is None or config.optimizer.clip_value is None,
        "optimizer.clip_norm and optimizer.clip_value both clip the gradient",
        "Set one of them to null.",
    )
    _require(
        config.optimizer.ema < 1,
        "optimizer.ema=1 would average nothing: the weights would stay as they began",
        "Set 0.9998 or so, or 0 for none.",
    )
    _require(
        not (config.runtime.compile and config.runtime.activation_checkpointing),
        "runtime.compile does not go with runtime.activation_checkpointing",
        "torch.compile decides itself what it keeps and what it computes again: set one of them.",
    )
    for word in config.runtime.track:
        _require(
            word in TRACKERS,
            f"runtime.track={word} is not one of {', '.join(TRACKERS)}",
            did_you_mean(str(word), TRACKERS),
        )
    _augmentation(config)
    _range("evaluation.areas", config.evaluation.areas)
    edges = config.evaluation.tta.short_edge
    _require(
        all(edge > 0 for edge in edges) and len(set(edges)) == len(edges),
        f"evaluation.tta.short_edge={edges} needs sizes of 1 pixel or more, each once",
        "Give sizes, as [400,500,600], or [] for the size of plain inference.",
    )
    _require(
        not config.evaluation.tta.enabled or config.model.rpn.mode != "only",
        "evaluation.tta.enabled=true needs detections, but model.rpn.mode=only makes proposals",
        "Leave test-time augmentation out.",
    )
    _range("data.shapes.instances", config.data.shapes.instances)
    _range("data.shapes.diameters", config.data.shapes.diameters)
    _require(
        all(more.annotations and more.images for more in config.data.train_more),
        "data.train_more has an entry without annotations or images",
        "Give both, as data.train_more=[{annotations: annotations/more.json, images: more}].",
    )
    _require(
        not (config.data.train_more and config.data.train.proposals),
        "data.train.proposals does not go with data.train_more",
        "Proposals are told apart by the image's id, which several files may use again.",
    )
    _require(
        config.data.kind != "shapes" or not config.data.train_more,
        "data.train_more does not go with the embedded data set",
        "Set data=coco_folder.",
    )


def _share_of_batch(config: RunConfig) -> None:
    share = config.schedule.images_per_batch / config.runtime.devices
    _require(
        share.is_integer(),
        f"schedule.images_per_batch={config.schedule.images_per_batch} does not divide by "
        f"runtime.devices={config.runtime.devices}",
        "Every device takes the same number of images.",
    )
    _require(
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
    _require(
        tasks == 1 or runtime.devices == 1,
        f"launcher.nodes={launcher.nodes} with launcher.tasks_per_node={launcher.tasks_per_node} starts {tasks} "
        f"processes, and runtime.devices={runtime.devices} starts more in each",
        "Set runtime.devices=1: a task is a process, as torchrun's.",
    )
    _require(
        config.schedule.images_per_batch % tasks == 0,
        f"schedule.images_per_batch={config.schedule.images_per_batch} does not divide by the {tasks} processes of "
        "launcher.nodes and launcher.tasks_per_node",
        "Every process takes the same number of images.",
    )
    _require(
        launcher.time is None or 60 * job_minutes(launcher.time) > launcher.warning + 20,
        f"launcher.warning={launcher.warning} s leaves a job of launcher.time={launcher.time} no time to train",
        "Allow more time, or a shorter warning.",
    )


def _proposals(config: RunConfig) -> None:
    mode = config.model.rpn.mode
    _require(
        mode != "precomputed" or not config.data.train_more,
        "model.rpn.mode=precomputed reads the proposals of one file of annotations, but data.train_more names others",
        "Put the annotations into one file, or set data.train_more=[].",
    )
    for split in ("train", "val"):
        given = getattr(config.data, split).proposals is not None
        _require(
            given or mode != "precomputed",
            f"model.rpn.mode=precomputed needs the proposals of the {split} split",
            f"Set data.{split}.proposals=FILE; `mrbench proposals` writes it.",
        )
        _require(
            not given or mode == "precomputed",
            f"data.{split}.proposals is given, but model.rpn.mode={mode} makes its own",
            "Set model.rpn.mode=precomputed, or leave the file out.",
        )


def _augmentation(config: RunConfig) -> None:
    augmentation, model = config.augmentation, config.model
    edges, colours = augmentation.short_edge, augmentation.colour_jitter
    _require(
        bool(edges) and min(edges) > 0,
        f"augmentation.short_edge={edges} needs at least one size of 1 pixel or more",
        "Give a size, as [800].",
    )
    if augmentation.short_edge_sampling == "range":
        _range("augmentation.short_edge", edges)
    _range("augmentation.jitter", augmentation.jitter)
    _require(
        len(colours) == 4 and min(colours) >= 0 and colours[3] <= 0.5,
        f"augmentation.colour_jitter={colours} is not four strengths from 0, the last of them at most 0.5",
        "They are those of brightness, contrast, saturation and hue, as [0.4,0.4,0.4,0.1].",
    )
    if augmentation.copy_paste == 0:
        return
    _require(
        not model.keypoint_head.enabled,
        "augmentation.copy_paste does not know which keypoints the objects on top hide",
        "Set augmentation.copy_paste=0, or model.keypoint_head.enabled=false.",
    )
    _require(
        model.rpn.mode != "precomputed",
        "augmentation.copy_paste shows objects that precomputed proposals know nothing of",
        "Set augmentation.copy_paste=0, or another model.rpn.mode.",
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


def _backbone(body: BackboneConfig) -> None:
    _require(
        set(body.deformable) <= {3, 4, 5},
        f"model.backbone.deformable={body.deformable} has stages that cannot be deformable",
        "Give some of 3, 4 and 5, as [3, 4, 5].",
    )
    if body.kind != "resnet":
        plain = not (body.dilated_c5 or body.non_local or body.deformable) and body.groups == 1
        _require(
            plain,
            f"model.backbone.kind={body.kind} has its own groups, and no dilated_c5, non_local or deformable",
            "Leave them out, or set model.backbone.kind=resnet.",
        )
        return
    bottlenecks = body.depth >= 50
    of_bottlenecks = body.groups > 1 or body.width_per_group != 64 or body.dilated_c5 or bool(body.deformable)
    _require(
        bottlenecks or not of_bottlenecks,
        f"model.backbone.depth={body.depth} has no bottlenecks, which groups, dilated_c5 and deformable are for",
        "Set model.backbone.depth=50, or a deeper one.",
    )


def _neck(model: ModelConfig) -> None:
    neck, sizes, box, mask = model.neck, model.rpn.anchor_sizes, model.box_head, model.mask_head
    if neck.kind == "fpn":
        levels = 5 if neck.last_level == "pool" else 4
        _require(
            len(sizes) == levels,
            f"model.rpn.anchor_sizes has {len(sizes)} sizes for {levels} pyramid levels",
            "Give one size for each of P2..P5, and one for P6 where model.neck.last_level=pool.",
        )
    _require(bool(sizes), "model.rpn.anchor_sizes is empty", "Give at least one, as [32, 64, 128, 256, 512].")
    _require(
        neck.kind == "c5" or not model.backbone.dilated_c5,
        f"model.backbone.dilated_c5=true does not go with model.neck.kind={neck.kind}",
        "Set model.neck.kind=c5.",
    )
    _require(
        (neck.kind == "c4") == (box.kind == "res5"),
        f"model.box_head.kind={box.kind} does not go with model.neck.kind={neck.kind}",
        "With neck.kind=c4 the fifth stage is the head: model.box_head.kind=res5, and only there.",
    )
    if box.kind == "res5":
        _require(
            not box.convs and not box.cascade,
            "model.box_head.kind=res5 has neither convs nor a cascade",
            "Set model.box_head.convs=0 and model.box_head.cascade=[].",
        )
    if not mask.enabled:
        return
    _require(
        (box.kind == "res5") == (mask.kind == "res5"),
        f"model.mask_head.kind={mask.kind} does not go with model.box_head.kind={box.kind}",
        "The fifth stage is the head of both (kind=res5) or of neither.",
    )
    _require(
        mask.kind != "res5" or model.pooler.box_size == model.pooler.mask_size,
        f"model.mask_head.kind=res5 shares the box head's regions, but model.pooler.box_size={model.pooler.box_size} "
        f"and mask_size={model.pooler.mask_size}",
        "Set both to 14.",
    )
