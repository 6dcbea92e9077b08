"""Keypoints from COCO's file to the network's pixels, worked by hand."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from mrbench.config.schema import AugmentationConfig, DataConfig, RunConfig, SplitConfig
from mrbench.data.augmentation import Plan
from mrbench.data.coco import CocoDataset
from mrbench.data.keypoints import mirror_order, place_keypoints
from mrbench.data.loader import eval_loader, train_loader
from mrbench.data.sources import open_split
from mrbench.errors import UserError
from mrbench.evaluation.results import read_ground_truth

NAMES = ("nose", "left_eye", "right_eye")


def content(*keypoints, names=NAMES):
    """One picture of 40 x 60 pixels (height x width) for each annotation."""
    return {
        "images": [
            {"id": i, "file_name": f"{i}.png", "width": 60, "height": 40} for i in range(1, len(keypoints) + 1)
        ],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "bbox": [5, 5, 30, 20], "area": 600, "iscrowd": 0,
             **({} if points is None else {"keypoints": points})}
            for i, points in enumerate(keypoints, 1)
        ],
        "categories": [{"id": 1, "name": "person", "keypoints": list(names)}],
    }  # fmt: skip


@pytest.fixture
def write(tmp_path):
    def written(data):
        for image in data["images"]:
            Image.new("RGB", (60, 40)).save(tmp_path / image["file_name"])
        (tmp_path / "people.json").write_text(json.dumps(data))
        return tmp_path / "people.json"

    return written


def configuration(path, keypoints=3, flip=0.0):
    split = SplitConfig(annotations=path.name, images=".")
    config = RunConfig(data=DataConfig(kind="coco_folder", root=str(path.parent), train=split, val=split))
    config.augmentation = AugmentationConfig(resize="none", flip=flip)
    config.model.mask_head.enabled = False
    config.model.keypoint_head.enabled, config.model.keypoint_head.keypoints = True, keypoints
    config.runtime.num_workers = 0
    config.schedule.iterations, config.schedule.images_per_batch = 2, 2
    return config


def test_left_and_right_change_places():
    names = ["nose", "left_eye", "right_eye", "tail", "left_horn"]
    assert mirror_order(names) == [0, 2, 1, 3, 4]  # a left without a right stays


def test_a_mirrored_picture_worked_by_hand():
    # twice as large, then the window of 40 x 50 pixels from (y 10, x 20), then mirrored
    plan = Plan((40, 60), (80, 120), (10, 20), (40, 50), flip=True)
    points = (12, 9, 2, 20, 10, 1, 31, 14, 2)
    # nose: pixel centre (12.5, 9.5) -> (25, 19) -> (5, 9) -> (45, 9); left eye (20.5, 10.5) -> (21, 11) -> (29, 11);
    # right eye (31.5, 14.5) -> (43, 19) -> (7, 19). What is the right eye in the mirror image was the left one.
    expected = [[45, 9, 2], [7, 19, 2], [29, 11, 1]]
    assert place_keypoints([points, None], NAMES, plan).tolist() == [expected, [[0, 0, 0]] * 3]


def test_what_the_crop_cuts_off_is_not_annotated_any_more():
    plan = Plan((40, 60), (40, 60), (0, 0), (40, 30), flip=False)
    placed = place_keypoints([(29, 39, 2, 30, 3, 2, 0, 0, 0)], NAMES, plan)
    assert placed.tolist() == [[[29.5, 39.5, 2], [0, 0, 0], [0, 0, 0]]]


@pytest.mark.parametrize(
    ("points", "reason"),
    [
        ([1, 2, 2], "keypoints with 3 numbers, but its category names 3"),
        ([1, 2, 2, 1, 2, 3, 1, 2, 0], "visibility is 3, not 0, 1 or 2"),
        ([1, 2, 2, 1, float("nan"), 2, 1, 2, 0], "not a finite number"),
        ({"nose": [1, 2]}, "keypoints are not a list"),
    ],
)
def test_broken_keypoints_are_named(write, points, reason):
    path = write(content([1, 2, 2] * 3, points))
    with pytest.raises(UserError, match="1 broken annotation"):
        CocoDataset(path, path.parent)
    (problem,) = CocoDataset(path, path.parent, on_error="skip").problems
    assert problem.annotation_id == 2
    assert reason in problem.reason


def test_ground_truth_says_what_the_file_said(write):
    path = write(content([7, 8, 2, 0, 0, 0, 9, 9, 1], None))
    made = read_ground_truth(CocoDataset(path, path.parent).ground_truth(), ("keypoint",))
    assert made == read_ground_truth(path, ("keypoint",))
    assert [a["num_keypoints"] for a in made["annotations"]] == [2, 0]


def test_batches_hold_keypoints_of_pictures_that_have_some(write):
    # the third has none to learn from, the fourth no list at all
    path = write(content([10, 8, 2, 12, 6, 1, 0, 0, 0], [9, 9, 2] * 3, [0, 0, 0] * 3, None))
    config = configuration(path)
    batches = list(train_loader(open_split(config.data, "train"), config))
    assert {i for batch in batches for i in batch.image_ids} == {1, 2}
    batch = batches[0]
    assert batch.keypoints.dtype == torch.float32
    assert batch.keypoints.shape == (2, 1, 3, 3)
    first = batch.keypoints[batch.image_ids.index(1), 0]
    assert first.tolist() == [[10.5, 8.5, 2], [12.5, 6.5, 1], [0, 0, 0]]
    assert [part.keypoints.shape[0] for part in batch.chunk(2)] == [1, 1]
    assert torch.equal(batch.chunk(2)[1].keypoints, batch.keypoints[1:])
    assert batch.to("meta").keypoints.device.type == "meta"
    assert next(eval_loader(open_split(config.data, "val"), config)).keypoints is None
    config.model.keypoint_head.enabled = False
    batch = next(train_loader(open_split(config.data, "train"), config))
    assert batch.keypoints is None
    assert batch.chunk(2)[0].keypoints is None


def test_a_model_and_data_that_do_not_fit_say_what_to_set(write):
    path = write(content([9, 9, 2] * 3))
    config = configuration(path, keypoints=17)
    with pytest.raises(UserError, match="names 3") as error:
        train_loader(open_split(config.data, "train"), config)
    assert "model.keypoint_head.keypoints=3" in error.value.hint
    path = write(content(None, names=()))
    with pytest.raises(UserError, match="names keypoints") as error:
        train_loader(open_split(config.data, "train"), config)
    assert "person_keypoints" in error.value.hint
    path = write(content([0, 0, 0] * 3))
    config = configuration(path)
    with pytest.raises(UserError, match="has a keypoint to learn from"):
        train_loader(open_split(config.data, "train"), config)


def test_keypoints_of_real_people_lie_in_their_boxes(shared):
    root = shared / "data/coco-mini"
    dataset = CocoDataset(root / "annotations/person_keypoints_train.json", root / "images/train")
    assert dataset.categories[0].keypoints[:2] == ("nose", "left_eye")
    listed = json.loads((root / "annotations/person_keypoints_train.json").read_text())["annotations"]
    assert dataset.visible_keypoints.sum() == sum(a["num_keypoints"] for a in listed if not a["iscrowd"])
    inside = []
    for index, image in enumerate(dataset.images):
        people = [a for a in dataset.annotations(index) if a.keypoints]
        size = (image.height, image.width)
        for flip in (False, True):
            plan = Plan(size, size, (0, 0), size, flip)
            placed = place_keypoints([a.keypoints for a in people], dataset.categories[0].keypoints, plan)
            boxes = plan.boxes(np.array([a.bbox for a in people]).reshape(-1, 4))
            seen = placed[..., 2] > 0
            within = (placed[..., :2] >= boxes[:, None, :2] - 1) & (placed[..., :2] <= boxes[:, None, 2:] + 1)
            inside += within.all(-1)[seen].tolist()
    assert np.mean(inside) > 0.95
