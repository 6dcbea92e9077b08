"""Detectron's (Caffe2's) blobs: names with underscores, norms fused into a scale and a shift, background first.

Names and class order: Detectron2, checkpoint/c2_model_loading.py, `convert_basic_c2_names` and
`convert_c2_detectron_names`.
"""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from mrbench.weights.layout import IMAGENET_MEAN, IMAGENET_STD, Layout, Settings, Translated, blue_first
from mrbench.weights.names import Names

# Block counts name the pyramid's inputs ("res4_22_sum" in a ResNet-101), hence the free number in them.
_LATERAL, _OUTPUT = "fpn_inner_res{s}_{b}_sum", "fpn_res{s}_{b}_sum"


def _fpn(theirs: str, ours: str) -> list[tuple[str, str]]:
    return [(theirs, f"{ours}.{{s-2}}.0"), (f"{theirs}_gn", f"{ours}.{{s-2}}.1")]


def _blocks() -> list[tuple[str, str]]:
    rows = []
    for number, letter in enumerate("abc", 1):
        theirs, ours = f"res{{s}}_{{b}}_branch2{letter}", "backbone.layer{s-1}.{b}"
        rows.append((theirs, f"{ours}.conv{number}"))
        rows += [(f"{theirs}_{norm}", f"{ours}.bn{number}") for norm in ("bn", "gn")]
    theirs, ours = "res{s}_{b}_branch1", "backbone.layer{s-1}.{b}.downsample"
    return [*rows, (theirs, f"{ours}.0"), (f"{theirs}_bn", f"{ours}.1"), (f"{theirs}_gn", f"{ours}.1")]


NAMES = Names(
    [
        ("conv1", "backbone.conv1"),
        ("res_conv1_bn", "backbone.bn1"),
        ("conv1_gn", "backbone.bn1"),
        *_blocks(),
        *_fpn(f"{_LATERAL}_lateral", "neck.inner_blocks"),
        *_fpn(_LATERAL, "neck.inner_blocks"),  # the topmost one is not called lateral
        *_fpn(_OUTPUT, "neck.layer_blocks"),
        ("conv_rpn_fpn2", "rpn.head.convs.0"),
        ("rpn_cls_logits_fpn2", "rpn.head.objectness"),
        ("rpn_bbox_pred_fpn2", "rpn.head.deltas"),
        ("conv_rpn", "rpn.head.convs.0"),
        ("rpn_cls_logits", "rpn.head.objectness"),
        ("rpn_bbox_pred", "rpn.head.deltas"),
        ("head_conv{n}", "box_head.convs.{3n-3}"),
        ("head_conv{n}_gn", "box_head.convs.{3n-2}"),
        ("fc{n}", "box_head.fcs.{n-6}"),
        ("cls_score", "box_head.classes"),
        ("bbox_pred", "box_head.deltas"),
        ("_[mask]_fcn{n}", "mask_head.convs.{3n-3}"),
        ("_[mask]_fcn{n}_gn", "mask_head.convs.{3n-2}"),
        ("conv5_mask", "mask_head.upsample"),
        ("mask_fcn_logits", "mask_head.predictor"),
        ("conv_fcn{n}", "keypoint_head.convs.{3n-3}"),
        ("kps_score_lowres", "keypoint_head.predictor"),
    ],
    [
        ("_w", ".weight"),
        ("_b", ".bias"),
        ("_s", ".weight"),
        ("_rm", ".running_mean"),
        ("_riv", ".running_var"),
    ],
)

# The classifier of a file that a body begins with.
_CLASSIFIER = ("pred_", "fc1000_")


# The keypoint branch's bilinear upsampling, a constant.
_CONSTANTS = ("kps_score_w", "kps_score_b")

EPS = 1e-5  # what our frozen norms add to the variance


def _recognises(names: Collection[str]) -> bool:
    return any(name.startswith(("res2_0_branch2a", "conv_rpn", "rpn_cls_logits")) for name in names)


def _translate(state: Mapping[str, Tensor]) -> Translated:
    found = Translated()
    for name, tensor in state.items():
        if name.endswith("_momentum") or name in _CONSTANTS or name.startswith(_CLASSIFIER):
            continue
        place = NAMES.ours(name)
        if place is None:
            found.unplaced.append(name)
            continue
        found.tensors[place] = tensor
        if name.endswith("_bn_s") and name.replace("_bn_s", "_bn_rm") not in state:
            # scale and shift alone: as of a norm whose mean is 0 and whose deviation comes out as 1
            layer = place.removesuffix(".weight")
            found.tensors[f"{layer}.running_mean"] = torch.zeros_like(tensor)
            found.tensors[f"{layer}.running_var"] = torch.full_like(tensor, 1 - EPS)
    if "rpn_cls_logits_w" in state:
        _sizes_first(found.tensors)
    fifth_stage_to_heads(found.tensors)
    background_last(found.tensors, box=True, mask=True)
    blue_first(found.tensors)
    return found


def _sizes_first(tensors: dict[str, Tensor]) -> None:
    """On a single map an anchor has three ratios and each of these all sizes (modeling/generate_anchors.py); here it
    is the other way round."""
    ratios = 3
    for name in list(tensors):
        if name.startswith(("rpn.head.objectness.", "rpn.head.deltas.")):
            numbers = 4 if "deltas" in name else 1
            value = tensors[name]
            rest = value.shape[1:]
            tensors[name] = value.view(ratios, -1, numbers, *rest).transpose(0, 1).reshape(-1, *rest)


def fifth_stage_to_heads(tensors: dict[str, Tensor]) -> None:
    """The fifth stage is the heads' own (C4) where these have neither a pyramid nor a fully connected layer."""
    heads = any(name.startswith("box_head.") for name in tensors)
    if not heads or any(name.startswith("neck.") or ".fcs." in name for name in tensors):
        return
    for name in [name for name in tensors if name.startswith("backbone.layer4.")]:
        tensors[name.replace("backbone.layer4.", "res5.")] = tensors.pop(name)


def background_last(tensors: dict[str, Tensor], box: bool, mask: bool) -> None:
    """From classes with the background first: it moves to the end of the scores, and `box` regression and `mask`
    lose it, where they have more than one part for all classes."""
    for name in list(tensors):
        head, _, last = name.partition(".")
        if head == "box_head" and ".classes." in f".{last}":
            tensors[name] = tensors[name].roll(-1, 0)
        elif head == "box_head" and ".deltas." in f".{last}" and box:
            tensors[name] = _without(tensors[name], 4)
        elif name.startswith("mask_head.predictor.") and mask:
            tensors[name] = _without(tensors[name], 1)


def _without(value: Tensor, rows: int) -> Tensor:
    """All but the first `rows`, unless there are no more."""
    return value[rows:] if len(value) > rows else value


def _settings(state: Mapping[str, Tensor]) -> Settings:
    """Detectron, core/config.py: PIXEL_MEANS, RESNETS.STRIDE_1X1 (False for ResNeXt and group norm), and RoIAlign
    without the half-pixel shift; the baselines sample 2 points a bin (FAST_RCNN.ROI_XFORM_SAMPLING_RATIO). Boxes hold
    their second corner (utils/boxes.py, `bbox_transform`: widths are x2 - x1 + 1), which are ours with 1 added to it;
    anchors are then centred half a stride on (modeling/generate_anchors.py).

    A classifier (R-50.pkl of MSRA, X-101-32x8d.pkl of FAIR) has what Detectron2 begins with on it: configs/
    Base-RCNN-FPN.yaml, COCO-InstanceSegmentation/mask_rcnn_X_101_32x8d_FPN_3x.yaml."""
    first, second = (state.get(f"res3_0_branch2{c}_w") for c in "ab")
    grouped = first is not None and second is not None and second.shape[1] != first.shape[0]
    in_1x1 = not grouped and "conv1_gn_s" not in state
    if not any(name.startswith("rpn_cls_logits") for name in state):
        return {
            "model.pixel_mean": IMAGENET_MEAN,
            "model.pixel_std": IMAGENET_STD if grouped else [1.0, 1.0, 1.0],
            "model.backbone.stride_in_1x1": in_1x1,
        }
    return {
        "model.pixel_mean": [122.7717, 115.9465, 102.9801],
        "model.pixel_std": [1.0, 1.0, 1.0],
        "model.backbone.stride_in_1x1": in_1x1,
        "model.rpn.anchor_rounding": "sides",
        "model.rpn.anchor_offset": 0.5,
        "model.pooler.inclusive": True,
        "model.pooler.aligned": False,
        "model.pooler.sampling_ratio": 2,
    }


LAYOUT = Layout(
    "Detectron (Caffe2)",
    _recognises,
    _translate,
    _settings,
    ("trained on BGR pictures: the first convolution is turned round", "background is moved from first to last"),
)
