"""Whether torchvision has a network of an architecture: asked before anything is built, so without torch."""

from mrbench.config.schema import ModelConfig
from mrbench.errors import UserError

DEPTHS = (18, 34, 50, 101, 152)
NORMS = ("frozen_bn", "bn")


def check_peer(config: ModelConfig) -> None:
    """Raises UserError, naming the keys, where torchvision's Mask R-CNN has no such architecture."""
    body, head, mask = config.backbone, config.box_head, config.mask_head
    wanted: dict[str, bool] = {
        "backbone.kind=resnet": body.kind == "resnet",
        f"backbone.depth={'|'.join(map(str, DEPTHS))}": body.depth in DEPTHS,
        "backbone.width=64": body.width == 64,
        "backbone.stem=7x7": body.stem == "7x7",
        f"backbone.norm={'|'.join(NORMS)}": body.norm in NORMS,
        "backbone.stride_in_1x1=false": not body.stride_in_1x1,
        "backbone without dilation, deformable or non-local parts": not (
            body.dilated_c5 or body.deformable or body.non_local
        ),
        "neck.kind=fpn": config.neck.kind == "fpn",
        "neck.fuse=sum": config.neck.fuse == "sum",
        "neck.norm=none": config.neck.norm == "none",
        "rpn.mode=joint": config.rpn.mode == "joint",
        "rpn.border=null": config.rpn.border is None,
        "pooler.kind=roi_align": config.pooler.kind == "roi_align" and config.pooler.aggregate == "avg",
        "box_head.kind=fc": head.kind == "fc",
        "box_head.convs=0": head.convs == 0,
        "box_head.fcs=2": head.fcs == 2,
        "box_head.cascade=[]": not head.cascade,
        "box_head.class_agnostic=false": not head.class_agnostic,
        "mask_head.enabled=true": mask.enabled,
        "mask_head.kind=fcn": mask.kind == "fcn",
        "mask_head.loss=sigmoid": mask.loss == "sigmoid",
        "mask_head.norm=none": mask.norm == "none" and head.norm == "none",
        "mask_head.class_agnostic=false": not mask.class_agnostic,
        "keypoint_head.enabled=false": not config.keypoint_head.enabled,
    }
    missing = [f"model.{name}" for name, fits in wanted.items() if not fits]
    if missing:
        raise UserError(
            f"torchvision's Mask R-CNN is not of this architecture: it would need {', '.join(missing)}",
            "Give --peer with model=mask_rcnn_r50_fpn, or one like it.",
        )
