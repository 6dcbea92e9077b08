"""The same weights give the answers that Detectron2 gives (reference outputs beside the clone)."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as rle
from torch import Tensor
from torchvision.ops import roi_align

from mrbench.config.schema import (
    BackboneConfig,
    BoxHeadConfig,
    MaskHeadConfig,
    ModelConfig,
    NeckConfig,
)
from mrbench.config.schema_training import OptimizerConfig
from mrbench.data.batch import Batch, MaskWindows
from mrbench.engine.optimizer import build_optimizer
from mrbench.modeling.build import build_detector
from mrbench.modeling.detector import MaskRCNN
from mrbench.modeling.paste import paste_masks
from mrbench.weights.detectron2 import convert

SIDE = 320


@pytest.fixture(scope="module")
def folder(shared: Path) -> Path:
    return shared / "parity/detectron2/frozenbn"


def load(folder: Path, name: str) -> Any:
    return torch.load(folder / name, weights_only=True)


@pytest.fixture
def model(folder: Path) -> MaskRCNN:
    config = ModelConfig(
        pixel_std=[1.0, 1.0, 1.0],
        backbone=BackboneConfig(width=16, stride_in_1x1=True),
        neck=NeckConfig(channels=32),
        box_head=BoxHeadConfig(fc_channels=64),
        mask_head=MaskHeadConfig(channels=32),
    )
    # as in the fixture: no anchor and no proposal is left out
    config.rpn.samples, config.roi.samples = 65536, 16384
    net = build_detector(config, num_classes=5)
    net.load_state_dict(convert(load(folder, "state_dict.pt")))
    return net


@pytest.fixture
def batch(folder: Path) -> Batch:
    truth = json.loads((folder / "gt.json").read_text())
    images, sizes = torch.zeros(2, 3, SIDE, SIDE, dtype=torch.uint8), torch.zeros(2, 2, dtype=torch.int64)
    boxes, labels = torch.zeros(2, 9, 4), torch.full((2, 9), -1)
    for i, one in enumerate(truth):
        picture = torch.from_numpy(np.load(folder / f"image{i}.npy")).permute(2, 0, 1).flip(0)  # BGR to RGB
        sizes[i] = torch.tensor(picture.shape[1:])
        images[i, :, : sizes[i, 0], : sizes[i, 1]] = picture
        boxes[i, : len(one["boxes"])] = torch.tensor(one["boxes"])
        labels[i, : len(one["classes"])] = torch.tensor(one["classes"])
    original = torch.tensor([one["orig_size"] for one in truth])
    return Batch(images, sizes, original, boxes, labels, None, torch.tensor([1, 2]), [0, 1], 0)


def farthest(a: Tensor, b: Tensor) -> float:
    """Of two sets of rows, how far any is from the nearest of the other set."""
    assert a.shape == b.shape
    apart = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
    return float(torch.maximum(apart.amin(0).max(), apart.amin(1).max()))


def sampled_targets(folder: Path) -> Any:
    """Detectron2's mask target: RoIAlign of the full-size bit mask, thresholded (`BitMasks.crop_and_resize`)."""
    truth = json.loads((folder / "gt.json").read_text())
    full = torch.zeros(2, 9, SIDE, SIDE)
    for i, one in enumerate(truth):
        for g, code in enumerate(one["bitmask_rle"]):
            mask = torch.from_numpy(rle.decode(code)).float()
            full[i, g, : mask.shape[0], : mask.shape[1]] = mask

    def target(_: object, boxes: Tensor, image: Tensor, instance: Tensor, size: int) -> Tensor:
        rois = torch.cat([torch.arange(len(boxes))[:, None].float(), boxes], 1)
        return (roi_align(full[image, instance][:, None], rois, size, 1.0, 0, True)[:, 0] >= 0.5).float()

    return target


def polygon_targets(folder: Path) -> Any:
    """Detectron2's other mask target: the polygons moved to the region's cells and filled there by the COCO API
    (structures/masks.py, `PolygonMasks.crop_and_resize`, `rasterize_polygons_within_box`)."""
    truth = json.loads((folder / "gt.json").read_text())

    def target(_: object, boxes: Tensor, image: Tensor, instance: Tensor, size: int) -> Tensor:
        masks = []
        for box, i, g in zip(boxes.double().numpy(), image.tolist(), instance.tolist(), strict=True):
            scale = size / np.maximum(box[2:] - box[:2], 0.1)
            moved = [(np.reshape(p, (-1, 2)) - box[:2]) * scale for p in truth[i]["polygons"][g]]
            filled = rle.merge(rle.frPyObjects([p.ravel().tolist() for p in moved], size, size))
            masks.append(torch.from_numpy(rle.decode(filled)).float())
        return torch.stack(masks)

    return target


LOSSES = {
    "rpn_objectness": "loss_rpn_cls",
    "rpn_box": "loss_rpn_loc",
    "box_class": "loss_cls",
    "box_regression": "loss_box_reg",
    "mask": "loss_mask",
}


def train_losses(model: MaskRCNN, batch: Batch, folder: Path, kind: str) -> dict[str, Tensor]:
    """With mask targets of Detectron2's `kind`."""
    model.train()
    model.mask_target = (polygon_targets if kind == "polygon" else sampled_targets)(folder)
    batch.masks = object()  # type: ignore[assignment]  # the targets have their own
    return {name: term.sum / term.count for name, term in model(batch).items()}


def test_features_predictions_and_anchors_agree(model: MaskRCNN, batch: Batch, folder: Path) -> None:
    theirs = load(folder, "intermediate.pt")
    with torch.no_grad():
        features = model.eval().features(batch)
        output = model.rpn(features)
    for level, ours in enumerate(features):
        reference = theirs["features"][f"p{level + 2}"]
        torch.testing.assert_close(ours[: len(reference)], reference, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(output.anchors, torch.cat(theirs["anchors"]))
    logits = output.objectness.split(output.per_level, 1)
    deltas = output.deltas.split(output.per_level, 1)
    for level in range(5):
        reference = theirs["rpn_logits"][level]
        ours = logits[level][: len(reference)]
        torch.testing.assert_close(ours, reference.permute(0, 2, 3, 1).flatten(1), rtol=1e-4, atol=1e-4)
        reference = theirs["rpn_deltas"][level]
        ours = deltas[level][: len(reference)]
        reference = reference.permute(0, 2, 3, 1).reshape(len(reference), -1, 4)
        torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-4)
    proposals = model.rpn.propose(output, batch.sizes)
    for i in range(2):
        valid = proposals.valid[i]
        torch.testing.assert_close(proposals.scores[i][valid], theirs["proposal_logits"][i], rtol=0, atol=1e-4)
        # neighbours of all but equal score may have changed places
        assert farthest(proposals.boxes[i][valid], theirs["proposal_boxes"][i]) < 5e-3


def test_detections_agree(model: MaskRCNN, batch: Batch, folder: Path) -> None:
    theirs = load(folder, "inference.pt")["batched"]
    found = model.eval().detect(batch)
    for i, (ours, reference) in enumerate(zip(found, theirs, strict=True)):
        assert ours.labels.tolist() == reference["classes"].tolist()
        torch.testing.assert_close(ours.scores, reference["scores"], rtol=0, atol=2e-4)
        torch.testing.assert_close(ours.boxes, reference["post_boxes"], rtol=0, atol=5e-3)
        assert ours.masks is not None
        torch.testing.assert_close(ours.masks, reference["mask_probs"], rtol=0, atol=1e-3)
        h, w = batch.original_sizes[i].tolist()
        pasted = paste_masks(ours.masks, ours.boxes, h, w, 0.5).numpy()
        wanted = np.stack([rle.decode(code) for code in reference["post_masks_rle"]]).astype(bool)
        assert (pasted != wanted).sum() <= 3  # a pixel may sit on the threshold


def test_labels_and_sampled_regions_agree(model: MaskRCNN, batch: Batch, folder: Path) -> None:
    theirs = load(folder, "train.pt")["labels"]
    model.train()
    with torch.no_grad():
        output = model.rpn(model.features(batch))
        labels, _ = model.rpn.label_anchors(output.anchors, batch.labels >= 0, batch.boxes)
        samples = model._sample(batch, model.rpn.propose(output, batch.sizes))
    for i in range(2):
        assert torch.equal(labels[i], theirs["rpn_labels"][i].long())
        used = samples.used[i]
        ours = torch.cat([samples.labels[i][used][:, None].float(), samples.boxes[i][used]], 1)
        reference = torch.cat([theirs["roi_gt_classes"][i][:, None].float(), theirs["roi_boxes"][i]], 1)
        # the order is random in both; a class is as far from the next as no box from its like
        scale = torch.tensor([100.0, 1, 1, 1, 1])
        assert farthest(ours * scale, reference * scale) < 5e-3


@pytest.mark.parametrize("kind", ["bitmask", "polygon"])
def test_losses_and_gradients_agree(model: MaskRCNN, batch: Batch, folder: Path, kind: str) -> None:
    theirs = json.loads((folder / "train.json").read_text())[kind]["losses"]
    losses = train_losses(model, batch, folder, kind)
    for ours, name in LOSSES.items():
        assert float(losses[ours].detach()) == pytest.approx(theirs[name], rel=1e-4), ours

    torch.stack(list(losses.values())).sum().backward()
    reference = json.loads((folder / f"grads_{kind}.json").read_text())
    gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    place = {k: next(iter(convert({k: torch.zeros(1)}, "RGB"))) for k in reference}
    assert set(place.values()) == set(gradients)
    for name, numbers in reference.items():
        gradient = gradients[place[name]]
        assert gradient is not None
        assert float(gradient.norm()) == pytest.approx(numbers["norm"], rel=5e-3), name
    if kind == "polygon":  # for which there are gradients of small tensors in full
        for name, gradient in load(folder, "train.pt")["small_grads"].items():
            own = gradients[place[name]]
            assert own is not None
            assert float((own - gradient).norm()) < 5e-3 * float(gradient.norm()), name


def test_five_steps_of_sgd_follow_the_same_losses(model: MaskRCNN, batch: Batch, folder: Path) -> None:
    trajectory = json.loads((folder / "train.json").read_text())["sgd_trajectory_losses"]
    optimizer = build_optimizer(model, OptimizerConfig(lr=0.005, momentum=0.9, weight_decay=1e-4))
    for step, theirs in enumerate(trajectory):
        losses = train_losses(model, batch, folder, "polygon")
        for ours, name in LOSSES.items():
            assert float(losses[ours].detach()) == pytest.approx(theirs[name], rel=1e-2), (step, ours)
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()


def test_coverage_is_close_to_the_sampled_bit_mask(
    model: MaskRCNN, batch: Batch, folder: Path, make_windows: Callable[..., MaskWindows]
) -> None:
    """The network's own mask target, which is neither of Detectron2's two."""
    truth = json.loads((folder / "gt.json").read_text())
    masks = [[torch.from_numpy(rle.decode(code)).bool() for code in one["bitmask_rle"]] for one in truth]
    batch.masks = make_windows(masks, 9)
    theirs = json.loads((folder / "train.json").read_text())["bitmask"]["losses"]
    model.train()
    with torch.no_grad():
        term = model(batch)["mask"]
    assert float(term.sum / term.count) == pytest.approx(theirs["loss_mask"], rel=2e-3)
