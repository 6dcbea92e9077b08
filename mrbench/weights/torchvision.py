"""torchvision's detection models on a ResNet with FPN (Faster, Mask and Keypoint R-CNN, _v2), and its classifiers
(ResNet, ResNeXt, RegNet) for bodies: names and habits."""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from mrbench.weights.detectron import background_last
from mrbench.weights.layout import BOXES, IMAGENET_MEAN, IMAGENET_STD, Layout, Settings, Translated
from mrbench.weights.names import Names

NAMES = Names(
    [
        ("backbone.body.conv1", "backbone.conv1"),
        ("backbone.body.bn1", "backbone.bn1"),
        ("backbone.body.layer{s}.{b}.conv{c}", "backbone.layer{s}.{b}.conv{c}"),
        ("backbone.body.layer{s}.{b}.bn{c}", "backbone.layer{s}.{b}.bn{c}"),
        ("backbone.body.layer{s}.{b}.downsample.{n}", "backbone.layer{s}.{b}.downsample.{n}"),
        ("backbone.fpn.inner_blocks.{s}.{n}", "neck.inner_blocks.{s}.{n}"),
        ("backbone.fpn.layer_blocks.{s}.{n}", "neck.layer_blocks.{s}.{n}"),
        ("rpn.head.conv.{n}.0", "rpn.head.convs.{n}"),
        ("rpn.head.cls_logits", "rpn.head.objectness"),
        ("rpn.head.bbox_pred", "rpn.head.deltas"),
        ("roi_heads.box_head.fc{n}", "box_head.fcs.{n-6}"),
        ("roi_heads.box_head.{n}.0", "box_head.convs.{3n}"),  # _v2: four convolutions with norm, flattened, one fc
        ("roi_heads.box_head.{n}.1", "box_head.convs.{3n+1}"),
        ("roi_heads.box_head.5", "box_head.fcs.0"),
        ("roi_heads.box_predictor.cls_score", "box_head.classes"),
        ("roi_heads.box_predictor.bbox_pred", "box_head.deltas"),
        ("roi_heads.mask_head.{n}.0", "mask_head.convs.{3n}"),
        ("roi_heads.mask_head.{n}.1", "mask_head.convs.{3n+1}"),
        ("roi_heads.mask_predictor.conv5_mask", "mask_head.upsample"),
        ("roi_heads.mask_predictor.mask_fcn_logits", "mask_head.predictor"),
        (
            "roi_heads.keypoint_head.{2n}",
            "keypoint_head.convs.{3n}",
        ),  # convolution and ReLU there, a norm's place here
        ("roi_heads.keypoint_predictor.kps_score_lowres", "keypoint_head.predictor"),
        # before torchvision 0.14, and in the files that it publishes
        ("backbone.fpn.inner_blocks.{s}", "neck.inner_blocks.{s}.0"),
        ("backbone.fpn.layer_blocks.{s}", "neck.layer_blocks.{s}.0"),
        ("rpn.head.conv", "rpn.head.convs.0"),
        ("roi_heads.mask_head.mask_fcn{n}", "mask_head.convs.{3n-3}"),
    ]
)

# COCO's own category numbers, which the published models have for classes; the numbers between them are no class.
COCO_IDS = [i for i in range(1, 91) if i not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]

EPS = 1e-5
# SHA-256 (first digits, as torch hub names the files) of weights whose frozen norms torchvision runs with an epsilon
# of zero: `overwrite_eps` in fasterrcnn_resnet50_fpn and maskrcnn_resnet50_fpn with COCO_V1.
WITHOUT_EPS = ("258fb6c6", "bf2d0c1e", "fc266e95")


def _recognises(names: Collection[str]) -> bool:
    return any(name.startswith(("backbone.body.", "backbone.fpn.", "rpn.head.cls_logits")) for name in names)


def _translate(state: Mapping[str, Tensor]) -> Translated:
    found = Translated()
    for name, tensor in state.items():
        place = NAMES.ours(name)
        if place is None:
            found.unplaced.append(name)
        else:
            found.tensors[place] = tensor
    background_last(found.tensors, box=True, mask=True)
    return found


def add_eps(tensors: dict[str, Tensor]) -> None:
    """Norms trained without an epsilon, so that with ours they put out the same."""
    for name, variance in list(tensors.items()):
        if name.startswith("backbone.") and name.endswith(".running_var"):
            scale = name.replace(".running_var", ".weight")
            tensors[scale] = tensors[scale] * torch.sqrt((variance + EPS) / variance)


def coco_classes(tensors: dict[str, Tensor], num_classes: int) -> None:
    """COCO's 80 classes out of the 90 numbers that torchvision's published models have, for a model of 80 classes."""
    scores = tensors.get("box_head.classes.bias")
    if num_classes != len(COCO_IDS) or scores is None or len(scores) != 91:
        return
    rows = torch.tensor(COCO_IDS) - 1
    for kind in ("weight", "bias"):
        name = f"box_head.classes.{kind}"
        tensors[name] = tensors[name][torch.cat([rows, torch.tensor([90])])]
        name = f"box_head.deltas.{kind}"
        value = tensors[name]
        tensors[name] = value.view(90, 4, *value.shape[1:])[rows].flatten(0, 1)
        name = f"mask_head.predictor.{kind}"
        if name in tensors:
            tensors[name] = tensors[name][rows]


def _settings(state: Mapping[str, Tensor]) -> Settings:
    """transform.py, resnet.py, and the poolers of faster_rcnn.py and mask_rcnn.py (RoIAlign as first published);
    anchor_utils.py, `generate_anchors`, rounds."""
    return {
        "model.pixel_mean": IMAGENET_MEAN,
        "model.pixel_std": IMAGENET_STD,
        "model.backbone.stride_in_1x1": False,
        **BOXES,
        "model.rpn.anchor_rounding": "corners",
        "model.pooler.aligned": False,
        "model.pooler.sampling_ratio": 2,
    }


def _recognises_classifier(names: Collection[str]) -> bool:
    return any(name.startswith(("layer1.0.", "trunk_output.block1.")) for name in names)


def _translate_classifier(state: Mapping[str, Tensor]) -> Translated:
    return Translated({f"backbone.{name}": tensor for name, tensor in state.items() if not name.startswith("fc.")})


def _settings_of_classifier(state: Mapping[str, Tensor]) -> Settings:
    """transforms/_presets.py, ImageClassification; models/resnet.py, `Bottleneck`."""
    return {
        "model.pixel_mean": IMAGENET_MEAN,
        "model.pixel_std": IMAGENET_STD,
        "model.backbone.stride_in_1x1": False,
    }


CLASSIFIER = Layout("torchvision's classifier", _recognises_classifier, _translate_classifier, _settings_of_classifier)

LAYOUT = Layout(
    "torchvision",
    _recognises,
    _translate,
    _settings,
    ("background is moved from first to last",),
)
