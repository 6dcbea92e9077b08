"""From a model's configuration to the network."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from mrbench.config.schema import BackboneConfig, MaskHeadConfig, ModelConfig
from mrbench.errors import UserError
from mrbench.modeling.body import Body
from mrbench.modeling.box_head import BoxHead
from mrbench.modeling.cascade import CascadeHead
from mrbench.modeling.detector import MaskRCNN
from mrbench.modeling.folding import fold_frozen_norms
from mrbench.modeling.fpn import FPN, AveragingFPN
from mrbench.modeling.keypoint_head import KeypointHead
from mrbench.modeling.mask_head import MaskBranch, MaskHead
from mrbench.modeling.mlp_mask_head import MlpMaskHead
from mrbench.modeling.norm import averages_over_samples
from mrbench.modeling.pooler import Pooler
from mrbench.modeling.pretrained import load_backbone
from mrbench.modeling.proposal_network import ProposalNetwork
from mrbench.modeling.regnet import RegNet
from mrbench.modeling.res5 import AveragedBoxHead, Res5MaskRCNN
from mrbench.modeling.resnet import ResNet
from mrbench.modeling.rpn import RPN
from mrbench.modeling.single_map import SingleMap

HEAD_LEVELS = 4  # the heads see P2..P5


Network = MaskRCNN | ProposalNetwork
Tell = Callable[[str], object]  # takes a line that a person should see


def _silent(line: str) -> None:
    pass


def build_network(config: ModelConfig, num_classes: int, tell: Tell = _silent) -> Network:
    """What is trained: a detector, or with `rpn.mode` only a network that proposes. Raises as `build_detector`."""
    if config.rpn.mode == "only":
        return build_proposal_network(config, tell)
    return build_detector(config, num_classes, tell)


def without_initial_weights(config: ModelConfig) -> ModelConfig:
    """The same network for weights that are all to come from a file: those its body began with are not looked for."""
    return replace(config, backbone=replace(config.backbone, weights=None))


def build_proposal_network(config: ModelConfig, tell: Tell = _silent) -> ProposalNetwork:
    """Body, neck and RPN with their initial weights. Raises as `build_detector`."""
    body = build_initial_body(config, tell)
    if config.neck.kind == "c4":
        body.take_last_stage()  # which is the heads'
    neck = build_neck(config, body)
    network = ProposalNetwork(body, neck, build_rpn(config, neck), list(config.pixel_mean), list(config.pixel_std))
    fold_frozen_norms(network)
    return network


def build_rpn(config: ModelConfig, neck: FPN | SingleMap) -> RPN:
    """The RPN on what `neck` puts out. Raises UserError where its anchors do not fit the levels."""
    if len(neck.strides) > 1 and len(config.rpn.anchor_sizes) != len(neck.strides):
        raise UserError(
            f"model.rpn.anchor_sizes has {len(config.rpn.anchor_sizes)} values, "
            f"but the pyramid has {len(neck.strides)} levels.",
            "Give one size a level; model.neck.last_level=pool adds a fifth level, none leaves it out.",
        )
    return RPN(config.rpn, neck.channels, neck.strides)


def build_detector(config: ModelConfig, num_classes: int, tell: Tell = _silent) -> MaskRCNN:
    """The network with its initial weights, those of the body from `config.backbone.weights` where it is set, about
    which `tell` is told.

    With `rpn.mode` precomputed it has no RPN. Raises UserError where parts of the configuration do not fit together,
    the weights do not fit the body, or `rpn.mode` only asks for a network without heads.
    """
    if config.rpn.mode == "only":
        raise UserError(
            "model.rpn.mode=only makes a network that proposes regions and detects nothing",
            "`mrbench proposals` writes what it proposes; for detections set model.rpn.mode=joint.",
        )
    body = build_initial_body(config, tell)
    res5 = body.take_last_stage() if config.neck.kind == "c4" else None
    neck = build_neck(config, body)
    if config.pooler.method == "separable" and config.pooler.sampling_ratio < 1:
        raise UserError(
            "model.pooler.method=separable needs a fixed number of sampling points.",
            "Set model.pooler.sampling_ratio=2, or model.pooler.method=torchvision.",
        )
    channels, pooler, group_size = neck.channels, config.pooler, config.group_size
    strides = neck.strides[:HEAD_LEVELS]
    with_masks, mask_size = config.mask_head.enabled, pooler.mask_size
    with_keypoints = config.keypoint_head.enabled
    # the channels of what the box and mask branches stand on
    make, regions = (partial(Res5MaskRCNN, res5[0]), res5[1]) if res5 else (MaskRCNN, channels)
    norms = [config.box_head.norm, config.mask_head.norm] + ([config.backbone.norm] if res5 else [])
    network = make(
        backbone=body,
        neck=neck,
        rpn=None if config.rpn.mode == "precomputed" else build_rpn(config, neck),
        box_pooler=Pooler(pooler, pooler.box_size, strides),
        box_head=build_box_head(config, regions, num_classes),
        mask_pooler=Pooler(pooler, mask_size, strides) if with_masks else None,
        mask_head=build_mask_head(config.mask_head, regions, mask_size, num_classes, group_size)
        if with_masks
        else None,
        roi=config.roi,
        inference=config.inference,
        num_classes=num_classes,
        pixel_mean=list(config.pixel_mean),
        pixel_std=list(config.pixel_std),
        compact=any(averages_over_samples(norm) for norm in norms),
        keypoint_pooler=Pooler(pooler, pooler.keypoint_size, strides) if with_keypoints else None,
        keypoint_head=KeypointHead(config.keypoint_head, channels) if with_keypoints else None,
    )
    fold_frozen_norms(network)
    return network


def build_backbone(config: BackboneConfig, group_size: int | None) -> Body:
    """The body with all of its stages and random weights."""
    body: Body
    if config.kind == "resnet":
        body = ResNet(
            depth=config.depth,
            width=config.width,
            stem=config.stem,
            norm=config.norm,
            group_size=group_size,
            freeze_at=config.freeze_at,
            stride_in_1x1=config.stride_in_1x1,
            groups=config.groups,
            width_per_group=config.width_per_group,
            dilated_c5=config.dilated_c5,
            deformable=config.deformable,
            non_local=config.non_local,
        )
    else:
        body = RegNet(config.kind, config.width, config.norm, group_size, config.freeze_at)
    return body


def build_initial_body(config: ModelConfig, tell: Tell) -> Body:
    """The body with all of its stages, filled from `config.backbone.weights` where that is set."""
    body = build_backbone(config.backbone, config.group_size)
    if config.backbone.weights is not None:
        for line in load_backbone(body, config).lines():
            tell(line)
    return body


def build_neck(config: ModelConfig, body: Body) -> FPN | SingleMap:
    """What stands on the stages that `body` has, for the RPN and the poolers to see."""
    neck = config.neck
    if neck.kind != "fpn":
        return SingleMap(body.out_channels, body.strides)
    kind = AveragingFPN if neck.fuse == "avg" else FPN
    return kind(body.out_channels, neck.channels, neck.norm, config.group_size, neck.last_level)


def build_box_head(config: ModelConfig, in_channels: int, num_classes: int) -> BoxHead | CascadeHead:
    """The box branch, or one for each IoU of a cascade, on regions [R, in_channels, box_size, box_size]."""
    ious = config.box_head.cascade
    if config.box_head.kind == "res5":
        return AveragedBoxHead(config.box_head, in_channels, num_classes, config.group_size)
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
