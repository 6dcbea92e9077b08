"""What a try is made of is the most that training or testing can meet."""

import json
from pathlib import Path

import pytest

from mrbench.bench.matrix import Case
from mrbench.bench.worst import worst_inputs
from mrbench.config.composer import compose
from mrbench.data.loader import eval_loader, train_loader
from mrbench.data.sources import open_split

TRAIN = Case("train", "m", "fp32", 0, [800, 1333])
DETECT = Case("infer", "m", "fp32", 0, [800, 1333])
# height, width, instances, crowds
PICTURES = [(30, 40, 2, 0), (60, 50, 1, 3), (20, 90, 4, 0), (100, 100, 0, 2)]


@pytest.fixture
def data(tmp_path: Path) -> list[str]:
    """Overrides for a data set of the pictures above, whose pixels are never read."""
    images, annotations = [], []
    for k, (height, width, instances, crowds) in enumerate(PICTURES, 1):
        (tmp_path / f"{k}.png").touch()
        images.append({"id": k, "file_name": f"{k}.png", "height": height, "width": width})
        for n in range(instances + crowds):
            box = {"bbox": [0, 0, 9, 9], "area": 81, "segmentation": [[0, 0, 9, 0, 9, 9]], "iscrowd": 0}
            if n >= instances:
                box |= {"iscrowd": 1, "segmentation": {"size": [height, width], "counts": [0, height * width]}}
            annotations.append({"id": len(annotations) + 1, "image_id": k, "category_id": 1, **box})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "a"}]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    files = [
        f"data.{s}.{k}" for s in ("train", "val") for k in (f"annotations={tmp_path}/a.json", f"images={tmp_path}")
    ]
    return ["data.kind=coco_folder", f"data.root={tmp_path}", *files, "augmentation.resize=none"]


def test_upright_and_wide_pictures_in_one_batch_make_a_square(data: list[str]) -> None:
    # the picture of 100 x 100 has crowds only, and is not trained on
    found = worst_inputs(compose(data), TRAIN, "data", 7)
    assert (found.image_size, found.instances, found.classes) == ([60, 90], 4, 1)
    assert worst_inputs(compose([*data, "data.keep_empty=true"]), TRAIN, "data", 7).image_size == [100, 100]


def test_pictures_that_are_grouped_by_aspect_do_not(data: list[str]) -> None:
    # wide: 30 x 90; others: 60 x 50
    grouped = [*data, "augmentation.group_by_aspect=true"]
    assert worst_inputs(compose(grouped), TRAIN, "data", 7).image_size == [60, 50]
    pasted = worst_inputs(compose([*grouped, "augmentation.copy_paste=0.5"]), TRAIN, "data", 7)
    assert (pasted.image_size, pasted.instances) == ([60, 90], 8)


def test_the_largest_of_several_edges_counts(data: list[str]) -> None:
    edges = ["augmentation.resize=short_edge", "augmentation.short_edge=[20,60,40]", "augmentation.max_size=200"]
    # 60 x 80, 72 x 60 and 44 x 200 (the limit of the long side)
    assert worst_inputs(compose([*data, *edges]), TRAIN, "data", 7).image_size == [72, 200]
    cropped = ["augmentation.resize=jitter", "augmentation.jitter_size=64"]
    assert worst_inputs(compose([*data, *cropped]), TRAIN, "data", 7).image_size == [64, 64]


def test_detection_pads_only_to_pictures_of_the_same_size(data: list[str]) -> None:
    assert worst_inputs(compose(data), DETECT, "data", 7).image_size == [100, 100]
    tested = ["augmentation.test_short_edge=50", "augmentation.max_size=150"]
    # 50 x 67, 60 x 50, 33 x 150, 50 x 50
    assert worst_inputs(compose([*data, *tested]), DETECT, "data", 7).image_size == [33, 150]


def test_synthetic_pictures_are_crowded_and_of_both_aspects() -> None:
    recipe = ["recipe=mask_rcnn_r50_fpn_1x", "model.backbone.weights=null"]
    mixed = compose([*recipe, "augmentation.group_by_aspect=false"])
    assert worst_inputs(mixed, TRAIN, "synthetic", 7).image_size == [1333, 1333]
    grouped = worst_inputs(compose([*recipe, "augmentation.group_by_aspect=true"]), TRAIN, "synthetic", 7)
    assert (grouped.image_size, grouped.instances) == ([800, 1333], 100)
    assert worst_inputs(mixed, DETECT, "synthetic", 300).image_size == [800, 1333]
    assert worst_inputs(mixed, TRAIN, "synthetic", 300).instances == 300


def padded_area(size: list[int]) -> int:
    return (-(-size[0] // 32) * 32) * (-(-size[1] // 32) * 32)


@pytest.mark.parametrize("grouped", [False, True])
def test_no_batch_of_a_real_data_set_is_larger(grouped: bool, shared: Path) -> None:
    given = ["data=coco_folder", f"data.root={shared / 'data/coco-mini'}", "model=mask_rcnn_small"]
    small = ["augmentation.resize=short_edge", "augmentation.short_edge=[24,32]", "augmentation.max_size=53"]
    more = [f"augmentation.group_by_aspect={str(grouped).lower()}", "schedule.images_per_batch=8"]
    config = compose([*given, *small, *more, "runtime.num_workers=0", "schedule.iterations=10"])
    found = worst_inputs(config, TRAIN, "data", 7)
    dataset = open_split(config.data, "train")
    for batch in train_loader(dataset, config):
        assert batch.images.shape[2] * batch.images.shape[3] <= padded_area(found.image_size)
        assert batch.boxes.shape[1] <= found.instances
    val = open_split(config.data, "val")
    most = padded_area(worst_inputs(config, DETECT, "data", 7).image_size)
    assert max(batch.images.shape[2] * batch.images.shape[3] for batch in eval_loader(val, config)) == most
