"""Detectron2's names and ours. That the weights give the same answers: tests/modeling/test_parity_detectron2.py."""

import pytest
import torch

from mrbench.errors import UserError
from mrbench.weights.detectron2 import convert, export


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
        ("backbone.bottom_up.stem.bn.weight", "backbone.stem.1.weight"),
        ("backbone.bottom_up.res4.5.conv2_offset.bias", "backbone.layer3.5.conv2.offset.bias"),
        ("backbone.bottom_up.s3.b14.f.b_bn.running_var", "backbone.trunk_output.block3.block3-13.f.b.1.running_var"),
        ("backbone.bottom_up.s1.b1.bn.bias", "backbone.trunk_output.block1.block1-0.proj.1.bias"),
        ("backbone.bottom_up.s4.b2.f.se.f_ex.2.bias", "backbone.trunk_output.block4.block4-1.f.se.fc2.bias"),
        ("roi_heads.res5.2.conv3.norm.bias", "res5.2.bn3.bias"),
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


def test_every_name_leads_back() -> None:
    state = {
        "backbone.bottom_up.stem.conv.weight": torch.randn(4, 3, 3, 3),
        "backbone.bottom_up.s2.b5.f.c_bn.weight": torch.randn(4),
        "backbone.fpn_output5.norm.bias": torch.randn(4),
        "proposal_generator.rpn_head.conv.conv0.weight": torch.randn(4, 4, 3, 3),
        "proposal_generator.rpn_head.conv.conv1.weight": torch.randn(4, 4, 3, 3),
        "roi_heads.box_predictor.0.bbox_pred.weight": torch.randn(4, 4),
    }
    again = export(convert(state))
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], state[name]) for name in state)
