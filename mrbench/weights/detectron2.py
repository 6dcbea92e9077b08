"""Detectron2's names of an R-CNN with a ResNet or RegNet body, turned into ours and back.

Faster, Mask, Keypoint and Cascade R-CNN (modeling/roi_heads) with FPN, C4 or dilated C5; and files that its models
start from: torchvision's classifiers (tools/convert-torchvision-to-d2.py) and pycls' RegNets, whose names its own
follow. Those of MSRA and FAIR have Detectron's names.
"""

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from mrbench.errors import UserError
from mrbench.weights.layout import BOXES, IMAGENET_MEAN, IMAGENET_STD, STEMS, Layout, Settings, Translated, blue_first
from mrbench.weights.names import Names

BODY = "backbone.bottom_up"  # with a pyramid; without one the body itself is the backbone


def _body(theirs: str) -> list[tuple[str, str]]:
    stem = [(f"{theirs}.stem.conv1", "backbone.conv1"), (f"{theirs}.stem.conv1.norm", "backbone.bn1")]
    return stem + _stage(f"{theirs}.res{{s}}.{{b}}", "backbone.layer{s-1}.{b}")


def _stage(stage: str, ours: str) -> list[tuple[str, str]]:
    return [
        (f"{stage}.conv{{c}}", f"{ours}.conv{{c}}"),
        (f"{stage}.conv{{c}}.norm", f"{ours}.bn{{c}}"),
        (f"{stage}.conv{{c}}_offset", f"{ours}.conv{{c}}.offset"),
        (f"{stage}.shortcut", f"{ours}.downsample.0"),
        (f"{stage}.shortcut.norm", f"{ours}.downsample.1"),
    ]


def _regnet() -> list[tuple[str, str]]:
    """modeling/backbone/regnet.py; stages s1 to s4 of blocks b1, b2, ..."""
    block, ours = f"{BODY}.s{{s}}.b{{j}}", "backbone.trunk_output.block{s}.block{s}-{j-1}"
    rows = [(f"{BODY}.stem.conv", "backbone.stem.0"), (f"{BODY}.stem.bn", "backbone.stem.1")]
    rows += [(f"{block}.proj", f"{ours}.proj.0"), (f"{block}.bn", f"{ours}.proj.1")]
    for letter in "abc":
        rows.append((f"{block}.f.{letter}", f"{ours}.f.{letter}.0"))
        rows.append((f"{block}.f.{letter}_bn", f"{ours}.f.{letter}.1"))
    squeeze = [(f"{block}.f.se.f_ex.{n}", f"{ours}.f.se.fc{i}") for i, n in ((1, 0), (2, 2))]
    return [*rows, *squeeze]


# Theirs and ours, a norm beside its convolution. Another architecture adds its rows.
NAMES = Names(
    [
        *_body(BODY),
        *_body("backbone"),
        *_regnet(),
        *_stage("roi_heads.res5.{b}", "res5.{b}"),  # C4: the fifth stage on every region
        ("backbone.fpn_lateral{s}", "neck.inner_blocks.{s-2}.0"),
        ("backbone.fpn_lateral{s}.norm", "neck.inner_blocks.{s-2}.1"),
        ("backbone.fpn_output{s}", "neck.layer_blocks.{s-2}.0"),
        ("backbone.fpn_output{s}.norm", "neck.layer_blocks.{s-2}.1"),
        ("proposal_generator.rpn_head.conv.conv{n}", "rpn.head.convs.{n}"),
        ("proposal_generator.rpn_head.conv", "rpn.head.convs.0"),
        ("proposal_generator.rpn_head.objectness_logits", "rpn.head.objectness"),
        ("proposal_generator.rpn_head.anchor_deltas", "rpn.head.deltas"),
        ("roi_heads.box_head.conv{n}", "box_head.convs.{3n-3}"),  # convolution, norm and ReLU stand in one sequence
        ("roi_heads.box_head.conv{n}.norm", "box_head.convs.{3n-2}"),
        ("roi_heads.box_head.fc{n}", "box_head.fcs.{n-1}"),
        ("roi_heads.box_predictor.cls_score", "box_head.classes"),
        ("roi_heads.box_predictor.bbox_pred", "box_head.deltas"),
        ("roi_heads.box_head.{k}.conv{n}", "box_head.stages.{k}.convs.{3n-3}"),  # Cascade R-CNN
        ("roi_heads.box_head.{k}.conv{n}.norm", "box_head.stages.{k}.convs.{3n-2}"),
        ("roi_heads.box_head.{k}.fc{n}", "box_head.stages.{k}.fcs.{n-1}"),
        ("roi_heads.box_predictor.{k}.cls_score", "box_head.stages.{k}.classes"),
        ("roi_heads.box_predictor.{k}.bbox_pred", "box_head.stages.{k}.deltas"),
        ("roi_heads.keypoint_head.conv_fcn{n}", "keypoint_head.convs.{3n-3}"),
        ("roi_heads.keypoint_head.score_lowres", "keypoint_head.predictor"),
        ("roi_heads.mask_head.mask_fcn{n}", "mask_head.convs.{3n-3}"),
        ("roi_heads.mask_head.mask_fcn{n}.norm", "mask_head.convs.{3n-2}"),
        ("roi_heads.mask_head.deconv", "mask_head.upsample"),
        ("roi_heads.mask_head.predictor", "mask_head.predictor"),
    ]
)
# Constants that our configuration holds.
_CONSTANTS = ("pixel_mean", "pixel_std")
_ANCHORS = "proposal_generator.anchor_generator."


def _recognises(names: Collection[str]) -> bool:
    return any(name.startswith(("backbone.bottom_up.", "backbone.stem.", "proposal_generator.")) for name in names)


def _rename(state: Mapping[str, Tensor]) -> Translated:
    found = Translated()
    for name, tensor in state.items():
        if name in _CONSTANTS or name.startswith(_ANCHORS):
            continue
        place = NAMES.ours(name)
        if place is None:
            found.unplaced.append(name)
        else:
            found.tensors[place] = tensor
    return found


def _translate(state: Mapping[str, Tensor]) -> Translated:
    found = _rename(state)
    blue_first(found.tensors)
    return found


def _settings(state: Mapping[str, Tensor]) -> Settings:
    """As the model zoo has them (configs/Base-RCNN-FPN.yaml and config/defaults.py); the ResNeXts, group norm and the
    RegNets have their own (mask_rcnn_X_101_32x8d_FPN_3x.yaml, Misc/mask_rcnn_R_50_FPN_3x_gn.yaml,
    new_baselines/mask_rcnn_regnetx_4gf_dds_FPN_100ep_LSJ.py). The two of Misc/scratch_mask_rcnn_R_50_FPN_9x_*.yaml
    were trained with ImageNet's deviation, which cannot be told from their names and shapes."""
    body = BODY if any(name.startswith(BODY) for name in state) else "backbone"
    first, second = (state.get(f"{body}.res3.0.conv{c}.weight") for c in (1, 2))
    regnet = any(".bottom_up.s1." in name for name in state)
    grouped = first is not None and second is not None and second.shape[1] != first.shape[0]
    norm = f"{body}.stem.conv1.norm"
    group_norm = f"{norm}.weight" in state and f"{norm}.running_mean" not in state
    settings: Settings = {
        "model.pixel_mean": IMAGENET_MEAN,
        "model.pixel_std": IMAGENET_STD if grouped or regnet else [1.0, 1.0, 1.0],
    }
    if not regnet:
        settings["model.backbone.stride_in_1x1"] = not (grouped or group_norm)
    return {**settings, **BOXES, "model.pooler.aligned": True, "model.pooler.sampling_ratio": 0}


LAYOUT = Layout(
    "Detectron2",
    _recognises,
    _translate,
    _settings,
    ("trained on BGR pictures: the first convolution is turned round", "background is the last class, as here"),
)


def _recognises_converted(names: Collection[str]) -> bool:
    return any(name.startswith(("stem.conv1.", "res2.0.")) for name in names)


def _translate_converted(state: Mapping[str, Tensor]) -> Translated:
    return _rename({f"backbone.{name}": tensor for name, tensor in state.items() if not name.startswith("stem.fc.")})


def _settings_of_converted(state: Mapping[str, Tensor]) -> Settings:
    """As the converter's own instructions have them; pictures are RGB."""
    return {
        "model.pixel_mean": IMAGENET_MEAN,
        "model.pixel_std": IMAGENET_STD,
        "model.backbone.stride_in_1x1": False,
    }


CONVERTED = Layout(
    "torchvision's classifier for Detectron2",
    _recognises_converted,
    _translate_converted,
    _settings_of_converted,
    ("trained on RGB pictures, as here",),
)


def _recognises_pycls(names: Collection[str]) -> bool:
    return any(name.startswith("s1.b1.") for name in names)


def _translate_pycls(state: Mapping[str, Tensor]) -> Translated:
    found = _rename({f"{BODY}.{name}": tensor for name, tensor in state.items() if not name.startswith("head.fc.")})
    blue_first(found.tensors)
    return found


def _settings_of_pycls(state: Mapping[str, Tensor]) -> Settings:
    """pycls, datasets/imagenet.py; new_baselines/mask_rcnn_regnetx_4gf_dds_FPN_100ep_LSJ.py."""
    return {"model.pixel_mean": IMAGENET_MEAN, "model.pixel_std": IMAGENET_STD}


PYCLS = Layout(
    "pycls' RegNet",
    _recognises_pycls,
    _translate_pycls,
    _settings_of_pycls,
    ("trained on BGR pictures: the first convolution is turned round",),
)


def convert(state: Mapping[str, Tensor], pixel_order: str = "BGR") -> dict[str, Tensor]:
    """A Detectron2 state dict in our names, for `MaskRCNN.load_state_dict`.

    Classes are in the same order, the background last in both. With `pixel_order` "BGR" (Detectron2's default,
    INPUT.FORMAT) the first convolution's input channels are turned round, because our pictures are RGB; the
    configuration's pixel mean and deviation are to be given in RGB as well. Raises UserError, naming every tensor
    that has no place.
    """
    found = _rename(state)
    if found.unplaced:
        raise UserError(
            f"Not a Detectron2 R-CNN with FPN on a ResNet: no place for {', '.join(found.unplaced[:5])}"
            + (f" and {len(found.unplaced) - 5} more." if len(found.unplaced) > 5 else "."),
            "Models with FPN, a ResNet body and box or mask heads can be read.",
        )
    if pixel_order == "BGR":
        blue_first(found.tensors)
    return found.tensors


def export(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Our state dict in Detectron2's names, for BGR pictures (INPUT.FORMAT). Raises UserError, naming what
    Detectron2 has no name for."""
    theirs: dict[str, Tensor] = {}
    unplaced = []
    several = "rpn.head.convs.1.weight" in state
    pyramid = any(name.startswith("neck.") for name in state)
    for name, tensor in state.items():
        place = NAMES.theirs(name)
        if place is None:
            unplaced.append(name)
            continue
        if not several:  # StandardRPNHead numbers its convolutions only where there are several
            place = place.replace("rpn_head.conv.conv0.", "rpn_head.conv.")
        if not pyramid:
            place = place.replace(f"{BODY}.", "backbone.")
        theirs[place] = tensor.flip(1) if name in STEMS else tensor
    if unplaced:
        raise UserError(
            f"Detectron2 has no name for {', '.join(unplaced[:5])}"
            + (f" and {len(unplaced) - 5} more." if len(unplaced) > 5 else "."),
            "Export to safetensors keeps everything.",
        )
    return theirs
