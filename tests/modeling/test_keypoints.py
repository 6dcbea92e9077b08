"""The keypoint branch against torchvision's, and what it learns from two pictures."""

import math

import pytest
import torch
from torchvision.models.detection import roi_heads
from torchvision.models.detection.keypoint_rcnn import (
    KeypointRCNN_ResNet50_FPN_Weights,
    KeypointRCNNHeads,
    KeypointRCNNPredictor,
)

from mrbench.config.composer import compose
from mrbench.config.schema import KeypointHeadConfig
from mrbench.data.loader import train_loader
from mrbench.data.sources import open_split
from mrbench.modeling import keypoint_decode
from mrbench.modeling.build import build_detector
from mrbench.modeling.keypoint_decode import heatmaps_to_keypoints
from mrbench.modeling.keypoint_head import KeypointHead, keypoint_loss, keypoint_targets
from mrbench.modeling.postprocess import keypoints_to_original

TRAIN = [
    "model=mask_rcnn_small",
    "data=coco_folder",
    "data.train.annotations=annotations/person_keypoints_train.json",
    "data.val.annotations=annotations/person_keypoints_val.json",
    "augmentation=multi_scale",
    "augmentation.short_edge=[128]",
    "augmentation.max_size=192",
    "model.keypoint_head.enabled=true",
    "model.keypoint_head.convs=2",
    "model.keypoint_head.channels=32",
]


def random_regions(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes [count, 4], and 17 keypoints each that lie mostly in them, some of them on the far border."""
    g = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 2, generator=g) * 100
    boxes = torch.cat([low, low + 1 + torch.rand(count, 2, generator=g) * 150], 1)
    within = torch.rand(count, 17, 2, generator=g) * 1.4 - 0.2
    xy = boxes[:, None, :2] + within * (boxes[:, None, 2:] - boxes[:, None, :2])
    xy[:, 3] = boxes[:, 2:]
    xy[:, 4, 0] = boxes[:, 0]
    visible = torch.randint(0, 3, (count, 17, 1), generator=g).float()
    return boxes, torch.cat([xy, visible], 2)


def test_targets_are_torchvisions():
    boxes, keypoints = random_regions(40)
    expected, counts = roi_heads.keypoints_to_heatmap(keypoints, boxes, 56)
    cells, valid = keypoint_targets(keypoints, boxes, 56)
    assert torch.equal(valid, counts.bool())
    assert torch.equal(cells[valid], expected[valid])
    assert 0 <= cells.min() <= cells.max() < 56 * 56


def test_a_keypoint_is_in_the_cell_that_holds_it():
    boxes = torch.tensor([[10.0, 20.0, 66.0, 132.0]])  # a cell is 1 x 2 pixels
    places = torch.tensor([[[10.0, 20.0, 2.0], [12.5, 25.9, 1.0], [66.0, 132.0, 2.0], [9.9, 30.0, 2.0], [12, 22, 0]]])
    cells, valid = keypoint_targets(places, boxes, 56)
    assert valid.tolist() == [[True, True, True, False, False]]
    assert cells[0, :3].tolist() == [0, 2 * 56 + 2, 56 * 56 - 1]


def test_loss_and_its_gradient_are_torchvisions():
    boxes, keypoints = random_regions(6, seed=1)
    logits = torch.randn(6, 17, 56, 56, requires_grad=True)
    expected = roi_heads.keypointrcnn_loss(logits, [boxes], [keypoints], [torch.arange(6)])
    (wanted,) = torch.autograd.grad(expected, logits)
    term = keypoint_loss(logits, *keypoint_targets(keypoints, boxes, 56))
    torch.testing.assert_close(term.sum / term.count, expected)
    (gradient,) = torch.autograd.grad(term.sum / term.count, logits)
    torch.testing.assert_close(gradient, wanted)


def test_head_is_torchvisions():
    theirs = torch.nn.Sequential(KeypointRCNNHeads(16, [32] * 8), KeypointRCNNPredictor(32, 17))
    ours = KeypointHead(KeypointHeadConfig(channels=32), 16)
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    x = torch.randn(2, 16, 14, 14)
    torch.testing.assert_close(ours(x), theirs(x))
    assert ours(x).shape == (2, 17, 56, 56)


def test_the_published_model_has_torchvisions_parameters():
    config = compose(["model=keypoint_rcnn_r50_fpn", "model.backbone.weights=null"]).model
    with torch.device("meta"):
        model = build_detector(config, 1)
    published = KeypointRCNN_ResNet50_FPN_Weights.COCO_V1.meta["num_params"]
    # torchvision regresses a box for the background as well: 4 outputs of 1024 inputs and a bias each
    assert sum(p.numel() for p in model.parameters()) == published - 4 * 1025


def test_no_region_is_no_loss():
    head = KeypointHead(KeypointHeadConfig(convs=1, channels=8), 4)
    logits = head(torch.zeros(0, 4, 14, 14, requires_grad=True))
    term = keypoint_loss(logits, *keypoint_targets(torch.zeros(0, 17, 3), torch.zeros(0, 4), 56))
    term.sum.backward()
    assert (term.sum.item(), term.count.item()) == (0.0, 0.0)
    assert heatmaps_to_keypoints(logits, torch.zeros(0, 4)).shape == (0, 17, 3)


@pytest.mark.parametrize("largest", [1, 1 << 25], ids=["one by one", "together"])
def test_positions_are_torchvisions(monkeypatch, largest):
    monkeypatch.setattr(keypoint_decode, "LARGEST", largest)
    boxes, _ = random_regions(12, seed=2)
    boxes[0, 2:] = boxes[0, :2] + 0.3  # less than a pixel
    boxes[1, 2:] = boxes[1, :2] + torch.tensor([20.0, 130.0])  # narrower and higher than the map
    maps = torch.randn(12, 17, 56, 56) * 3
    expected, logit = roi_heads.heatmaps_to_keypoints(maps, boxes)
    found = heatmaps_to_keypoints(maps, boxes)
    torch.testing.assert_close(found[..., :2], expected[..., :2], atol=1e-3, rtol=1e-5)
    # Detectron2's score: the softmax's numerator at the upsampled greatest, its denominator over the map itself
    probability = (logit - maps.flatten(2).logsumexp(-1)).exp()
    torch.testing.assert_close(found[..., 2], probability, atol=1e-4, rtol=1e-3)


def test_keypoints_in_the_pixels_of_the_file():
    keypoints = torch.tensor([[[10.0, 20.0, 0.5]], [[4.0, 6.0, 0.25]]])
    sizes, original = torch.tensor([[100, 200], [50, 50]]), torch.tensor([[50, 400], [50, 50]])
    moved = keypoints_to_original(keypoints, sizes, original)
    assert moved.tolist() == [[[20.0, 10.0, 0.5]], [[4.0, 6.0, 0.25]]]


@pytest.mark.parametrize("masks", [False, True], ids=["alone", "with masks"])
def test_parts_of_a_batch_count_what_their_losses_count(shared, masks):
    config = compose([*TRAIN, f"data.root={shared / 'data/coco-mini'}", f"model.mask_head.enabled={masks}"])
    config.runtime.num_workers = 0
    config.schedule.images_per_batch = 4
    batch = next(train_loader(open_split(config.data, "train"), config))
    torch.manual_seed(0)
    model = build_detector(config.model, 1)
    losses = model(batch)
    counts = model.count_samples(batch)
    assert losses.keys() == counts.keys()
    assert ("mask" in losses) == masks
    for name, term in losses.items():
        assert float(term.count) == float(counts[name]), name
    assert losses["keypoint"].count > 0
    found = model.eval().detect(batch)
    for image, size in zip(found, batch.original_sizes.tolist(), strict=True):
        assert image.keypoints.shape == (len(image), 17, 3)
        assert (image.masks is not None) == masks
        assert bool((image.keypoints[..., :2] <= torch.tensor(size[::-1]) + 1).all())


def test_two_pictures_are_learned(shared):
    # the ground truth and no proposals but one: what is to be learned stays the same from step to step
    narrow = ["model.rpn.post_nms_train=1", "model.roi.samples=16", "model.backbone.width=16"]
    narrow += ["model.keypoint_head.channels=64", "model.mask_head.enabled=false"]
    config = compose([*TRAIN, f"data.root={shared / 'data/coco-mini'}", *narrow])
    config.runtime.num_workers = 0
    config.schedule.images_per_batch = 2
    config.augmentation.flip = 0.0
    batch = next(train_loader(open_split(config.data, "train"), config))
    torch.manual_seed(0)
    model = build_detector(config.model, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    course = []
    while len(course) < 150 and (not course or course[-1] > course[0] / 12):
        term = model(batch)
        loss = sum(t.sum / t.count.clamp(min=1) for t in term.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        course.append((term["keypoint"].sum / term["keypoint"].count).item())
    assert course[0] == pytest.approx(math.log(56 * 56), rel=0.1)  # every position as likely
    assert course[-1] < course[0] / 10
