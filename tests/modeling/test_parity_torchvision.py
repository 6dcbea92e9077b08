"""The same weights, targets and samples give what torchvision's Faster, Mask and Keypoint R-CNN give, `_v2` included.

The weights are random, and go through a file as torchvision's own do. Where the two differ by design, ours is switched
to torchvision's way here: RoIAlign without the half-pixel shift and with 2 points a bin, Huber losses with beta 1/9
(`_v2` and Keypoint R-CNN are no exception), anchors rounded to whole pixels, soft mask targets, RPN losses divided by
the anchors found instead of asked for. Background is torchvision's first class and our last. Pictures' sides are
multiples of 64, because torchvision derives P6's stride from the padded size. Both are asked for more anchors and
regions than there are, so both train on all of them. A keypoint's score is a logit there and a probability here (as
in Detectron2), and is left to test_keypoints.py.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import (
    FasterRCNN,
    KeypointRCNN,
    MaskRCNN,
    fasterrcnn_resnet50_fpn_v2,
    maskrcnn_resnet50_fpn_v2,
)
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import roi_align

from mrbench.config.schema import ModelConfig, PoolerConfig, RoIConfig, RPNConfig
from mrbench.data.batch import Batch
from mrbench.modeling import detector
from mrbench.modeling.build import build_detector
from mrbench.modeling.load import load_into
from mrbench.weights.files import inspect

HEIGHT, WIDTH = 128, 192
DETECTIONS = 20  # of an image
EVERYTHING = {
    "rpn_post_nms_top_n_train": 40,
    "rpn_post_nms_top_n_test": 40,
    "rpn_batch_size_per_image": 16384,
    "box_batch_size_per_image": 16384,
    "box_positive_fraction": 0.25,
    "box_detections_per_img": DETECTIONS,
}
LOSSES = {
    "rpn_objectness": "loss_objectness",
    "rpn_box": "loss_rpn_box_reg",
    "box_class": "loss_classifier",
    "box_regression": "loss_box_reg",
    "mask": "loss_mask",
    "keypoint": "loss_keypoint",
}


def first(kind: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """As torchvision's first versions are with trained weights, whose batch norms are frozen."""
    return lambda classes: kind(
        resnet_fpn_backbone(backbone_name="resnet50", weights=None, trainable_layers=5), classes + 1, **EVERYTHING
    )


def second(make: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    return lambda classes: make(weights=None, weights_backbone=None, num_classes=classes + 1, **EVERYTHING)


MODELS: dict[str, tuple[Callable[..., nn.Module], int]] = {
    "fasterrcnn_resnet50_fpn": (first(FasterRCNN), 4),
    "fasterrcnn_resnet50_fpn_v2": (second(fasterrcnn_resnet50_fpn_v2), 4),
    "maskrcnn_resnet50_fpn": (first(MaskRCNN), 4),
    "maskrcnn_resnet50_fpn_v2": (second(maskrcnn_resnet50_fpn_v2), 4),
    "keypointrcnn_resnet50_fpn": (first(KeypointRCNN), 1),
}


def configured(name: str) -> ModelConfig:
    config = ModelConfig(
        rpn=RPNConfig(
            samples=16384, smooth_l1_beta=1 / 9, post_nms_train=40, post_nms_test=40, anchor_rounding="corners"
        ),
        pooler=PoolerConfig(sampling_ratio=2, aligned=False),
        roi=RoIConfig(samples=16384, smooth_l1_beta=1 / 9),
    )
    config.backbone.freeze_at = 0
    config.inference.detections_per_image = DETECTIONS
    config.mask_head.enabled = name.startswith("mask")
    config.keypoint_head.enabled = name.startswith("keypoint")
    if name.endswith("_v2"):
        config.backbone.norm = config.neck.norm = config.box_head.norm = config.mask_head.norm = "bn"
        config.rpn.convs, config.box_head.convs, config.box_head.fcs = 2, 4, 1
    return config


@pytest.fixture(scope="module", params=MODELS)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, detector.MaskRCNN]:
    """torchvision's network, and ours from its file."""
    make, classes = MODELS[request.param]
    torch.manual_seed(0)
    theirs: Any = make(classes)
    spread(theirs)
    path = tmp_path_factory.mktemp("weights") / f"{request.param}.pth"
    torch.save(theirs.state_dict(), path)
    ours = build_detector(configured(request.param), classes)
    loaded = load_into(ours, path)
    assert loaded.file.layout.name == "torchvision"
    assert not loaded.uninitialised + loaded.unplaced + loaded.misshapen
    return theirs, ours


@torch.no_grad()
def spread(net: Any) -> None:
    """Keeps random residuals from growing, and gives predictions that tell regions, classes and pixels apart."""
    g = torch.Generator().manual_seed(3)
    for name, value in net.state_dict().items():
        if name.endswith("running_mean"):
            value.normal_(0, 0.05, generator=g)
        elif name.endswith("running_var"):
            value.uniform_(0.7, 1.3, generator=g)
        elif name.endswith("bn3.weight"):
            value.fill_(0.2)
    heads = net.roi_heads
    net.rpn.head.cls_logits.weight.mul_(20)
    heads.box_predictor.cls_score.weight.mul_(16)
    if heads.has_mask():
        heads.mask_predictor.mask_fcn_logits.weight.mul_(20)


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    return torch.randint(0, 256, (2, 3, HEIGHT, WIDTH), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def painted(make_batch: Callable[..., Batch], images: Tensor, classes: int) -> tuple[Batch, Tensor]:
    """A batch with masks and keypoints, and its masks as full pictures [2, 3, H, W]."""
    g = torch.Generator().manual_seed(2)
    boxes = [
        torch.tensor([[10.0, 12, 70, 90], [60, 30, 100, 60], [100, 20, 180, 120]]),
        torch.tensor([[30.0, 30, 62, 64], [5, 70, 150, 125]]),
    ]
    labels = [torch.tensor([0, 3, 1]) % classes, torch.tensor([2, 1]) % classes]
    masks, full, keypoints = [], torch.zeros(2, 3, HEIGHT, WIDTH), torch.zeros(2, 3, 17, 3)
    for i, of_image in enumerate(boxes):
        here = []
        for k, (x1, y1, x2, y2) in enumerate(of_image.long().tolist()):
            mask = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
            mask[y1:y2, x1:x2] = torch.rand(y2 - y1, x2 - x1, generator=g) < 0.5
            mask[y1, x1] = mask[y2 - 1, x2 - 1] = True
            here.append(mask)
            full[i, k] = mask
            place = torch.rand(17, 2, generator=g) * (of_image[k, 2:] - of_image[k, :2]) + of_image[k, :2]
            seen = torch.randint(0, 3, (17, 1), generator=g).float()
            keypoints[i, k] = torch.cat([place, seen], 1)
        masks.append(here)
    batch = make_batch(images, boxes, labels, masks)
    batch.keypoints = keypoints
    return batch, full


def soft_targets(full: Tensor) -> Callable[..., Tensor]:
    """torchvision's mask targets: RoIAlign on the mask (roi_heads.py, `project_masks_on_boxes`)."""

    def target(_: object, boxes: Tensor, image: Tensor, instance: Tensor, size: int) -> Tensor:
        rois = torch.cat([torch.arange(len(boxes))[:, None].float(), boxes], 1)
        return roi_align(full[image, instance][:, None], rois, size, 1.0)[:, 0]

    return target


def test_detections_agree(
    both: tuple[Any, detector.MaskRCNN], pictures: Tensor, make_batch: Callable[..., Batch]
) -> None:
    theirs, ours = both
    ours.eval()
    theirs.eval()
    batch, _ = painted(make_batch, pictures, ours.num_classes)
    with torch.no_grad():
        images = ImageList(ours.normalise(batch.images, batch.sizes), [(HEIGHT, WIDTH)] * 2)
        features = theirs.backbone(images.tensors)
        proposals, _ = theirs.rpn(images, features)
        wanted, _ = theirs.roi_heads(features, proposals, images.image_sizes)
        for a, b in zip(ours.features(batch), features.values(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    found = ours.detect(batch)
    for one, other in zip(found, wanted, strict=True):
        assert len(other["labels"]) > 5
        assert float(other["scores"].max() - other["scores"].min()) > 0.02
        assert one.labels.tolist() == (other["labels"] - 1).tolist()
        torch.testing.assert_close(one.scores, other["scores"], rtol=0, atol=2e-4)
        torch.testing.assert_close(one.boxes, other["boxes"], rtol=0, atol=5e-3)
        if "masks" in other:
            assert float(other["masks"].std()) > 0.02
            assert one.masks is not None
            torch.testing.assert_close(one.masks, other["masks"][:, 0], rtol=0, atol=1e-3)
        if "keypoints" in other:
            assert one.keypoints is not None
            torch.testing.assert_close(one.keypoints[..., :2], other["keypoints"][..., :2], rtol=0, atol=5e-3)


def test_losses_and_gradients_agree(
    both: tuple[Any, detector.MaskRCNN], pictures: Tensor, make_batch: Callable[..., Batch], tmp_path: Path
) -> None:
    theirs, ours = both
    ours.train()
    theirs.train()
    batch, full = painted(make_batch, pictures, ours.num_classes)
    assert batch.keypoints is not None
    ours.mask_target = soft_targets(full)
    targets = []
    for i, labels in enumerate(batch.labels):
        real = labels >= 0
        targets.append(
            {
                "boxes": batch.boxes[i][real],
                "labels": labels[real] + 1,
                "masks": full[i, : int(real.sum())],
                "keypoints": batch.keypoints[i, : int(real.sum())],
            }
        )
    images = ImageList(ours.normalise(batch.images, batch.sizes), [(HEIGHT, WIDTH)] * 2)
    features = theirs.backbone(images.tensors)
    proposals, wanted = theirs.rpn(images, features, targets)
    wanted |= theirs.roi_heads(features, proposals, images.image_sizes, targets)[1]

    seen: list[Any] = []
    hook = ours.rpn.register_forward_hook(lambda module, given, output: seen.append(output))
    terms = ours(batch)
    hook.remove()
    counts = {name: term.count for name, term in terms.items()}
    labels, _ = ours.rpn.label_anchors(seen[0].anchors, batch.labels >= 0, batch.boxes)
    assert int((labels == 1).sum()) > 2
    counts["rpn_objectness"] = counts["rpn_box"] = (labels >= 0).sum()
    losses = {name: term.sum / counts[name] for name, term in terms.items()}
    assert {LOSSES[name] for name in losses} == set(wanted)
    for name, loss in losses.items():
        assert float(loss.detach()) == pytest.approx(float(wanted[LOSSES[name]].detach()), rel=1e-4), name

    torch.stack(list(losses.values())).sum().backward()
    torch.stack(list(wanted.values())).sum().backward()
    # their gradients take the same way through a file as their weights
    torch.save({name: p.grad for name, p in theirs.named_parameters()}, tmp_path / "gradients.pth")
    of_theirs = inspect(tmp_path / "gradients.pth").translated().tensors
    for name, p in ours.named_parameters():
        assert p.grad is not None
        reference = of_theirs[name]
        assert float((p.grad - reference).norm()) <= 5e-3 * float(reference.norm()) + 1e-7, name
