"""What COCO and Cityscapes are downloaded as: names, places, checksums, and what the archives unpack to."""

from dataclasses import dataclass

COCO_URL = "http://images.cocodataset.org"
CITYSCAPES_URL = "https://www.cityscapes-dataset.com/downloads/ (with an account)"


@dataclass(frozen=True)
class Part:
    """`count` files `pattern` in `folder`, which is relative to the data set's, or in folders below it."""

    folder: str
    pattern: str
    count: int


@dataclass(frozen=True)
class Archive:
    name: str
    where: str  # it can be had
    md5: str | None  # null where none is published that several sources agree on
    parts: tuple[Part, ...]
    purpose: str = ""  # of an archive that is not needed for training


def _annotations(year: str) -> Archive:
    md5 = {"2014": "0a379cfc70b0e71301e0f377548639bd", "2017": "f4bbac642086de4f52a3fdda2de5fa2c"}
    name = f"annotations_trainval{year}.zip"
    kinds = ("instances", "person_keypoints")
    names = [f"{kind}_{split}{year}.json" for kind in kinds for split in ("train", "val")]
    return Archive(name, f"{COCO_URL}/annotations/{name}", md5[year], tuple(Part("annotations", n, 1) for n in names))


def _pictures(split: str, count: int, md5: str, purpose: str = "") -> Archive:
    return Archive(f"{split}.zip", f"{COCO_URL}/zips/{split}.zip", md5, (Part(split, "*.jpg", count),), purpose)


# Numbers of pictures as cocodataset.org and cityscapes-dataset.com state them.
DATASETS: dict[str, tuple[Archive, ...]] = {
    "coco2017": (
        _annotations("2017"),
        _pictures("train2017", 118287, "cced6f7f71b7629ddf16f17bbcfab6b2"),
        _pictures("val2017", 5000, "442b8da7639aecaf257c1dceb8ba8c80"),
        Archive(
            "image_info_test2017.zip",
            f"{COCO_URL}/annotations/image_info_test2017.zip",
            None,
            (Part("annotations", "image_info_test-dev2017.json", 1),),
            "test-dev",
        ),
        _pictures("test2017", 40670, "77ad2c53ac5d0aea611d422c0938fb35", "test-dev"),
    ),
    "coco2014": (
        _annotations("2014"),
        _pictures("train2014", 82783, "0da8c0bd3d6becc4dcb32757491aca88"),
        _pictures("val2014", 40504, "a3d79f5ed8d289b7a7554ce06a5782b3"),
        Archive(
            "coco_annotations_minival.tgz",
            "https://dl.fbaipublicfiles.com/detectron/coco/coco_annotations_minival.tgz",
            "2d2b9d2283adb5e3b8d25eec88e65064",
            (
                Part("annotations", "instances_minival2014.json", 1),
                Part("annotations", "instances_valminusminival2014.json", 1),
            ),
        ),
    ),
    "cityscapes": (
        Archive(
            "gtFine_trainvaltest.zip",
            CITYSCAPES_URL,
            "4237c19de34c8a376e9ba46b495d6f66",
            (
                Part("gtFine/train", "*_gtFine_instanceIds.png", 2975),
                Part("gtFine/val", "*_gtFine_instanceIds.png", 500),
            ),
        ),
        Archive(
            "leftImg8bit_trainvaltest.zip",
            CITYSCAPES_URL,
            "0a6e97e94b616a514066c9e2adb0c97f",
            (
                Part("leftImg8bit/train", "*_leftImg8bit.png", 2975),
                Part("leftImg8bit/val", "*_leftImg8bit.png", 500),
            ),
        ),
    ),
}
