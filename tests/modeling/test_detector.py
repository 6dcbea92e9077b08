"""The whole network: size, learning, empty pictures, padding, counts."""

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

from mrbench.config.schema import ModelConfig
from mrbench.data.batch import Batch
from mrbench.errors import UserError
from mrbench.modeling.build import build_detector
from mrbench.modeling.losses import LossTerm

Small = Callable[..., ModelConfig]
NORMS = ["none", "frozen_bn", "bn", "sync_bn", "gn"]


def total(losses: dict[str, LossTerm]) -> Tensor:
    return torch.stack([term.sum / term.count.clamp(min=1) for term in losses.values()]).sum()


def test_r50_fpn_has_detectron2s_parameters() -> None:
    """Counts of Detectron2's mask_rcnn_R_50_FPN with 80 classes; frozen norms have no parameters in either."""
    with torch.device("meta"):
        net = build_detector(ModelConfig(), 80)
    assert sum(p.numel() for p in net.parameters()) == 44_343_216
    assert sum(p.numel() for p in net.parameters() if p.requires_grad) == 44_120_816


def test_lsj_r50_fpn_has_detectron2s_parameters() -> None:
    """Counts of Detectron2's new baselines: sync_bn everywhere, RPN with 2 convolutions, box head 4conv1fc."""
    config = ModelConfig()
    config.backbone.norm = config.neck.norm = config.box_head.norm = config.mask_head.norm = "sync_bn"
    config.backbone.freeze_at = 0
    config.rpn.convs, config.box_head.convs, config.box_head.fcs = 2, 4, 1
    with torch.device("meta"):
        net = build_detector(config, 80)
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in net.named_children()}
    assert sum(count.values()) == 46_301_232
    assert count["backbone"] == 23_508_032
    assert count["rpn"] == 1_184_015
    assert count["box_head"] == 15_207_424 + 80 * 4 * 1025 + 81 * 1025  # Detectron2 counts the predictors apart
    assert count["mask_head"] == 2_644_304


def test_a_tiny_batch_is_learnt(small: Small, paint: Callable[..., Batch]) -> None:
    torch.manual_seed(0)
    net, batch = build_detector(small("model.backbone.width=16"), 4), paint(instances=2)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    first = float(total(net(batch)).detach())
    for _ in range(150):
        loss = total(net(batch))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.2 * first
    net.eval()
    for found, boxes, labels in zip(net.detect(batch), batch.boxes, batch.labels, strict=True):
        best = len(labels[labels >= 0])
        assert sorted(found.labels[:best].tolist()) == sorted(labels[labels >= 0].tolist())
        nearest = torch.cdist(boxes[labels >= 0], found.boxes[:best], p=float("inf")).amin(1)
        assert nearest.max() < 8
        assert found.masks is not None
        assert found.masks.shape[1:] == (28, 28)


@pytest.mark.parametrize("norm", NORMS)
def test_pictures_without_instances_train_every_parameter(
    norm: str, small: Small, paint: Callable[..., Batch]
) -> None:
    net = build_detector(small(f"model.norm={norm}", "model.box_head.convs=1"), 4)
    losses = net(paint(instances=0))
    assert float(losses["mask"].count) == 0
    assert float(losses["box_regression"].sum.detach()) == 0
    total(losses).backward()
    for name, p in net.named_parameters():
        assert p.grad is not None, name
        assert torch.isfinite(p.grad).all(), name
    assert all(len(found.boxes) == len(found.scores) for found in net.eval().detect(paint(instances=0)))


@pytest.mark.parametrize("compact", [True, False])
def test_unused_places_do_not_count(compact: bool, small: Small, paint: Callable[..., Batch]) -> None:
    """Static shapes, as on a GPU, and compacted ones give the same losses and gradients."""
    torch.manual_seed(0)
    net, batch = build_detector(small("model.rpn.post_nms_train=20"), 4), paint()
    net._compacts = lambda _: compact  # type: ignore[method-assign]
    losses = net(batch)
    total(losses).backward()
    torch.manual_seed(0)
    other = build_detector(small("model.rpn.post_nms_train=20"), 4)
    wanted = other(batch)
    assert float(wanted["box_class"].count) < 2 * 64
    total(wanted).backward()
    for name, term in wanted.items():
        torch.testing.assert_close(losses[name].sum, term.sum, rtol=1e-4, atol=1e-5)
        assert torch.equal(losses[name].count, term.count)
    for p, q in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-3, atol=1e-4)


def test_padding_of_the_ground_truth_changes_nothing(small: Small, paint: Callable[..., Batch]) -> None:
    net = build_detector(small(), 4)
    with torch.no_grad():
        tight, loose = net(paint(places=4)), net(paint(places=9))
    for name, term in tight.items():
        assert torch.equal(term.sum, loose[name].sum), name
        assert torch.equal(term.count, loose[name].count), name


def test_images_of_a_batch_do_not_see_each_other(small: Small, paint: Callable[..., Batch]) -> None:
    net, batch = build_detector(small(), 4), paint()
    with torch.no_grad():
        together = net(batch)
        apart = [net(part) for part in batch.chunk(2)]
    for name, term in together.items():
        torch.testing.assert_close(term.sum, apart[0][name].sum + apart[1][name].sum, rtol=1e-4, atol=1e-5)
        assert torch.equal(term.count, apart[0][name].count + apart[1][name].count)


@pytest.mark.parametrize("norm", ["gn", "bn"])
def test_counts_alone_equal_those_of_the_losses_and_change_nothing(
    norm: str, small: Small, paint: Callable[..., Batch]
) -> None:
    net, batch = build_detector(small(f"model.norm={norm}"), 4), paint()
    before = copy.deepcopy(net.state_dict())
    counts = net.count_samples(batch)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    losses = net(batch)
    assert counts.keys() == losses.keys()
    assert all(torch.equal(counts[name], term.count) for name, term in losses.items())


def test_detections_lie_in_the_pixels_of_the_file(small: Small, paint: Callable[..., Batch]) -> None:
    net, batch = build_detector(small("model.inference.score_threshold=0.0"), 4).eval(), paint()
    grown = replace(batch, original_sizes=torch.tensor([[256, 64], [128, 128]]))
    same, moved = net.detect(batch), net.detect(grown)
    torch.testing.assert_close(moved[0].boxes, same[0].boxes * torch.tensor([0.5, 2.0, 0.5, 2.0]))
    assert torch.equal(moved[1].boxes, same[1].boxes)
    for found in moved:
        assert torch.equal(found.scores, found.scores.sort(descending=True).values)


def test_padding_of_the_picture_is_zero_and_detections_keep_out_of_it(
    small: Small, paint: Callable[..., Batch]
) -> None:
    net, batch = build_detector(small("model.inference.score_threshold=0.0"), 4).eval(), paint()
    wide = replace(batch, images=pad(batch.images, (0, 64), value=200))
    x = net.normalise(wide.images, wide.sizes)
    assert not x[..., 128:].any()
    torch.testing.assert_close(x[..., :128], (batch.images - 127.5) / 64)
    assert all(float(found.boxes.max()) <= 128 for found in net.detect(wide))


def test_class_agnostic_heads_and_faster_rcnn(small: Small, paint: Callable[..., Batch]) -> None:
    batch = paint()
    net = build_detector(small("model.mask_head.class_agnostic=true", "model.box_head.class_agnostic=true"), 4)
    total(net(batch)).backward()
    assert net.mask_head is not None
    assert net.mask_head.predictor.out_channels == 1
    assert net.box_head.deltas.out_features == 4
    net.eval().detect(batch)

    boxes_only = build_detector(small("model.mask_head.enabled=false"), 4)
    assert "mask" not in boxes_only(batch)
    assert boxes_only.eval().detect(batch)[0].masks is None


def test_frozen_stages_keep_their_weights_and_batch_norms_in_them_stand_still(small: Small) -> None:
    net = build_detector(small("model.norm=bn", "model.backbone.freeze_at=2", "model.backbone.depth=18"), 4)
    free = {name.split(".")[0] for name, p in net.backbone.named_parameters() if p.requires_grad}
    assert free == {"layer2", "layer3", "layer4"}
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in net.backbone.layer1.modules())


def test_parts_that_do_not_fit_are_refused(small: Small) -> None:
    with pytest.raises(UserError, match="anchor_sizes"):
        build_detector(small("model.rpn.anchor_sizes=[12,24]"), 4)
    with pytest.raises(UserError, match="separable"):
        build_detector(small("model.pooler.sampling_ratio=0"), 4)
