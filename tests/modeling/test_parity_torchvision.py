"""The same weights, targets and samples give what torchvision's Mask R-CNN gives.

Where the two differ by design, ours is switched to torchvision's way here: RoIAlign without the half-pixel shift and
with 2 points a bin, Huber losses with beta 1/9, anchors rounded to whole pixels, soft mask targets, RPN losses
divided by the anchors found instead of asked for, background as the first instead of the last class. Both are asked
for more anchors and regions than there are, so both train on all of them.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchvision.models.detection import MaskRCNN as TorchvisionMaskRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import roi_align

from mrbench.config.schema import BoxHeadConfig, MaskHeadConfig, ModelConfig, PoolerConfig, RoIConfig, RPNConfig
from mrbench.data.batch import Batch
from mrbench.modeling.build import build_detector
from mrbench.modeling.detector import MaskRCNN

HEIGHT, WIDTH = 128, 192  # multiples of 64: torchvision derives P6's stride from the padded size
CLASSES = 4


@pytest.fixture(scope="module")
def reference() -> TorchvisionMaskRCNN:
    torch.manual_seed(0)
    backbone = resnet_fpn_backbone(backbone_name="resnet50", weights=None, trainable_layers=5)
    net = TorchvisionMaskRCNN(
        backbone,
        CLASSES + 1,
        rpn_post_nms_top_n_train=100,
        rpn_post_nms_top_n_test=100,
        rpn_batch_size_per_image=16384,
        box_batch_size_per_image=16384,
        box_positive_fraction=0.25,
    )
    with torch.no_grad():
        for name, value in [*net.named_buffers(), *net.named_parameters()]:
            if name.endswith("bn3.weight"):
                value.fill_(0.2)  # keeps random residuals from growing
        net.rpn.head.cls_logits.weight.mul_(20)  # scores that tell the regions apart
        net.roi_heads.box_predictor.cls_score.weight.mul_(4)
    return net


def ours_from(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's state dict in our names."""
    pairs = [
        ("backbone.body.", "backbone."),
        ("backbone.fpn.", "neck."),
        ("rpn.head.conv.0.0.", "rpn.head.convs.0."),
        ("rpn.head.cls_logits.", "rpn.head.objectness."),
        ("rpn.head.bbox_pred.", "rpn.head.deltas."),
        ("roi_heads.box_head.fc6.", "box_head.fcs.0."),
        ("roi_heads.box_head.fc7.", "box_head.fcs.1."),
        ("roi_heads.box_predictor.cls_score.", "box_head.classes."),
        ("roi_heads.box_predictor.bbox_pred.", "box_head.deltas."),
        *((f"roi_heads.mask_head.{i}.0.", f"mask_head.convs.{3 * i}.") for i in range(4)),
        ("roi_heads.mask_predictor.conv5_mask.", "mask_head.upsample."),
        ("roi_heads.mask_predictor.mask_fcn_logits.", "mask_head.predictor."),
    ]
    ours = {}
    for name, value in state.items():
        theirs, own = next(pair for pair in pairs if name.startswith(pair[0]))
        if "cls_score" in name:
            value = value.roll(-1, 0)
        elif "box_predictor.bbox_pred" in name:
            value = value[4:]
        elif "mask_fcn_logits" in name:
            value = value[1:]
        ours[own + name.removeprefix(theirs)] = value
    return ours


@pytest.fixture
def model(reference: TorchvisionMaskRCNN) -> MaskRCNN:
    config = ModelConfig(
        rpn=RPNConfig(samples=16384, smooth_l1_beta=1 / 9, post_nms_train=100, post_nms_test=100),
        pooler=PoolerConfig(sampling_ratio=2, aligned=False),
        roi=RoIConfig(samples=16384, smooth_l1_beta=1 / 9),
        box_head=BoxHeadConfig(),
        mask_head=MaskHeadConfig(),
    )
    config.backbone.freeze_at = 0
    net = build_detector(config, CLASSES)
    net.load_state_dict(ours_from(reference.state_dict()))
    net.rpn.anchors.cells = [cell.round() for cell in net.rpn.anchors.cells]
    return net


@pytest.fixture
def batch(make_batch: Callable[..., Batch]) -> Batch:
    g = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (2, 3, HEIGHT, WIDTH), generator=g, dtype=torch.uint8)
    boxes = [
        torch.tensor([[10.0, 12, 70, 90], [60, 30, 100, 60], [100, 20, 180, 120]]),
        torch.tensor([[30.0, 30, 62, 64], [5, 70, 150, 125]]),
    ]
    masks = []
    for of_image in boxes:
        here = []
        for x1, y1, x2, y2 in of_image.long().tolist():
            mask = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
            mask[y1:y2, x1:x2] = torch.rand(y2 - y1, x2 - x1, generator=g) < 0.5
            mask[y1, x1] = mask[y2 - 1, x2 - 1] = True
            here.append(mask)
        masks.append(here)
    made = make_batch(images, boxes, [torch.tensor([0, 3, 1]), torch.tensor([2, 1])], masks)
    made.full = masks  # type: ignore[attr-defined]
    return made


def test_losses_agree(reference: TorchvisionMaskRCNN, model: MaskRCNN, batch: Batch) -> None:
    full = torch.zeros(2, 3, HEIGHT, WIDTH)
    for i, masks in enumerate(batch.full):  # type: ignore[attr-defined]
        full[i, : len(masks)] = torch.stack(masks).float()

    def soft(_: object, boxes: Tensor, image: Tensor, instance: Tensor, size: int) -> Tensor:
        rois = torch.cat([torch.arange(len(boxes))[:, None].float(), boxes], 1)
        return roi_align(full[image, instance][:, None], rois, size, 1.0)[:, 0]

    model.train()
    reference.train()
    model.mask_target = soft
    x = model.normalise(batch.images, batch.sizes)
    real = [lab >= 0 for lab in batch.labels]
    targets = [
        {"boxes": batch.boxes[i][r], "labels": batch.labels[i][r] + 1, "masks": full[i][: int(r.sum())]}
        for i, r in enumerate(real)
    ]
    images = ImageList(x, [(HEIGHT, WIDTH)] * 2)
    features = reference.backbone(x)
    proposals, theirs = reference.rpn(images, features, targets)
    _, of_heads = reference.roi_heads(features, proposals, images.image_sizes, targets)
    theirs |= of_heads

    terms = model(batch)
    ours = {name: term.sum / term.count for name, term in terms.items()}
    output = model.rpn(model.features(batch))
    labels, _ = model.rpn.label_anchors(output.anchors, batch.labels >= 0, batch.boxes)
    found = int((labels >= 0).sum())
    assert int((labels == 1).sum()) > 2
    for name in ("rpn_objectness", "rpn_box"):
        ours[name] = terms[name].sum / found

    names = {
        "rpn_objectness": "loss_objectness",
        "rpn_box": "loss_rpn_box_reg",
        "box_class": "loss_classifier",
        "box_regression": "loss_box_reg",
        "mask": "loss_mask",
    }
    for own, name in names.items():
        assert float(ours[own].detach()) == pytest.approx(float(theirs[name].detach()), rel=1e-4), own

    # gradients of the whole: the deepest and the last layers of every branch
    torch.stack([ours[n] for n in names]).sum().backward()
    torch.stack([theirs[n] for n in names.values()]).sum().backward()
    wanted = ours_from({name: p.grad for name, p in reference.named_parameters()})
    for name, p in model.named_parameters():
        assert p.grad is not None
        assert float((p.grad - wanted[name]).norm()) <= 1e-3 * float(wanted[name].norm()) + 1e-9, name


def test_detections_agree(reference: TorchvisionMaskRCNN, model: MaskRCNN, batch: Batch) -> None:
    model.eval()
    reference.eval()
    with torch.no_grad():
        x = model.normalise(batch.images, batch.sizes)
        images = ImageList(x, [(HEIGHT, WIDTH)] * 2)
        features = reference.backbone(x)
        for ours, theirs in zip(model.features(batch), features.values(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
        proposals, _ = reference.rpn(images, features)
        wanted, _ = reference.roi_heads(features, proposals, images.image_sizes)
    for ours, theirs in zip(model.detect(batch), wanted, strict=True):
        assert len(theirs["labels"]) > 5
        assert ours.labels.tolist() == (theirs["labels"] - 1).tolist()
        torch.testing.assert_close(ours.scores, theirs["scores"], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(ours.boxes, theirs["boxes"], rtol=1e-4, atol=5e-3)
        torch.testing.assert_close(ours.masks, theirs["masks"][:, 0], rtol=1e-4, atol=1e-5)
