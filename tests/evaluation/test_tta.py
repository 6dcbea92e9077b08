"""Test-time augmentation: against plain inference, by hand, and against the algorithm written image by image."""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import softmax
from torchvision.ops import box_iou, nms

from mrbench.config import schema_training
from mrbench.config.composer import compose
from mrbench.data.batch import Batch, Views
from mrbench.data.coco import Category
from mrbench.data.loader import eval_loader, view_loader
from mrbench.data.picture_files import picture_files
from mrbench.errors import UserError
from mrbench.evaluation.coco import evaluate
from mrbench.evaluation.folder import open_pictures
from mrbench.evaluation.inference import coco_results, detect_as_configured, in_order
from mrbench.evaluation.tta import detect_views, mirrored_keypoints
from mrbench.modeling.build import build_detector
from mrbench.modeling.detector import MaskRCNN
from mrbench.modeling.postprocess import Detections, Found

POINTS = ("nose", "left_eye", "right_eye")
CATEGORIES = [Category(3, "a", POINTS), Category(4, "b"), Category(7, "c"), Category(9, "d")]
NARROW = [
    "model=mask_rcnn_small",
    "model.backbone.width=8",
    "model.neck.channels=16",
    "model.box_head.fc_channels=32",
    "model.mask_head.channels=16",
    "model.box_head.conv_channels=16",
    "model.inference.score_threshold=0.15",
    "model.inference.detections_per_image=12",
    "augmentation=short_edge",
    "augmentation.short_edge=[96]",
    "runtime.num_workers=0",
    "runtime.evaluation_batch=2",
    "evaluation.tta.enabled=true",
]
C4 = ["model.neck.kind=c4", "model.box_head.kind=res5", "model.box_head.fcs=0", "model.mask_head.kind=res5"]
MODELS = {
    "masks": [],
    "boxes": ["model.mask_head.enabled=false"],
    "c4": [*C4, "model.mask_head.convs=0", "model.pooler.box_size=14"],
    "cascade": ["model.box_head.cascade=[0.5,0.6,0.7]", "model.box_head.class_agnostic=true"],
    "keypoints": [
        "model.keypoint_head.enabled=true",
        "model.keypoint_head.keypoints=3",
        "model.keypoint_head.convs=1",
        "model.keypoint_head.channels=16",
        "model.mask_head.enabled=false",
    ],
}


def build(config):
    """A network that has learnt nothing, but whose scores, boxes and masks differ from place to place."""
    torch.manual_seed(0)
    net = build_detector(config.model, len(CATEGORIES))
    for stage in getattr(net.box_head, "stages", [net.box_head]):
        torch.nn.init.normal_(stage.classes.weight, std=1.0)
        torch.nn.init.normal_(stage.deltas.weight, std=0.3)
    if net.mask_head is not None:
        torch.nn.init.normal_(net.mask_head.predictor.weight, std=1.0)
    return net.eval()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Rectangles on noise, in pictures of several shapes."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for number, (height, width) in enumerate(((90, 120), (101, 80), (96, 96), (90, 120), (130, 60))):
        pixels = rng.integers(0, 80, (height, width, 3), dtype=np.uint8)
        for _ in range(4):
            y, x = rng.integers(0, height - 30), rng.integers(0, width - 30)
            pixels[y : y + rng.integers(10, 30), x : x + rng.integers(10, 30)] = rng.integers(0, 256, 3)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return open_pictures(picture_files([folder]), CATEGORIES)


def detections(net, pictures, config, **part):
    return detect_as_configured(net, pictures, config, torch.device("cpu"), **part)


@pytest.mark.parametrize("kind", MODELS)
def test_one_size_without_flip_is_plain_inference_bit_for_bit(pictures, kind):
    changes = [*NARROW, *MODELS[kind]]
    net = build(compose(changes))
    plain = detections(net, pictures, compose([*changes, "evaluation.tta.enabled=false"]))
    assert len(plain) > 20
    assert ("segmentation" in plain[0], "keypoints" in plain[0]) == (
        kind not in ("boxes", "keypoints"),
        kind == "keypoints",
    )
    for size in ("[]", "[96]"):
        config = compose([*changes, "evaluation.tta.flip=false", f"evaluation.tta.short_edge={size}"])
        assert detections(net, pictures, config) == plain


def test_pictures_that_are_not_resized_may_be_looked_at_in_other_sizes(pictures):
    config = compose([*NARROW, "augmentation=none", "evaluation.tta.short_edge=[64,96]"])
    batches = list(view_loader(pictures, config))
    assert [views.flipped for views in batches] == [[False, True] * 2] * len(batches)
    sizes = {views.image_ids[0]: [batch.sizes[0].tolist() for batch in views.batches] for views in batches}
    assert sizes[1] == [[96, 128], [96, 128], [64, 85], [64, 85]]
    for views in batches:
        for plain, mirrored in zip(views.batches[::2], views.batches[1::2], strict=True):
            for a, b, (height, width) in zip(plain.images, mirrored.images, plain.sizes.tolist(), strict=True):
                assert torch.equal(a[:, :height, :width], b[:, :height, :width].flip(-1))


@pytest.mark.parametrize("kind", ["masks", "cascade", "keypoints"])
def test_a_mirrored_picture_gives_mirrored_detections(pictures, kind):
    config = compose([*NARROW, *MODELS[kind], "evaluation.tta.short_edge=[64,96]"])
    net = build(config)
    for views in view_loader(pictures, config):
        swapped = Views([views.batches[i] for i in (1, 0, 3, 2)], views.flipped)
        both = [detect_views(net, seen, [0, 2, 1], config.evaluation.tta) for seen in (views, swapped)]
        pairs = zip(*both, strict=True)
        for (found, other), (_, width) in zip(pairs, views.original_sizes.tolist(), strict=True):
            assert len(found) == len(other) > 3
            order = [int((other.scores - score).abs().argmin()) for score in found.scores]
            assert sorted(order) == list(range(len(found)))
            torch.testing.assert_close(found.boxes[:, 0], width - other.boxes[order, 2], atol=1e-3, rtol=0)
            torch.testing.assert_close(found.boxes[:, 1], other.boxes[order, 1], atol=1e-3, rtol=0)
            if found.masks is not None:
                torch.testing.assert_close(found.masks, other.masks[order].flip(-1), atol=1e-4, rtol=0)
            if found.keypoints is not None:
                same = other.keypoints[order][:, [0, 2, 1]]
                torch.testing.assert_close(found.keypoints[..., 0], width - same[..., 0], atol=1e-2, rtol=0)
                torch.testing.assert_close(found.keypoints[..., 1:], same[..., 1:], atol=1e-2, rtol=0)


def of_size(height, width, original):
    return Batch(
        images=torch.zeros(1, 3, 128, 224, dtype=torch.uint8),
        sizes=torch.tensor([[height, width]]),
        original_sizes=torch.tensor([original]),
        boxes=torch.zeros(1, 1, 4),
        labels=torch.full((1, 1), -1),
        masks=None,
        seeds=torch.zeros(1, dtype=torch.int64),
        image_ids=[5],
        iteration=0,
    )


@pytest.mark.parametrize("vote, left", [(None, 10.0), (0.8, (0.9 * 10 + 0.8 * 9) / 1.7), (0.97, 10.0)])
def test_two_views_merged_by_hand(vote, left):
    """A file of 50 x 100 pixels, looked at twice as large, and mirrored as large as it is.

    The first box is seen in both views, with left sides of 10 and 9 in the file: an overlap of 30/31."""
    large, small = of_size(100, 200, (50, 100)), of_size(50, 100, (50, 100))
    seen = {
        100: ([[20.0, 20, 80, 60]], [0.9], [0]),
        # the same box for the same class, a little different; the same for another class; and one of its own
        50: ([[60.0, 10, 91, 30], [60.0, 10, 90, 30], [5.0, 5, 20, 45]], [0.8, 0.7, 0.6], [0, 1, 0]),
    }
    asked = {}

    def candidates(features, batch):
        boxes, scores, labels = seen[features[0]]
        return Found(torch.tensor(boxes), torch.tensor(scores), torch.tensor(labels), torch.zeros(len(boxes)).long())

    def masks_of(features, boxes, image, labels):
        asked[features[0]] = boxes.tolist()
        ramp = torch.tensor([[0.0, 0.2], [0.4, 1.0]])
        return ramp.expand(len(boxes), 2, 2)

    def heatmaps_of(features, boxes, image):
        """The mirrored view sees the third keypoint of the file by the channel of the second, on the other side."""
        maps = torch.zeros(len(boxes), 3, 8, 8)
        if features[0] == 100:
            maps[:, 2, 1, 2] = 10.0
        else:
            maps[:, 1, 1, 5], maps[:, 1, 6, 5] = 20.0, 25.0
        return maps

    model = SimpleNamespace(
        features=lambda batch: [int(batch.sizes[0, 0])],
        candidates=candidates,
        masks_of=masks_of,
        heatmaps_of=heatmaps_of,
        finish=partial(MaskRCNN.finish, None),
        num_classes=2,
        inference=compose().model.inference,
    )
    found = detect_views(
        model, Views([large, small], [False, True]), [0, 2, 1], schema_training.TestTimeConfig(vote=vote)
    )[0]
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.7, 0.6]))
    assert found.labels.tolist() == [0, 1, 0]
    torch.testing.assert_close(found.boxes, torch.tensor([[left, 10, 40, 30], [10.0, 10, 40, 30], [80.0, 5, 95, 45]]))
    assert asked[100] == [[pytest.approx(2 * left), 20, 80, 60], [20.0, 20, 80, 60], [160.0, 10, 190, 90]]
    assert asked[50] == [[60.0, 10, pytest.approx(100 - left), 30], [60.0, 10, 90, 30], [5.0, 5, 20, 45]]
    torch.testing.assert_close(found.masks[0], torch.tensor([[0.1, 0.1], [0.7, 0.7]]))
    # mean logits of the third keypoint: 15 in row 1, 12.5 in row 6, both in column 2 of 8, in the first box
    expected = torch.tensor([left + (40 - left) * 2.5 / 8, 10 + 20 * 1.5 / 8])
    torch.testing.assert_close(found.keypoints[0, 2, :2], expected, atol=0.7, rtol=0)
    assert softmax(torch.tensor([15.0, 12.5]), 0)[0] == pytest.approx(float(found.keypoints[0, 2, 2]), rel=0.2)


def weighted_mean(box, label, voters, threshold):
    near = [
        (other, score)
        for other, score, of_class in voters
        if of_class == label and float(box_iou(torch.tensor([box]), torch.tensor([other]))) >= threshold
    ]
    return [sum(score * other[i] for other, score in near) / sum(score for _, score in near) for i in range(4)]


def by_class(candidates, threshold):
    kept = []
    for label in range(len(CATEGORIES)):
        of_class = [c for c in candidates if c[2] == label]
        if of_class:
            boxes, scores = torch.tensor([c[0] for c in of_class]), torch.tensor([c[1] for c in of_class])
            kept += [of_class[i] for i in nms(boxes, scores, threshold).tolist()]
    return kept


def reference(net, pictures, edges, changes, vote):
    """One image, one view and one box after another, merged in the pixels of the file."""
    results = []
    for image in pictures.images:
        alone, views = replace(pictures, images=[image]), []
        for edge in edges:
            config = compose([*changes, f"augmentation.short_edge=[{edge}]"])
            batch = next(eval_loader(alone, config))
            width = int(batch.sizes[0, 1])
            mirrored = batch.images.clone()
            mirrored[..., :width] = mirrored[..., :width].flip(-1)
            views += [(batch, False), (replace(batch, images=mirrored), True)]
        candidates, voters, maps = [], [], []
        for batch, flipped in views:
            of_view = []
            (height, width), features = batch.sizes[0].tolist(), net.features(batch)
            maps.append(features)
            found = net.candidates(features, batch)
            for (x1, y1, x2, y2), score, label in zip(
                found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True
            ):
                if flipped:
                    x1, x2 = width - x2, width - x1
                across, down = image.width / width, image.height / height
                of_view.append(([x1 * across, y1 * down, x2 * across, y2 * down], score, label))
            candidates += of_view
            voters += by_class(of_view, net.inference.nms_threshold)
        kept = by_class(candidates, net.inference.nms_threshold)
        kept = sorted(kept, key=lambda c: -c[1])[: net.inference.detections_per_image]
        kept = [(weighted_mean(box, label, voters, vote), score, label) for box, score, label in kept]
        masks = []
        for (x1, y1, x2, y2), _, label in kept:
            of_views = []
            for (batch, flipped), features in zip(views, maps, strict=True):
                (height, width) = batch.sizes[0].tolist()
                across, down = width / image.width, height / image.height
                low, high = (width - x2 * across, width - x1 * across) if flipped else (x1 * across, x2 * across)
                box = torch.tensor([[low, y1 * down, high, y2 * down]])
                mask = net.masks_of(features, box, torch.tensor([0]), torch.tensor([label]))[0]
                of_views.append(mask.flip(1) if flipped else mask)
            masks.append(sum(of_views) / len(of_views))
        boxes, scores, labels = zip(*kept, strict=True)
        found = Detections(torch.tensor(boxes), torch.tensor(scores), torch.tensor(labels), torch.stack(masks))
        ids = [category.id for category in CATEGORIES]
        results += coco_results(found, image.id, image.height, image.width, ids)
    return in_order(results)


def test_two_sizes_and_flips_score_as_the_algorithm_written_out(pictures):
    config = compose([*NARROW, "evaluation.tta.short_edge=[96,72]"])
    net = build(config)
    with torch.inference_mode():
        expected = reference(net, pictures, [96, 72], [*NARROW, "evaluation.tta.enabled=false"], vote=0.8)
    found = detections(net, pictures, config)
    assert [(a["image_id"], a["category_id"]) for a in found] == [(b["image_id"], b["category_id"]) for b in expected]
    np.testing.assert_allclose([a["score"] for a in found], [b["score"] for b in expected], atol=1e-5)
    np.testing.assert_allclose([a["bbox"] for a in found], [b["bbox"] for b in expected], atol=0.01)

    plain = detections(net, pictures, compose([*NARROW, "evaluation.tta.enabled=false"]))
    truth = {
        "images": [{"id": image.id, "height": image.height, "width": image.width} for image in pictures.images],
        "categories": [{"id": category.id, "name": category.name} for category in CATEGORIES],
        "annotations": [
            {**item, "id": number, "iscrowd": 0, "area": item["bbox"][2] * item["bbox"][3]}
            for number, item in enumerate(plain, 1)
        ],
    }
    ours, theirs = evaluate(truth, found).metrics, evaluate(truth, expected).metrics
    for name in ("box/AP", "mask/AP"):
        assert ours[name] == pytest.approx(theirs[name], abs=0.5)
        assert 5 < ours[name] < 95


def test_processes_share_the_images_and_change_no_number(pictures):
    config = compose([*NARROW, "evaluation.tta.short_edge=[96,72]"])
    net = build(config)
    whole = detections(net, pictures, config)
    for size in (2, 3):
        parts = [detections(net, pictures, config, rank=rank, world_size=size) for rank in range(size)]
        assert in_order([item for part in parts for item in part]) == whole


def test_left_and_right_exchange_their_places_where_they_are_named():
    assert mirrored_keypoints(CATEGORIES, 3) == [0, 2, 1]
    for categories, number in ((CATEGORIES, 17), (CATEGORIES[1:], 3)):
        with pytest.raises(UserError, match=f"does not name the model's {number} keypoints"):
            mirrored_keypoints(categories, number)


@pytest.mark.parametrize(
    "change, said",
    [
        ("short_edge=[0]", r"evaluation.tta.short_edge=\[0\]"),
        ("short_edge=[64,64]", "each once"),
        ("max_size=0", "evaluation.tta.max_size=0 is too small"),
        ("flip=2.5", "evaluation.tta.flip"),
        ("vote=1.5", "evaluation.tta.vote=1.5 is too large"),
        ("scales=[400]", "Unknown key"),
    ],
)
def test_values_that_cannot_be_are_named(change, said):
    with pytest.raises(UserError, match=said):
        compose([f"evaluation.tta.{change}"])
