"""Several annotation files trained on as one data set: trainval35k in the small."""

import json
from copy import deepcopy

import pytest

from mrbench.config.composer import compose
from mrbench.config.fingerprint import annotations_fingerprint
from mrbench.config.schema import SplitConfig
from mrbench.data.loader import train_loader
from mrbench.data.sources import open_split
from mrbench.errors import UserError

EXTRA = SplitConfig("annotations/extra.json", "images/val")


def add_extra(folder, change=lambda content: None) -> None:
    """A second file with the same image ids, whose categories have other ids in another order."""
    content = deepcopy(folder.content)
    ids = {3: 20, 7: 10, 9: 5}
    for category in content["categories"]:
        category["id"] = ids[category["id"]]
    for annotation in content["annotations"]:
        annotation["category_id"] = ids[annotation["category_id"]]
    change(content)
    (folder.root / EXTRA.annotations).write_text(json.dumps(content))


def test_trainval35k_and_minival_are_read_from_the_2014_files(folder) -> None:
    """Three of five pictures of val2014 go to training, two are minival."""
    images, annotations = folder.content["images"], folder.content["annotations"]

    def write(name: str, chosen) -> None:
        ids = {image["id"] for image in chosen}
        part = {
            "images": chosen,
            "annotations": [a for a in annotations if a["image_id"] in ids],
            "categories": folder.content["categories"],
        }
        (folder.root / "annotations" / f"instances_{name}2014.json").write_text(json.dumps(part))

    write("train", images)
    write("valminusminival", images[:3])
    write("minival", images[3:])
    for split in ("train", "val"):
        (folder.root / "images" / split).rename(folder.root / f"{split}2014")
    data = compose(["data=coco_2014", f"data.root={folder.root}"]).data
    train, val = open_split(data, "train"), open_split(data, "val")
    assert [i.file.parent.name for i in train.images] == ["train2014"] * 5 + ["val2014"] * 3
    assert [i.id for i in train.images] == [10, 20, 30, 40, 50, 10, 20, 30]
    assert [i.id for i in val.images] == [40, 50]
    assert train.trainable.tolist() == [2, 1, 1, 0, 0, 2, 1, 1]
    assert train.annotations(5) == train.annotations(0)


def test_categories_are_matched_by_name(folder) -> None:
    add_extra(folder)
    data = folder.data
    data.train_more = [EXTRA]
    joined = open_split(data, "train")
    assert [(c.id, c.name) for c in joined.categories] == [(3, "three"), (7, "seven"), (9, "nine")]
    for index in range(5):
        assert joined.annotations(5 + index) == joined.annotations(index)
    assert len(open_split(data, "val")) == 5


def test_training_sees_the_pictures_of_all_files(folder) -> None:
    add_extra(folder)
    config = folder.config(resize="none", flip=0.0)
    config.data.train_more = [EXTRA]
    config.schedule.images_per_batch, config.schedule.iterations = 3, 2
    seen = [
        identity for batch in train_loader(open_split(config.data, "train"), config) for identity in batch.image_ids
    ]
    assert sorted(seen) == [10, 10, 20, 20, 30, 30]


def test_other_categories_are_refused(folder) -> None:
    add_extra(folder, lambda content: content["categories"][0].update(name="ten"))
    data = folder.data
    data.train_more = [EXTRA]
    with pytest.raises(UserError, match="only in the second: ten"):
        open_split(data, "train")


def test_further_files_are_part_of_the_fingerprint_and_must_be_there(folder) -> None:
    add_extra(folder)
    data = folder.data
    alone = annotations_fingerprint(data)
    data.train_more = [EXTRA]
    assert annotations_fingerprint(data) != alone
    data.train_more = [SplitConfig("annotations/none.json", "images/val")]
    with pytest.raises(UserError, match=r"data.train_more\[0\].annotations"):
        open_split(data, "train")
    with pytest.raises(UserError, match="without annotations or images"):
        compose(["data=coco_folder", "data.root=.", "data.train_more=[{annotations: a.json}]"])
