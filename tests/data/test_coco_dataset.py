"""Opening COCO folders: what is read, and what is said about broken ones."""

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from mrbench.config.schema import DataConfig
from mrbench.data.coco import CocoDataset
from mrbench.data.segmentation import run_lengths
from mrbench.data.sources import check_same_categories, open_split
from mrbench.errors import UserError


def test_labels_follow_sorted_category_ids_and_crowds_are_marked(folder) -> None:
    dataset = open_split(folder.data, "train")
    assert [(c.id, c.name) for c in dataset.categories] == [(3, "three"), (7, "seven"), (9, "nine")]
    assert [[(a.id, a.label, a.iscrowd) for a in dataset.annotations(i)] for i in range(5)] == [
        [(1, 0, False), (2, 2, False)],
        [(3, 1, False), (4, 0, True)],
        [(5, 2, False)],
        [],
        [(6, 0, True)],
    ]
    assert dataset.annotations(0)[0].bbox == (5, 5, 25, 15)
    assert dataset.trainable.tolist() == [2, 1, 1, 0, 0]


def test_uncompressed_rle_holds_the_same_pixels(folder) -> None:
    kept = open_split(folder.data, "train").annotations(1)[0].segmentation
    expected = np.zeros((40, 60), dtype=np.uint8)
    expected[4:20, 10:15] = 1
    assert np.array_equal(coco_mask.decode(kept), expected)


def test_run_lengths_agree_with_the_coco_api() -> None:
    random = np.random.default_rng(1)
    for height, width, share in ((1, 1, 0.5), (7, 5, 0.5), (300, 400, 0.01), (64, 64, 0.9), (500, 3, 0.0)):
        mask = np.asfortranarray(random.random((height, width)) < share, dtype=np.uint8)
        pixels = mask.ravel(order="F")
        changes = np.flatnonzero(np.diff(np.concatenate([[0], pixels])))
        expected = np.diff(np.concatenate([[0], changes, [pixels.size]]))
        lengths = run_lengths(coco_mask.encode(mask)["counts"].decode())
        assert lengths.tolist() == expected.tolist()


def broken_box(annotation) -> None:
    annotation["bbox"] = [5, 5, 0, 10]


def flat_box(annotation) -> None:
    annotation["bbox"] = [5, 5, 10, 0]


def three_number_box(annotation) -> None:
    annotation["bbox"] = [1, 2, 3]


def nan_box(annotation) -> None:
    annotation["bbox"] = [5, float("nan"), 3, 10]


def unknown_category(annotation) -> None:
    annotation["category_id"] = 4


def unknown_image(annotation) -> None:
    annotation["image_id"] = 99


def four_number_polygon(annotation) -> None:
    annotation["segmentation"] = [[1, 1, 5, 5]]


def odd_polygon(annotation) -> None:
    annotation["segmentation"] = [[1, 1, 5, 5, 3, 3, 2]]


def nan_polygon(annotation) -> None:
    annotation["segmentation"] = [[1, 1, 5, 5, 3, float("nan")]]


def text_polygon(annotation) -> None:
    annotation["segmentation"] = [[1, 1, 5, 5, 3, "x"]]


def rle_of_other_size(annotation) -> None:
    annotation["segmentation"] = {"size": [60, 40], "counts": [2400]}


def short_rle(annotation) -> None:
    annotation["segmentation"] = {"size": [40, 60], "counts": [100, 50]}


def cut_off_rle(annotation) -> None:
    annotation["segmentation"] = {"size": [40, 60], "counts": "Pa"}


def same_id(annotation) -> None:
    annotation["id"] = 2


def no_area(annotation) -> None:
    annotation["area"] = "large"


@pytest.mark.parametrize(
    "damage, reason",
    [
        (broken_box, "box with zero width or height: [5, 5, 0, 10]"),
        (flat_box, "box with zero width or height: [5, 5, 10, 0]"),
        (three_number_box, "bbox is not four numbers"),
        (nan_box, "bbox with something that is not a finite number"),
        (unknown_category, "category id 4 is not among the categories"),
        (unknown_image, "image id 99 is not among the images"),
        (four_number_polygon, "polygon with 4 numbers"),
        (odd_polygon, "polygon with an odd number of numbers (7)"),
        (nan_polygon, "polygon with NaN or infinity"),
        (text_polygon, "polygon with something that is not a finite number"),
        (rle_of_other_size, "RLE of the wrong size: [60, 40], but the image is [40, 60]"),
        (short_rle, "RLE of the wrong size: its runs hold 150 pixels, the image has 2400"),
        (cut_off_rle, "RLE counts are broken or cut off"),
        (same_id, "another annotation has the same id"),
        (no_area, "its area is not a number"),
    ],
)
def test_broken_annotation_is_named_or_skipped(folder, damage, reason) -> None:
    damage(folder.content["annotations"][4])
    data = folder.write()
    with pytest.raises(UserError) as raised:
        open_split(data, "train")
    identity = 2 if damage is same_id else 5
    assert reason in raised.value.what
    assert f"annotation {identity}:" in raised.value.what
    assert "instances_train.json" in raised.value.what
    assert "data.on_error=skip" in raised.value.hint

    data.on_error = "skip"
    dataset = open_split(data, "train")
    assert [p.annotation_id for p in dataset.problems] == [identity]
    assert reason in str(dataset.problems[0])
    kept = [a.id for i in range(len(dataset)) for a in dataset.annotations(i)]
    assert kept == [1, 2, 3, 4, 6]
    # What is kept can be evaluated against.
    assert [a["id"] for a in dataset.ground_truth()["annotations"]] == kept


def test_many_broken_annotations_are_counted_not_all_printed(folder) -> None:
    for annotation in folder.content["annotations"]:
        annotation["category_id"] = 1000
    with pytest.raises(UserError, match="6 broken annotations") as raised:
        open_split(folder.write(), "train")
    assert "and 1 more" in raised.value.what


@pytest.mark.parametrize(
    "text, message",
    [
        ("{not json", "is not JSON"),
        ("[1, 2]", "not in COCO format: no list 'images', 'annotations', 'categories'"),
        ('{"images": [], "annotations": []}', "no list 'categories'"),
        ('{"images": [], "annotations": [], "categories": []}', "lists no images"),
        ('{"images": [{"id": 1}], "annotations": [], "categories": []}', "image 1 has no file_name"),
    ],
)
def test_file_that_is_not_coco(folder, text, message) -> None:
    (folder.root / "annotations" / "instances_train.json").write_text(text)
    with pytest.raises(UserError, match=message):
        open_split(folder.data, "train")


def test_images_and_categories_listed_twice(folder) -> None:
    folder.content["categories"].append({"id": 3, "name": "again"})
    with pytest.raises(UserError, match="1 category ids are used more than once, the first is 3"):
        open_split(folder.write(), "train")
    folder.content["images"].append(folder.content["images"][1])
    with pytest.raises(UserError, match="1 image ids are used more than once, the first is 20"):
        open_split(folder.write(), "train")


def test_missing_image_file_is_found_on_opening(folder) -> None:
    (folder.root / "images" / "train" / "3.png").unlink()
    with pytest.raises(UserError, match=r"1 of 5 image files are missing, the first is .*3\.png"):
        open_split(folder.data, "train")
    open_split(folder.data, "val")


def test_image_names_may_contain_folders(folder) -> None:
    for image in folder.content["images"]:
        image["file_name"] = "../train/" + image["file_name"]
    assert len(open_split(folder.write(), "val")) == 5


def test_missing_folders(folder, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.root"):
        open_split(DataConfig(kind="coco_folder"), "train")
    with pytest.raises(UserError, match="nowhere"):
        open_split(DataConfig(kind="coco_folder", root=str(tmp_path / "nowhere")), "train")
    data = folder.data
    data.train.images = "other"
    with pytest.raises(UserError, match=r"data\.train\.images"):
        open_split(data, "train")


def test_splits_with_other_categories_are_refused(folder) -> None:
    train = open_split(folder.data, "train")
    path = folder.root / "annotations" / "instances_val.json"
    content = json.loads(path.read_text())
    content["categories"][0]["name"] = "other"
    path.write_text(json.dumps(content))
    check_same_categories(train, train)
    with pytest.raises(UserError, match="different categories"):
        check_same_categories(train, open_split(folder.data, "val"))


@pytest.mark.parametrize(
    "name, split, images, annotations, crowds, empty",
    [
        ("nuclei-dsb2018", "train", 263, 8521, 0, 0),
        ("nuclei-dsb2018", "val", 68, 1932, 0, 0),
        ("coco-mini", "train", 76, 775, 9, 0),
        ("coco-mini", "val", 80, 637, 7, 2),
    ],
)
def test_real_sets_have_the_counts_of_their_readme(
    shared: Path, name: str, split: str, images: int, annotations: int, crowds: int, empty: int
) -> None:
    dataset = open_split(DataConfig(kind="coco_folder", root=str(shared / "data" / name)), split)
    groups = [dataset.annotations(i) for i in range(len(dataset))]
    assert len(dataset) == images
    assert sum(map(len, groups)) == annotations
    assert sum(a.iscrowd for group in groups for a in group) == crowds
    assert sum(not group for group in groups) == empty


def test_ground_truth_equals_what_pycocotools_reads(shared: Path) -> None:
    root = shared / "data" / "coco-mini"
    path = root / "annotations" / "instances_val.json"
    reference = COCO(path)
    dataset = CocoDataset(path, root / "images" / "val")
    for annotation in dataset.ground_truth()["annotations"]:
        expected = reference.anns[annotation["id"]]
        for key in ("image_id", "category_id", "iscrowd", "area"):
            assert annotation[key] == expected[key]
        assert np.allclose(annotation["bbox"], expected["bbox"])
        assert np.array_equal(reference.annToMask(annotation), reference.annToMask(expected))


def test_lvis_files_open(folder) -> None:
    """No file names but addresses, no iscrowd, and lists of what was not looked for."""
    for image in folder.content["images"]:
        image["coco_url"] = f"http://images.cocodataset.org/train2017/{image.pop('file_name')}"
        image |= {"neg_category_ids": [9], "not_exhaustive_category_ids": [3]}
    for annotation in folder.content["annotations"]:
        del annotation["iscrowd"]
    data = folder.write()
    (folder.root / "images" / "train").rename(folder.root / "train2017")
    data.train.images = "."
    dataset = open_split(data, "train")
    assert dataset.images[0].file == folder.root / "train2017" / "1.png"
    assert dataset.trainable.tolist() == [2, 2, 1, 0, 1]
