"""Cityscapes' and PASCAL's numbers in pictures become COCO annotations: small hand-worked sets in their layouts."""

import json
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask
from typer.testing import CliRunner

from mrbench.cli.data import app
from mrbench.config.composer import compose
from mrbench.data.sources import open_split
from mrbench.errors import UserError

PICTURE = Image.new("RGB", (16, 8))


def write_cityscapes(root: Path) -> np.ndarray:
    """One picture of each split; returns the numbers int [8, 16] of the training picture."""
    numbers = np.full((8, 16), 7)  # road
    numbers[0:2, 0:3] = 26001  # a car in two parts, with something in between
    numbers[0:2, 4:6] = 26001
    numbers[4:6, 0:4] = 26  # a group of cars
    numbers[6, 8:12] = 24000  # a person with the number 0
    numbers[7, 8:12] = 29003  # a caravan, which is not evaluated
    numbers[0, 15] = 33012  # a bicycle of one pixel
    numbers[1, 15] = 25  # a group of riders
    numbers[3, :] = 1  # ego vehicle
    for split, city in (("train", "aachen"), ("val", "ulm")):
        for folder, end in (("leftImg8bit", "leftImg8bit"), ("gtFine", "gtFine_instanceIds")):
            place = root / folder / split / city
            place.mkdir(parents=True)
            name = f"{city}_000000_000019_{end}.png"
            picture = PICTURE if folder == "leftImg8bit" else Image.fromarray(numbers.astype(np.uint16))
            picture.save(place / name)
    return numbers


def test_cityscapes_instances_and_groups(tmp_path: Path) -> None:
    numbers = write_cityscapes(tmp_path)
    result = CliRunner().invoke(app, ["convert", "cityscapes", str(tmp_path)])
    assert result.exit_code == 0, result.output
    content = json.loads((tmp_path / "annotations" / "instances_train.json").read_text())
    assert content["images"] == [
        {"id": 1, "file_name": "aachen/aachen_000000_000019_leftImg8bit.png", "height": 8, "width": 16}
    ]
    assert [(c["id"], c["name"]) for c in content["categories"]] == [
        (24, "person"),
        (25, "rider"),
        (26, "car"),
        (27, "truck"),
        (28, "bus"),
        (31, "train"),
        (32, "motorcycle"),
        (33, "bicycle"),
    ]
    found = [(a["category_id"], a["iscrowd"], a["bbox"], a["area"]) for a in content["annotations"]]
    assert found == [
        (25, 1, [15, 1, 1, 1], 1),
        (26, 1, [0, 4, 4, 2], 8),
        (24, 0, [8, 6, 4, 1], 4),
        (26, 0, [0, 0, 6, 2], 10),
        (33, 0, [15, 0, 1, 1], 1),
    ]
    car = coco_mask.decode(content["annotations"][3]["segmentation"])
    assert np.array_equal(car, numbers == 26001)

    data = compose(["data=cityscapes", f"data.root={tmp_path}"]).data
    train, val = open_split(data, "train"), open_split(data, "val")
    assert train.trainable.tolist() == [3]
    assert val.images[0].file.is_file()
    assert [c.name for c in val.categories][:3] == ["person", "rider", "car"]


def test_cityscapes_without_its_pictures_is_one_message(tmp_path: Path) -> None:
    write_cityscapes(tmp_path)
    next(tmp_path.glob("leftImg8bit/train/*/*.png")).unlink()
    result = CliRunner().invoke(app, ["convert", "cityscapes", str(tmp_path)])
    assert isinstance(result.exception, UserError)
    assert "1 of 1 pictures are missing" in result.exception.what
    assert not (tmp_path / "annotations").exists()
    result = CliRunner().invoke(app, ["convert", "cityscapes", str(tmp_path / "gtFine")])
    assert isinstance(result.exception, UserError)
    assert "gtFine_trainvaltest.zip" in result.exception.hint


def test_pascal_objects_take_the_class_of_their_pixels(tmp_path: Path) -> None:
    for folder in ("JPEGImages", "SegmentationObject", "SegmentationClass", "ImageSets/Segmentation"):
        (tmp_path / folder).mkdir(parents=True)
    objects, classes = np.zeros((8, 16), np.uint8), np.zeros((8, 16), np.uint8)
    objects[0:4, 0:4], classes[0:4, 0:4] = 255, 255  # the void about the first object
    objects[1:3, 1:3], classes[1:3, 1:3] = 1, 12  # a dog
    objects[4:8, 8:12], classes[4:8, 8:12] = 2, 15  # a person
    for name, pixels in (("SegmentationObject", objects), ("SegmentationClass", classes)):
        picture = Image.fromarray(pixels).convert("P")
        picture.putpalette(list(range(256)) * 3)
        picture.save(tmp_path / name / "2007_000001.png")
    PICTURE.save(tmp_path / "JPEGImages" / "2007_000001.jpg")
    for split in ("train", "val"):
        (tmp_path / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("2007_000001\n")
    result = CliRunner().invoke(app, ["convert", "voc", str(tmp_path)])
    assert result.exit_code == 0, result.output
    dataset = open_split(compose(["data=voc_2012", f"data.root={tmp_path}"]).data, "train")
    assert len(dataset.categories) == 20
    found = [(dataset.categories[a.label].name, a.bbox, a.area, a.iscrowd) for a in dataset.annotations(0)]
    assert found == [("dog", (1, 1, 3, 3), 4, False), ("person", (8, 4, 12, 8), 16, False)]


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["convert", "cityscape", str(tmp_path)])
    assert isinstance(result.exception, UserError)
    assert "cityscapes" in result.exception.hint
