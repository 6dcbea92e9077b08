"""Cascade R-CNN against its algorithm written image by image with torchvision's box arithmetic."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import batched_nms, box_iou, clip_boxes_to_image

from mrbench.config.composer import compose
from mrbench.config.schema import ModelConfig
from mrbench.data.batch import Batch
from mrbench.errors import UserError
from mrbench.modeling.build import build_detector
from mrbench.modeling.cascade import CascadeHead
from mrbench.modeling.detector import MaskRCNN
from mrbench.modeling.losses import LossTerm

Small = Callable[..., ModelConfig]
CASCADE = ("model.box_head.cascade=[0.5,0.6,0.7]", "model.box_head.class_agnostic=true")
IOUS = (0.5, 0.6, 0.7)
CODERS = [BoxCoder((10.0, 10.0, 5.0, 5.0)), BoxCoder((20.0, 20.0, 10.0, 10.0)), BoxCoder((30.0, 30.0, 15.0, 15.0))]


def total(losses: dict[str, LossTerm]) -> Tensor:
    return torch.stack([term.sum / term.count.clamp(min=1) for term in losses.values()]).sum()


def build(config: ModelConfig, spread: float = 0.1) -> MaskRCNN:
    """A network whose cascade moves boxes about, so that stages differ."""
    torch.manual_seed(0)
    net = build_detector(config, 4)
    assert isinstance(net.box_head, CascadeHead)
    for stage in net.box_head.stages:
        torch.nn.init.normal_(stage.deltas.weight, std=spread)
        torch.nn.init.normal_(stage.classes.weight, std=0.1)
    return net


def reference_losses(net: MaskRCNN, features: list[Tensor], batch: Batch) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Sums and numbers of boxes, one image after another."""
    samples = net._sample(batch, net.rpn.propose(net.rpn(features), batch.sizes))
    sums = {f"{name}_{k}": torch.zeros(()) for k in (1, 2, 3) for name in ("box_class", "box_regression")}
    counts = dict.fromkeys(sums, 0)
    for b in range(len(batch)):
        real = batch.labels[b] >= 0
        truths, classes = batch.boxes[b][real], batch.labels[b][real]
        height, width = batch.sizes[b].tolist()
        boxes = samples.boxes[b][samples.used[b]]
        for k, (stage, coder, iou) in enumerate(zip(net.box_head.stages, CODERS, IOUS, strict=True), 1):
            overlap, nearest = box_iou(boxes, truths).max(1)
            hit = overlap >= iou
            if k == 1:  # as sampled
                assert torch.equal(hit, samples.foreground[b][samples.used[b]])
            pooled = net.box_pooler(features, boxes, torch.full((len(boxes),), b))
            pooled = pooled / 3 + (pooled * 2 / 3).detach()
            logits, deltas = stage(pooled)
            deltas = deltas[:, 0]
            wanted = torch.where(hit, classes[nearest], 4)
            sums[f"box_class_{k}"] = sums[f"box_class_{k}"] + F.cross_entropy(logits, wanted, reduction="sum")
            target = coder.encode_single(truths[nearest][hit], boxes[hit])
            sums[f"box_regression_{k}"] = sums[f"box_regression_{k}"] + (deltas[hit] - target).abs().sum()
            for name in ("box_class", "box_regression"):
                counts[f"{name}_{k}"] += len(boxes)
            boxes = clip_boxes_to_image(coder.decode_single(deltas.detach(), boxes), (height, width))
            boxes = boxes[(boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])]
    return sums, counts


@pytest.mark.parametrize("compact", [True, False])
def test_losses_counts_and_gradients_equal_the_reference(
    compact: bool, small: Small, paint: Callable[..., Batch]
) -> None:
    # so far apart that some boxes leave their picture and are dropped from the later stages
    net, batch = build(small(*CASCADE, "model.roi.samples=60"), spread=4.0), paint()
    net._compacts = lambda _: compact  # type: ignore[method-assign]
    features = [f.detach().requires_grad_() for f in net.features(batch)]
    samples = net._sample(batch, net.rpn.propose(net.rpn(features), batch.sizes))
    ours = net._box_losses(features, samples, batch)
    sums, counts = reference_losses(net, features, batch)
    assert list(ours) == list(sums)
    assert counts["box_class_3"] < counts["box_class_1"]
    assert float(sums["box_regression_2"].detach()) > 0
    for name, term in ours.items():
        torch.testing.assert_close(term.sum, sums[name], rtol=1e-4, atol=1e-3)
        assert int(term.count) == counts[name]

    wrt = [*features, *net.box_head.parameters()]
    got = torch.autograd.grad(torch.stack([t.sum for t in ours.values()]).sum(), wrt)
    wanted = torch.autograd.grad(torch.stack(list(sums.values())).sum(), wrt)
    for gradient, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-3, atol=1e-3 * float(other.abs().max() + 1e-6))

    told, losses = net.count_samples(batch), net(batch)
    assert told.keys() == losses.keys()
    assert all(torch.equal(told[name], term.count) for name, term in losses.items())


def test_detections_equal_the_reference(small: Small, paint: Callable[..., Batch]) -> None:
    config = small(*CASCADE, "model.inference.score_threshold=0.21")
    net, batch = build(config, spread=0.5).eval(), paint()
    with torch.no_grad():
        features = net.features(batch)
        proposals = net.rpn.propose(net.rpn(features), batch.sizes)
        for b, found in enumerate(net.detect(batch)):
            boxes = proposals.boxes[b][proposals.valid[b]]
            scores = torch.zeros(len(boxes), 5)
            for stage, coder in zip(net.box_head.stages, CODERS, strict=True):
                logits, deltas = stage(net.box_pooler(features, boxes, torch.full((len(boxes),), b)))
                scores += logits.softmax(1) / 3
                boxes = clip_boxes_to_image(coder.decode_single(deltas[:, 0], boxes), (128, 128))
            region, label = torch.where(scores[:, :4] > 0.21)
            keep = batched_nms(boxes[region], scores[region, label], label, config.inference.nms_threshold)[:30]
            assert len(keep) > 5
            # a box without area is no detection
            seen = (boxes[region[keep], 2:] > boxes[region[keep], :2]).all(1)
            keep = keep[seen]
            torch.testing.assert_close(found.boxes, boxes[region[keep]], rtol=1e-4, atol=1e-2)
            torch.testing.assert_close(found.scores, scores[region[keep], label[keep]], rtol=1e-4, atol=1e-5)
            assert torch.equal(found.labels, label[keep])
            assert found.masks is not None
            image = torch.full_like(found.labels, b)
            masks = net.masks_of(features, found.boxes, image, found.labels)  # on the last boxes
            assert masks is not None
            torch.testing.assert_close(found.masks, masks, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", ["gn", "bn"])
def test_pictures_without_instances_train_every_parameter(
    norm: str, small: Small, paint: Callable[..., Batch]
) -> None:
    net = build_detector(small(f"model.norm={norm}", *CASCADE), 4)
    total(net(paint(instances=0))).backward()
    for name, p in net.named_parameters():
        assert p.grad is not None, name
        assert torch.isfinite(p.grad).all(), name
    net.eval().detect(paint(instances=0))


def test_the_published_configuration_has_three_heads_and_their_weights() -> None:
    """Detectron2's defaults of MODEL.ROI_BOX_CASCADE_HEAD."""
    config = compose(["model=cascade_mask_rcnn_r50_fpn", "model.backbone.weights=null"]).model
    with torch.device("meta"):
        net = build_detector(config, 80)
    assert isinstance(net.box_head, CascadeHead)
    assert net.box_head.weights == [[10, 10, 5, 5], [20, 20, 10, 10], [30, 30, 15, 15]]
    assert net.box_head.ious == [0.5, 0.6, 0.7]
    one = (256 * 49 + 1) * 1024 + 1025 * 1024 + 1025 * 81 + 1025 * 4
    assert sum(p.numel() for p in net.box_head.parameters()) == 3 * one


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("model.box_head.class_agnostic=false", "do not depend on the class"),
        ("model.box_head.cascade=[0.6,0.7]", "begins with 0.6"),
        ("model.box_head.cascade=[0.5,0.7,0.6]", "not rising"),
    ],
)
def test_cascades_that_cannot_be_are_refused(change: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        compose(["model=cascade_mask_rcnn_r50_fpn", change])
