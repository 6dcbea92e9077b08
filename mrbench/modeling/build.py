"""From a model's configuration to the network."""

from mrbench.config.schema import BackboneConfig, MaskHeadConfig, ModelConfig
from mrbench.errors import UserError
from mrbench.modeling.box_head import BoxHead
from mrbench.modeling.cascade import CascadeHead
from mrbench.modeling.detector import MaskRCNN
from mrbench.modeling.fpn import FPN
from mrbench.modeling.keypoint_head import KeypointHead
from mrbench.modeling.mask_head import MaskBranch, MaskHead
from mrbench.modeling.mlp_mask_head import MlpMaskHead
from mrbench.modeling.norm import averages_over_samples
from mrbench.modeling.pooler import Pooler
from mrbench.modeling.pretrained import load_backbone
from mrbench.modeling.resnet import ResNet
from mrbench.modeling.rpn import RPN

HEAD_LEVELS = 4  # the heads see P2..P5


def build_detector(config: ModelConfig, num_classes: int) -> MaskRCNN:
    """The network with its initial weights, those of the body from `config.backbone.weights` where it is set.

    Raises UserError where parts of the configuration do not fit together or the weights do not fit the body.
    """
    body = build_backbone(config.backbone, config.group_size)
    neck = FPN(body.out_channels, config.neck.channels, config.neck.norm, config.group_size, config.neck.last_level)
    if len(config.rpn.anchor_sizes) != len(neck.strides):
        raise UserError(
            f"model.rpn.anchor_sizes has {len(config.rpn.anchor_sizes)} values, "
            f"but the pyramid has {len(neck.strides)} levels.",
            "Give one size a level; model.neck.last_level=pool adds a fifth level, none leaves it out.",
        )
    if config.pooler.method == "separable" and config.pooler.sampling_ratio < 1:
        raise UserError(
            "model.pooler.method=separable needs a fixed number of sampling points.",
            "Set model.pooler.sampling_ratio=2, or model.pooler.method=torchvision.",
        )
    channels, pooler, group_size = config.neck.channels, config.pooler, config.group_size
    strides = neck.strides[:HEAD_LEVELS]
    with_masks, mask_size = config.mask_head.enabled, pooler.mask_size
    with_keypoints = config.keypoint_head.enabled
    return MaskRCNN(
        backbone=body,
        neck=neck,
        rpn=RPN(config.rpn, channels, neck.strides),
        box_pooler=Pooler(pooler, pooler.box_size, strides),
        box_head=build_box_head(config, channels, num_classes),
        mask_pooler=Pooler(pooler, mask_size, strides) if with_masks else None,
        mask_head=build_mask_head(config.mask_head, channels, mask_size, num_classes, group_size)
        if with_masks
        else None,
        roi=config.roi,
        inference=config.inference,
        num_classes=num_classes,
        pixel_mean=list(config.pixel_mean),
        pixel_std=list(config.pixel_std),
        compact=averages_over_samples(config.box_head.norm) or averages_over_samples(config.mask_head.norm),
        keypoint_pooler=Pooler(pooler, pooler.keypoint_size, strides) if with_keypoints else None,
        keypoint_head=KeypointHead(config.keypoint_head, channels) if with_keypoints else None,
    )


def build_backbone(config: BackboneConfig, group_size: int | None) -> ResNet:
    body = ResNet(
        depth=config.depth,
        width=config.width,
        stem=config.stem,
        norm=config.norm,
        group_size=group_size,
        freeze_at=config.freeze_at,
        stride_in_1x1=config.stride_in_1x1,
    )
    if config.weights is not None:
        load_backbone(body, config)
    return body


def build_box_head(config: ModelConfig, in_channels: int, num_classes: int) -> BoxHead | CascadeHead:
    """The box branch, or one for each IoU of a cascade, on regions [R, in_channels, box_size, box_size]."""
    ious = config.box_head.cascade
    heads = [
        BoxHead(config.box_head, in_channels, config.pooler.box_size, num_classes, config.group_size)
        for _ in range(len(ious) or 1)
    ]
    return CascadeHead(heads, ious, config.roi) if ious else heads[0]


def build_mask_head(
    config: MaskHeadConfig, in_channels: int, size: int, num_classes: int, group_size: int | None
) -> MaskBranch:
    """The mask branch on regions [R, in_channels, size, size]."""
    if config.kind == "mlp":
        return MlpMaskHead(config, in_channels, size, num_classes)
    return MaskHead(config, in_channels, num_classes, group_size)
