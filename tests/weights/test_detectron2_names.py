"""Detectron2's names and ours. That the weights give the same answers: tests/modeling/test_parity_detectron2.py."""

import pytest
import torch

from mrbench.errors import UserError
from mrbench.weights.detectron2 import convert


@pytest.mark.parametrize(
    "theirs,ours",
    [
        ("backbone.bottom_up.stem.conv1.norm.running_var", "backbone.bn1.running_var"),
        ("backbone.bottom_up.res3.0.shortcut.norm.weight", "backbone.layer2.0.downsample.1.weight"),
        ("backbone.bottom_up.res5.2.conv3.norm.bias", "backbone.layer4.2.bn3.bias"),
        ("backbone.fpn_lateral2.norm.weight", "neck.inner_blocks.0.1.weight"),
        ("backbone.fpn_output5.weight", "neck.layer_blocks.3.0.weight"),
        ("proposal_generator.rpn_head.conv.bias", "rpn.head.convs.0.bias"),
        ("proposal_generator.rpn_head.conv.conv1.weight", "rpn.head.convs.1.weight"),
        ("roi_heads.box_head.conv4.norm.bias", "box_head.convs.10.bias"),
        ("roi_heads.box_head.fc1.weight", "box_head.fcs.0.weight"),
        ("backbone.res5.0.conv2.norm.weight", "backbone.layer4.0.bn2.weight"),
        ("roi_heads.box_head.1.fc2.bias", "box_head.stages.1.fcs.1.bias"),
        ("roi_heads.box_predictor.2.cls_score.weight", "box_head.stages.2.classes.weight"),
        ("roi_heads.keypoint_head.conv_fcn8.weight", "keypoint_head.convs.21.weight"),
        ("roi_heads.keypoint_head.score_lowres.bias", "keypoint_head.predictor.bias"),
        ("roi_heads.mask_head.mask_fcn2.weight", "mask_head.convs.3.weight"),
        ("roi_heads.mask_head.mask_fcn2.norm.num_batches_tracked", "mask_head.convs.4.num_batches_tracked"),
    ],
)
def test_names(theirs: str, ours: str) -> None:
    assert list(convert({theirs: torch.zeros(1)})) == [ours]


def test_blue_green_red_is_turned_round() -> None:
    weight = torch.arange(6.0).view(2, 3, 1, 1)
    name = "backbone.bottom_up.stem.conv1.weight"
    assert torch.equal(convert({name: weight})["backbone.conv1.weight"], weight[:, [2, 1, 0]])
    assert torch.equal(convert({name: weight}, "RGB")["backbone.conv1.weight"], weight)


def test_what_has_no_place_is_named() -> None:
    with pytest.raises(UserError, match="sem_seg_head"):
        convert({"sem_seg_head.p2.0.weight": torch.zeros(1), "pixel_mean": torch.zeros(3)})
