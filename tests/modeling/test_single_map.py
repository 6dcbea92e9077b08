"""C4, C5 and dilated C5: what they are made of, and that they train."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from mrbench.config.composer import compose
from mrbench.config.schema import ModelConfig
from mrbench.data.batch import Batch
from mrbench.modeling.anchors import AnchorGrid
from mrbench.modeling.build import build_detector
from mrbench.modeling.detector import MaskRCNN
from mrbench.modeling.losses import LossTerm
from mrbench.modeling.res5 import Res5MaskRCNN

Small = Callable[..., ModelConfig]
C4 = ["model.neck.kind=c4", "model.box_head.kind=res5", "model.box_head.fcs=0", "model.mask_head.kind=res5"]
C4 += ["model.mask_head.convs=0", "model.pooler.box_size=14"]
C5 = ["model.neck.kind=c5"]
NECKS = {"c4": C4, "c5": C5, "dc5": [*C5, "model.backbone.depth=50", "model.backbone.dilated_c5=true"]}
NECKS |= {"c4_bn": [*C4, "model.norm=bn"], "c4_frozen": [*C4, "model.norm=frozen_bn"]}
FULL = ["r50_c4", "r50_dc5", "r50_c5", "x101_32x8d_fpn", "regnetx_4gf_fpn", "regnety_4gf_fpn"]


def total(losses: dict[str, LossTerm]) -> Tensor:
    return torch.stack([term.sum / term.count.clamp(min=1) for term in losses.values()]).sum()


def on_meta(name: str) -> MaskRCNN:
    config = compose([f"model=mask_rcnn_{name}", "model.backbone.weights=null"]).model
    with torch.device("meta"):
        return build_detector(config, 80)


def counts(net: MaskRCNN) -> dict[str, int]:
    return {name: sum(p.numel() for p in part.parameters()) for name, part in net.named_children()}


def test_r50_c4_has_the_parts_of_detectron2s_res5_heads() -> None:
    """Counted by hand from Base-RCNN-C4.yaml and defaults.py: 15 anchors, heads on 2048 channels."""
    parts = counts(on_meta("r50_c4"))
    assert parts["backbone"] + parts["res5"] == 23_454_912  # torchvision's resnet50 without fc and norms
    assert parts["rpn"] == (1024 * 9 + 1) * 1024 + 1025 * 15 + 1025 * 60
    assert parts["box_head"] == 2049 * 81 + 2049 * 320
    assert parts["mask_head"] == 2048 * 256 * 4 + 256 + 257 * 80
    assert parts["neck"] == 0


@pytest.mark.parametrize("name,stride", [("r50_c5", 32), ("r50_dc5", 16)])
def test_r50_c5_has_the_parts_of_detectron2s_heads_on_the_fifth_stage(name: str, stride: int) -> None:
    net = on_meta(name)
    parts = counts(net)
    assert net.neck.strides == net.box_pooler.strides == [stride]
    assert parts["backbone"] == 23_454_912
    assert parts["rpn"] == (2048 * 9 + 1) * 2048 + 2049 * 15 + 2049 * 60
    assert parts["box_head"] == (2048 * 49 + 1) * 1024 + 1025 * 1024 + 1025 * (81 + 320)
    assert parts["mask_head"] == (2048 * 9 + 1) * 256 + 3 * (256 * 9 + 1) * 256 + 256 * 256 * 4 + 256 + 257 * 80


def test_regnets_of_the_new_baselines_have_the_heads_of_the_resnet_one() -> None:
    """Detectron2's LSJ R50-FPN counts of RPN and heads, which are the same for all of its new baselines."""
    parts = counts(on_meta("regnetx_4gf_fpn"))
    assert parts["backbone"] == 22_118_248 - 1361 * 1000
    assert parts["rpn"] == 1_184_015
    assert parts["box_head"] == 15_207_424 + 80 * 4 * 1025 + 81 * 1025
    assert parts["mask_head"] == 2_644_304


def test_anchors_of_a_single_map_by_hand() -> None:
    grid = AnchorGrid([[32, 64]], [0.5, 1.0], [16])
    assert grid.per_position == 4
    anchors = grid([(2, 2)], torch.device("cpu"))
    assert anchors.shape == (16, 4)
    torch.testing.assert_close(anchors[1], torch.tensor([-16.0, -16, 16, 16]))
    torch.testing.assert_close(anchors[3], torch.tensor([-32.0, -32, 32, 32]))
    torch.testing.assert_close(anchors[13], torch.tensor([0.0, 0, 32, 32]))  # second row, second column


@pytest.mark.parametrize("neck", NECKS)
def test_every_parameter_of_a_single_map_network_trains(neck: str, small: Small, paint: Callable[..., Batch]) -> None:
    torch.manual_seed(0)
    net, batch = build_detector(small(*NECKS[neck]), 4), paint()
    sample_counts = net.count_samples(batch)
    losses = net(batch)
    assert losses.keys() == sample_counts.keys()
    assert all(torch.equal(sample_counts[name], term.count) for name, term in losses.items())
    assert all(torch.isfinite(term.sum) and term.sum > 0 for term in losses.values())
    total(losses).backward()
    for name, p in net.named_parameters():
        assert p.grad is not None, name
        assert torch.isfinite(p.grad).all(), name
    side = 14 if neck.startswith("c4") else 28
    net.eval().inference.score_threshold = 0.0
    for found in net.detect(batch):
        assert len(found)
        assert found.masks is not None
        assert found.masks.shape[1:] == (side, side)
    for found in net.detect(paint(instances=0)):
        assert len(found.boxes) == len(found.scores)


@pytest.mark.parametrize("compact", [True, False])
def test_masks_of_c4_stand_on_the_fifth_stage_that_boxes_stand_on(
    compact: bool, small: Small, paint: Callable[..., Batch]
) -> None:
    """Sharing gives the loss and gradients that running the stage again for the masks would give."""
    torch.manual_seed(0)
    net, batch = build_detector(small(*C4, "model.rpn.post_nms_train=20"), 4), paint()
    assert isinstance(net, Res5MaskRCNN)
    net._compacts = lambda _: compact  # type: ignore[method-assign]
    shared = net(batch)
    of_shared = torch.autograd.grad(total(shared), list(net.parameters()))

    features = net.features(batch)
    samples = net._sample(batch, net.rpn.propose(net.rpn(features), batch.sizes))
    rois = samples.flat(samples.foreground)
    apart = net.res5(net.box_pooler(features, rois.boxes, rois.image))
    assert net.mask_head is not None
    assert batch.masks is not None
    logits = net.mask_head(apart, rois.labels)
    target = net.mask_target(batch.masks, rois.boxes, rois.image, rois.instance, 14)
    mask = binary_cross_entropy_with_logits(logits, target.to(logits.dtype), reduction="sum")
    torch.testing.assert_close(shared["mask"].sum, mask, rtol=1e-4, atol=1e-4)
    assert float(shared["mask"].count) == len(rois.boxes) * 14**2

    again = net(batch) | {"mask": LossTerm(mask, shared["mask"].count)}
    for ours, wanted in zip(of_shared, torch.autograd.grad(total(again), list(net.parameters())), strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-3, atol=1e-4)


def test_masks_of_c4_are_those_of_its_heads_on_the_found_boxes(small: Small, paint: Callable[..., Batch]) -> None:
    torch.manual_seed(0)
    net, batch = build_detector(small(*C4), 4).eval(), paint()
    with torch.no_grad():
        features = net.features(batch)
        boxes, image = batch.boxes[:, 0], torch.arange(2)
        regions = net.get_submodule("res5")(net.box_pooler(features, boxes, image))
        logits, _ = net.box_head(regions)
        classes = net.box_head.get_submodule("classes")
        torch.testing.assert_close(logits, classes(regions.mean((2, 3))))
        assert net.mask_head is not None
        every = net.mask_head.predictor(net.mask_head.trunk(regions))
        masks = net.masks_of(features, boxes, image, torch.tensor([3, 1]))
        assert masks is not None
        torch.testing.assert_close(masks, torch.stack([every[0, 3], every[1, 1]]).sigmoid())


@pytest.mark.parametrize("name", FULL)
def test_published_networks_take_a_step_at_a_quarter_of_the_width(name: str, paint: Callable[..., Batch]) -> None:
    torch.manual_seed(0)
    changes = ["backbone.weights=null", "backbone.width=8", "neck.channels=16", "box_head.fc_channels=32"]
    changes += ["box_head.conv_channels=16", "mask_head.channels=16", "roi.samples=16", "norm=bn"]
    changes += ["rpn.post_nms_train=32", "rpn.post_nms_test=32", "backbone.freeze_at=0"]
    config = compose([f"model=mask_rcnn_{name}", *(f"model.{change}" for change in changes)]).model
    if "x101" in name:
        config.backbone.groups, config.backbone.width_per_group = 4, 16
    net, batch = build_detector(config, 4), paint()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.002)
    total(net(batch)).backward()
    before = {
        part: next(module.parameters(), torch.zeros(1)).detach().clone() for part, module in net.named_children()
    }
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())
    optimizer.step()
    for part, module in net.named_children():
        for p in list(module.parameters())[:1]:
            assert not torch.equal(p, before[part]), part
    assert torch.isfinite(total(net(batch)))
    net.eval().detect(batch)
