"""Checks that the parts of a model fit together."""

from mrbench.config.require import require
from mrbench.config.schema import BackboneConfig, ModelConfig


def check_model(model: ModelConfig) -> None:
    """Raises UserError, naming the key, at the first value that does not go with the others."""
    _backbone(model.backbone)
    _neck(model)
    require(bool(model.rpn.anchor_ratios), "model.rpn.anchor_ratios is empty", "Give at least one, as [1.0].")
    for key, length in (("pixel_mean", 3), ("pixel_std", 3)):
        require(len(getattr(model, key)) == length, f"model.{key} needs {length} numbers (R, G, B)")
    require(len(model.roi.box_weights) == 4, "model.roi.box_weights needs 4 numbers (x, y, w, h)")
    require(
        model.pooler.method != "separable" or model.pooler.sampling_ratio > 0,
        "model.pooler.method=separable needs a fixed number of points a bin",
        "Set model.pooler.sampling_ratio=2, or model.pooler.method=torchvision.",
    )
    require(
        model.pooler.aggregate != "max" or model.pooler.kind == "roi_pool" or model.pooler.sampling_ratio > 0,
        "model.pooler.aggregate=max needs a fixed number of points a bin",
        "Set model.pooler.sampling_ratio=2, as the paper's four points.",
    )
    _cascade(model)
    require(
        model.rpn.background_iou <= model.rpn.foreground_iou,
        "model.rpn.background_iou is above model.rpn.foreground_iou",
    )


def _cascade(model: ModelConfig) -> None:
    head, ious = model.box_head, model.box_head.cascade
    if not ious:
        return
    require(
        all(0 < a < b < 1 for a, b in zip(ious, [*ious[1:], 1 - 1e-9], strict=True)),
        f"model.box_head.cascade={ious} are not rising overlaps between 0 and 1",
        "Give one a stage, as [0.5,0.6,0.7], or [] for one box head.",
    )
    require(
        ious[0] == model.roi.foreground_iou,
        f"model.box_head.cascade begins with {ious[0]}, but regions are sampled by "
        f"model.roi.foreground_iou={model.roi.foreground_iou}",
        "The first stage trains on the sampled regions: set both to the same value.",
    )
    require(
        head.class_agnostic,
        "model.box_head.cascade needs boxes that do not depend on the class",
        "Set model.box_head.class_agnostic=true.",
    )
    require(head.kind == "fc", "model.box_head.cascade is for model.box_head.kind=fc only")


def _backbone(body: BackboneConfig) -> None:
    require(
        set(body.deformable) <= {3, 4, 5},
        f"model.backbone.deformable={body.deformable} has stages that cannot be deformable",
        "Give some of 3, 4 and 5, as [3, 4, 5].",
    )
    if body.kind != "resnet":
        plain = not (body.dilated_c5 or body.non_local or body.deformable) and body.groups == 1
        require(
            plain,
            f"model.backbone.kind={body.kind} has its own groups, and no dilated_c5, non_local or deformable",
            "Leave them out, or set model.backbone.kind=resnet.",
        )
        return
    bottlenecks = body.depth >= 50
    of_bottlenecks = body.groups > 1 or body.width_per_group != 64 or body.dilated_c5 or bool(body.deformable)
    require(
        bottlenecks or not of_bottlenecks,
        f"model.backbone.depth={body.depth} has no bottlenecks, which groups, dilated_c5 and deformable are for",
        "Set model.backbone.depth=50, or a deeper one.",
    )


def _neck(model: ModelConfig) -> None:
    neck, sizes, box, mask = model.neck, model.rpn.anchor_sizes, model.box_head, model.mask_head
    if neck.kind == "fpn":
        levels = 5 if neck.last_level == "pool" else 4
        require(
            len(sizes) == levels,
            f"model.rpn.anchor_sizes has {len(sizes)} sizes for {levels} pyramid levels",
            "Give one size for each of P2..P5, and one for P6 where model.neck.last_level=pool.",
        )
    require(bool(sizes), "model.rpn.anchor_sizes is empty", "Give at least one, as [32, 64, 128, 256, 512].")
    require(
        neck.kind == "c5" or not model.backbone.dilated_c5,
        f"model.backbone.dilated_c5=true does not go with model.neck.kind={neck.kind}",
        "Set model.neck.kind=c5.",
    )
    require(
        (neck.kind == "c4") == (box.kind == "res5"),
        f"model.box_head.kind={box.kind} does not go with model.neck.kind={neck.kind}",
        "With neck.kind=c4 the fifth stage is the head: model.box_head.kind=res5, and only there.",
    )
    if box.kind == "res5":
        require(
            not box.convs and not box.cascade,
            "model.box_head.kind=res5 has neither convs nor a cascade",
            "Set model.box_head.convs=0 and model.box_head.cascade=[].",
        )
    if not mask.enabled:
        return
    require(
        (box.kind == "res5") == (mask.kind == "res5"),
        f"model.mask_head.kind={mask.kind} does not go with model.box_head.kind={box.kind}",
        "The fifth stage is the head of both (kind=res5) or of neither.",
    )
    require(
        mask.kind != "res5" or model.pooler.box_size == model.pooler.mask_size,
        f"model.mask_head.kind=res5 shares the box head's regions, but model.pooler.box_size={model.pooler.box_size} "
        f"and mask_size={model.pooler.mask_size}",
        "Set both to 14.",
    )
