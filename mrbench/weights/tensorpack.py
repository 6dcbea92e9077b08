"""tensorpack's FasterRCNN example: TensorFlow's names and axes, background first.

Names: examples/FasterRCNN/modeling (`resnet_fpn_backbone`, `fpn_model`, `rpn_head`, `fastrcnn_2fc_head`,
`fastrcnn_outputs`, `maskrcnn_upXconv_head`); axes and class order: convert_d2/convert_d2.py, `convert_weights`.
"""

from collections.abc import Collection, Mapping

from torch import Tensor

from mrbench.weights.detectron import background_last, fifth_stage_to_heads
from mrbench.weights.layout import BOXES, IMAGENET_MEAN, IMAGENET_STD, Layout, Settings, Translated, blue_first
from mrbench.weights.names import Names

_BLOCK, _OURS = "group{g}/block{b}", "backbone.layer{g+1}.{b}"

# The heads with group norm are left out: tensorpack norms after the ReLU there, which is another network.
NAMES = Names(
    [
        ("conv0", "backbone.conv1"),
        (f"{_BLOCK}/conv{{c}}", f"{_OURS}.conv{{c}}"),
        (f"{_BLOCK}/convshortcut", f"{_OURS}.downsample.0"),
        *[
            row
            for norm in ("bn", "gn")
            for row in (
                (f"conv0/{norm}", "backbone.bn1"),
                (f"{_BLOCK}/conv{{c}}/{norm}", f"{_OURS}.bn{{c}}"),
                (f"{_BLOCK}/convshortcut/{norm}", f"{_OURS}.downsample.1"),
            )
        ],
        ("fpn/lateral_1x1_c{s}", "neck.inner_blocks.{s-2}.0"),
        ("fpn/posthoc_3x3_p{s}", "neck.layer_blocks.{s-2}.0"),
        ("rpn/conv0", "rpn.head.convs.0"),
        ("rpn/class", "rpn.head.objectness"),
        ("rpn/box", "rpn.head.deltas"),
        ("fastrcnn/conv{n}", "box_head.convs.{3n}"),
        ("fastrcnn/fc", "box_head.fcs.0"),
        ("fastrcnn/fc{n}", "box_head.fcs.{n-6}"),
        ("fastrcnn/outputs/class", "box_head.classes"),
        ("fastrcnn/outputs/box", "box_head.deltas"),
        ("fastrcnn/class", "box_head.classes"),  # C4
        ("fastrcnn/box", "box_head.deltas"),
        ("cascade_rcnn_stage{k+1}/head/fc{n}", "box_head.stages.{k}.fcs.{n-6}"),
        ("cascade_rcnn_stage{k+1}/outputs/class", "box_head.stages.{k}.classes"),
        ("cascade_rcnn_stage{k+1}/outputs/box", "box_head.stages.{k}.deltas"),
        ("maskrcnn/fcn{n}", "mask_head.convs.{3n}"),
        ("maskrcnn/deconv", "mask_head.upsample"),
        ("maskrcnn/conv", "mask_head.predictor"),
    ],
    [
        ("/W", ".weight"),
        ("/b", ".bias"),
        ("/gamma", ".weight"),
        ("/beta", ".bias"),
        ("/mean/EMA", ".running_mean"),
        ("/variance/EMA", ".running_var"),
    ],
)
# What training keeps beside the weights.
_STATE = ("/Momentum", "/AccumGrad")
_COUNTERS = ("global_step", "learning_rate")
_CLASSIFIER = "linear/"  # of a file that a body begins with, as ImageNet-R50-AlignPadding.npz


def _recognises(names: Collection[str]) -> bool:
    return any(name.startswith(("group0/block0/", "fastrcnn/", "conv0/W")) for name in names)


def _translate(state: Mapping[str, Tensor]) -> Translated:
    found = Translated()
    for full, tensor in state.items():
        name = full.removesuffix(":0")
        if name.endswith(_STATE) or name.startswith((*_COUNTERS, _CLASSIFIER)):
            continue
        place = NAMES.ours(name)
        if place is None:
            found.unplaced.append(full)
            continue
        if name.endswith("/W"):
            # (height, width, in, out), of deconvolutions (height, width, out, in); fully connected (in, out)
            tensor = tensor.permute(3, 2, 0, 1) if tensor.dim() == 4 else tensor.T
        found.tensors[place] = tensor.contiguous()
    fifth_stage_to_heads(found.tensors)
    background_last(found.tensors, box=True, mask=False)
    blue_first(found.tensors)
    return found


def _settings(state: Mapping[str, Tensor]) -> Settings:
    """examples/FasterRCNN/config.py: PREPROC, BACKBONE.STRIDE_1X1; model_box.py, `roi_align`: aligned, 2 points;
    model_rpn.py, `get_all_anchors`."""
    return {
        "model.pixel_mean": IMAGENET_MEAN,
        "model.pixel_std": IMAGENET_STD,
        "model.backbone.stride_in_1x1": False,
        **BOXES,
        "model.pooler.aligned": True,
        "model.pooler.sampling_ratio": 2,
    }


LAYOUT = Layout(
    "tensorpack",
    _recognises,
    _translate,
    _settings,
    ("trained on BGR pictures: the first convolution is turned round", "background is moved from first to last"),
)
