"""`mrbench data check` finds planted damage: one at a time, and nothing else."""

import json
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from mrbench.cli.data import app
from mrbench.config.schema import DataConfig, RunConfig, SplitConfig
from mrbench.data.check import Report, check_data
from mrbench.data.findings import KINDS
from mrbench.errors import UserError

NAMES = ["nose", "left_eye", "right_eye"]
ROTATE = 6  # EXIF: to be turned by 90 degrees


class Planted:
    """Two splits of three pictures, 60 x 40 pixels, that are sound until a test damages the training split."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.splits = {"train": self._content(1), "val": self._content(11)}
        random = np.random.default_rng(0)
        for split, content in self.splits.items():
            (root / "images" / split).mkdir(parents=True)
            for image in content["images"]:
                pixels = random.integers(0, 256, (40, 60, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / "images" / split / image["file_name"])

    def _content(self, first: int) -> dict[str, Any]:
        images = [
            {"id": first + i, "file_name": f"{first + i}.{kind}", "width": 60, "height": 40}
            for i, kind in enumerate(("png", "jpg", "png"))
        ]
        whole = 60 * 40
        annotations = [
            # Two rectangles as one object; a square with keypoints; ten columns of RLE; a crowd.
            annotation(1, first, 3, [5, 5, 20, 10], [[5, 5, 15, 5, 15, 15, 5, 15], [15, 5, 25, 5, 25, 15, 15, 15]]),
            annotation(2, first + 1, 7, [10, 10, 10, 10], [[10, 10, 20, 10, 20, 20, 10, 20]])
            | {"keypoints": [12, 12, 2, 18, 12, 1, 0, 0, 0], "num_keypoints": 2},
            annotation(3, first + 2, 3, [20, 0, 10, 40], {"size": [40, 60], "counts": [800, 400, whole - 1200]}),
            annotation(4, first + 2, 7, [0, 0, 60, 40], {"size": [40, 60], "counts": [0, whole]}, iscrowd=1),
            annotation(5, first + 2, 7, [30, 10, 10, 10], [[30, 10, 40, 10, 40, 20, 30, 20]]),
        ]
        categories = [{"id": 3, "name": "thing"}, {"id": 7, "name": "person", "keypoints": NAMES}]
        return {"images": images, "annotations": annotations, "categories": categories}

    @property
    def images(self) -> list[dict[str, Any]]:
        return self.splits["train"]["images"]

    @property
    def annotations(self) -> list[dict[str, Any]]:
        return self.splits["train"]["annotations"]

    @property
    def categories(self) -> list[dict[str, Any]]:
        return self.splits["train"]["categories"]

    def file(self, place: int, split: str = "train") -> Path:
        return self.root / "images" / split / self.splits[split]["images"][place]["file_name"]

    def write(self) -> RunConfig:
        (self.root / "annotations").mkdir(exist_ok=True)
        for split, content in self.splits.items():
            (self.root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
        return RunConfig(data=DataConfig(kind="coco_folder", root=str(self.root)))


def annotation(identity: int, image: int, category: int, box: list, segmentation: Any, iscrowd: int = 0) -> dict:
    return {
        "id": identity,
        "image_id": image,
        "category_id": category,
        "bbox": box,
        "area": box[2] * box[3],
        "iscrowd": iscrowd,
        "segmentation": segmentation,
    }


@contextmanager
def silent(what: str, total: int | None):
    yield lambda done: None


@pytest.fixture
def planted(tmp_path: Path) -> Planted:
    return Planted(tmp_path / "set")


def report_of(planted: Planted, decode: bool = False, **model: Any) -> Report:
    config = planted.write()
    for key, value in model.items():
        getattr(config.model, key).enabled = value
    return check_data(config, silent, decode)


def test_a_sound_set_has_no_findings_and_is_counted(planted: Planted) -> None:
    report = report_of(planted, decode=True)
    assert report.findings == []
    assert report.worst is None
    for summary in report.summaries.values():
        assert (summary.images, summary.instances, summary.crowds, summary.empty) == (3, 4, 1, 0)
        assert summary.per_class == [2, 2]
        assert summary.per_size == [4, 0, 0]


def put(place: int, **values: Any) -> Callable[[Planted], None]:
    """Damage: keys of one annotation get other values."""
    return lambda planted: planted.annotations[place].update(values)


def drop(place: int, key: str) -> Callable[[Planted], None]:
    return lambda planted: planted.annotations[place].pop(key) and None


def put_image(place: int, **values: Any) -> Callable[[Planted], None]:
    return lambda planted: planted.images[place].update(values)


def put_category(place: int, **values: Any) -> Callable[[Planted], None]:
    def damage(planted: Planted) -> None:
        for split in planted.splits.values():  # in both, or they would differ as well
            split["categories"][place].update(values)

    return damage


def cut(place: int, kept: float) -> Callable[[Planted], None]:
    """Damage: a picture file loses its end."""

    def damage(planted: Planted) -> None:
        content = planted.file(place).read_bytes()
        planted.file(place).write_bytes(content[: int(kept * len(content))])

    return damage


def missing_picture(planted: Planted) -> None:
    planted.file(0).unlink()


def text_for_a_picture(planted: Planted) -> None:
    planted.file(1).write_text("<html>404 Not Found</html>")


def empty_file(planted: Planted) -> None:
    planted.file(1).write_bytes(b"")


def turned(width: int, height: int) -> Callable[[Planted], None]:
    """A JPEG of the given size whose EXIF says that it is to be turned."""

    def damage(planted: Planted) -> None:
        exif = Image.Exif()
        exif[0x0112] = ROTATE
        random = np.random.default_rng(1)
        pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(planted.file(1), exif=exif)

    return damage


def floating_point(planted: Planted) -> None:
    planted.images[0]["file_name"] = "1.tiff"
    Image.fromarray(np.random.default_rng(2).random((40, 60)).astype(np.float32)).save(planted.file(0))


def copy_to_val(planted: Planted) -> None:
    planted.file(2, "val").write_bytes(planted.file(2).read_bytes())


def val_names_a_training_file(planted: Planted) -> None:
    planted.splits["val"]["images"][0]["file_name"] = "../train/1.png"


def copy_in_train(planted: Planted) -> None:
    planted.file(2).write_bytes(planted.file(0).read_bytes())


def image_twice(planted: Planted) -> None:
    planted.images.append(dict(planted.images[0]))


def file_twice(planted: Planted) -> None:
    planted.images[2]["file_name"] = planted.images[0]["file_name"]


def category_twice(planted: Planted) -> None:
    for split in planted.splits.values():
        split["categories"].append({"id": 3, "name": "again"})


def other_category_in_val(planted: Planted) -> None:
    planted.splits["val"]["categories"][0]["name"] = "something"


def annotation_again(planted: Planted) -> None:
    planted.annotations.append({**planted.annotations[0], "id": 6})


def same_annotation_id(planted: Planted) -> None:
    planted.annotations.append({**planted.annotations[0], "id": 2, "bbox": [5, 5, 21, 10]})


def negative_annotation_id(planted: Planted) -> None:
    planted.annotations[0]["id"] = -1


def annotation_that_is_a_list(planted: Planted) -> None:
    planted.annotations.append([1, 2, 3])


def picture_without_annotations(planted: Planted) -> None:
    del planted.annotations[1]


def category_without_annotations(planted: Planted) -> None:
    for split in planted.splits.values():
        split["categories"].append({"id": 9, "name": "never"})


def no_images(planted: Planted) -> None:
    planted.splits["train"].update(images=[], annotations=[], categories=[])


SQUARE = [30, 10, 40, 10, 40, 20, 30, 20]

DAMAGE: list[tuple[str, Callable[[Planted], None]]] = [
    ("image-entry", put_image(0, id=1.5)),
    ("image-entry", lambda planted: planted.images.append({"id": 9, "width": 60, "height": 40})),
    (
        "image-entry",
        lambda planted: planted.images.append({"id": 9, "file_name": "9.png", "width": "60", "height": 40}),
    ),
    ("category-entry", lambda planted: planted.categories.append({"name": "no id"})),
    ("category-name", put_category(0, name="")),
    ("annotation-entry", annotation_that_is_a_list),
    ("annotation-entry", put(0, id="one")),
    ("duplicate-image-id", image_twice),
    ("duplicate-file-name", file_twice),
    ("duplicate-category-id", category_twice),
    ("duplicate-category-name", put_category(0, name="person")),
    ("duplicate-annotation-id", same_annotation_id),
    ("duplicate-annotation", annotation_again),
    ("negative-id", negative_annotation_id),
    ("unknown-image", put(4, image_id=99)),
    ("unknown-category", put(4, category_id=99)),
    ("box-form", put(4, bbox=[30, 10, 10])),
    ("box-form", put(4, bbox=[30, 10, float("nan"), 10])),
    ("box-form", drop(4, "bbox")),
    ("box-empty", put(4, bbox=[30, 10, 0, 10])),
    ("box-empty", put(4, bbox=[40, 20, -10, -10])),
    ("box-outside", put(4, bbox=[70, 10, 10, 10])),
    ("box-beyond", put(4, bbox=[30, 10, 40, 10], area=100)),
    ("box-mask", put(4, bbox=[10, 10, 40, 20])),
    ("box-mask", put(2, bbox=[40, 0, 10, 40])),
    ("area-form", put(4, area="large")),
    ("area-form", put(4, area=float("inf"))),
    ("area-zero", put(4, area=0)),
    ("area-mask", put(4, area=1000)),
    ("area-mask", put(2, area=40)),
    ("no-area", drop(4, "area")),
    ("segmentation-form", put(4, segmentation="none")),
    ("segmentation-form", put(4, segmentation=[30, 10, 40, 10, 40, 20])),
    ("polygon-points", put(4, segmentation=[[30, 10, 40, 20]])),
    ("polygon-odd", put(4, segmentation=[[*SQUARE, 30]])),
    ("polygon-number", put(4, segmentation=[[*SQUARE[:-1], float("nan")]])),
    ("polygon-number", put(4, segmentation=[[*SQUARE[:-1], None]])),
    ("polygon-beyond", put(4, segmentation=[[30, 10, 70, 10, 70, 20, 30, 20]])),
    ("rle-size", put(2, segmentation={"size": [60, 40], "counts": [800, 400, 1200]})),
    ("rle-counts", put(2, segmentation={"size": [40, 60], "counts": [800, 400]})),
    ("rle-counts", put(2, segmentation={"size": [40, 60], "counts": "Pa"})),
    ("mask-empty", put(2, segmentation={"size": [40, 60], "counts": [2400]})),
    ("mask-empty", put(4, segmentation=[[30, 10, 40, 10, 35, 10]])),
    ("crowd-value", put(3, iscrowd=2)),
    ("crowd-polygons", put(4, iscrowd=1)),
    ("keypoints-form", put(1, keypoints=[12, 12, 2, 18, 12, 1, 0, 0, "x"])),
    ("keypoints-length", put(1, keypoints=[12, 12, 2], num_keypoints=1)),
    ("keypoints-visibility", put(1, keypoints=[12, 12, 3, 18, 12, 1, 0, 0, 0])),
    ("keypoints-number", put(1, num_keypoints=3)),
    ("keypoints-beyond", put(1, keypoints=[12, 12, 2, 80, 12, 1, 0, 0, 0])),
    ("keypoints-unset", put(1, keypoints=[12, 12, 2, 18, 12, 1, 5, 5, 0])),
    ("picture-missing", missing_picture),
    ("picture-unreadable", text_for_a_picture),
    ("picture-unreadable", empty_file),
    ("picture-truncated", cut(0, 0.6)),  # PNG
    ("picture-truncated", cut(1, 0.6)),  # JPEG
    ("picture-size", put_image(1, width=61)),
    ("picture-mode", floating_point),
    ("exif-orientation", turned(40, 60)),
    ("exif-turned", turned(60, 40)),
    ("same-picture", copy_in_train),
    ("split-leak", copy_to_val),
    ("split-leak", val_names_a_training_file),
    ("categories-differ", other_category_in_val),
    ("image-empty", picture_without_annotations),
    ("category-empty", category_without_annotations),
    ("file", lambda planted: planted.splits["train"].update(images="none")),
]

# What follows from a damage and says nothing new: the annotations of an image that cannot be read are of no known one.
FOLLOWS = {("image-entry", "unknown-image")}


@pytest.mark.parametrize(("kind", "damage"), DAMAGE, ids=[f"{kind}-{i}" for i, (kind, _) in enumerate(DAMAGE)])
def test_one_damage_is_one_finding(planted: Planted, kind: str, damage: Callable[[Planted], None]) -> None:
    damage(planted)
    found = {finding.kind: finding for finding in report_of(planted).findings}
    extra = {other for other in found if other != kind and (kind, other) not in FOLLOWS}
    assert kind in found
    assert not extra
    assert found[kind].examples[0].split in ("train", "val")


def test_every_kind_has_its_damage_planted() -> None:
    elsewhere = {"no-mask", "mask-wanted", "keypoints-model", "categories-weights", "category-names-weights"}
    assert {kind for kind, _ in DAMAGE} | elsewhere == set(KINDS)
    assert len(KINDS) > 25


def test_what_only_decoding_shows(planted: Planted) -> None:
    content = bytearray(planted.file(0).read_bytes())
    content[len(content) // 2] ^= 0xFF  # a PNG's checksum no longer fits; its ends are whole
    planted.file(0).write_bytes(content)
    assert report_of(planted).findings == []
    assert {f.kind for f in report_of(planted, decode=True).findings} == {"picture-unreadable"}


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_decoding_tells_truncated_files_too(planted: Planted, kind: str) -> None:
    cut({"png": 0, "jpg": 1}[kind], 0.6)(planted)
    assert {f.kind for f in report_of(planted, decode=True).findings} == {"picture-truncated"}


def test_masks_and_keypoints_that_the_model_learns(planted: Planted) -> None:
    planted.annotations[4]["segmentation"] = []
    assert {f.kind for f in report_of(planted, mask_head=True).findings} == {"no-mask", "mask-wanted"}
    assert {f.kind for f in report_of(planted, mask_head=False).findings} == {"no-mask"}
    found = report_of(planted, mask_head=False, keypoint_head=True).findings
    assert {f.kind for f in found} == {"no-mask", "keypoints-model"}  # 17 against 3


def test_weights_of_other_classes_are_told(planted: Planted, tmp_path: Path) -> None:
    planted.write()
    path = tmp_path / "weights.pt"
    for classes, code in ((2, 0), (80, 2)):
        rows = {
            "box_head.classes.weight": torch.zeros(classes + 1, 8),
            "box_head.classes.bias": torch.zeros(classes + 1),
        }
        torch.save({"model": rows}, path)
        result = run(planted, f"model.weights={path}")
        assert result.exit_code == code, result.output
        assert ("80 classes" in result.output) == (code == 2)


@pytest.mark.parametrize(
    ("names", "rule", "code", "said"),
    [
        (["thing", "person"], "same", 0, "no problems found"),
        (["person", "thing"], "same", 1, "category-names-weights"),
        (["thing", "rider", "car"], "by_name", 0, "no problems found"),
        (["rider", "car"], "by_name", 2, "share no category's name"),
    ],
)
def test_names_of_the_weights_classes_are_compared(
    planted: Planted, tmp_path: Path, names: list[str], rule: str, code: int, said: str
) -> None:
    planted.write()
    path = tmp_path / "weights.pt"
    rows = {"box_head.classes.weight": torch.zeros(len(names) + 1, 8)}
    torch.save({"model": rows, "categories": names}, path)
    result = run(planted, f"model.weights={path}", f"model.weights_classes={rule}")
    assert result.exit_code == code, result.output
    assert said in result.output


def test_further_training_files_are_checked_too(planted: Planted) -> None:
    extra = json.loads(json.dumps(planted.splits["train"]))
    extra["annotations"][0]["bbox"] = [1, 1, 0, 0]
    extra["categories"] = [{"id": 7, "name": "thing"}, {"id": 3, "name": "person", "keypoints": NAMES}]
    config = planted.write()
    (planted.root / "extra.json").write_text(json.dumps(extra))
    config.data.train_more = [SplitConfig("extra.json", "images/train")]
    found = {f.kind: f for f in check_data(config, silent).findings}
    assert set(found) == {"box-empty", "same-picture"}
    assert found["box-empty"].examples[0].split == "train_more[0]"


def run(planted: Planted, *more: str):
    arguments = ["check", "data=coco_folder", f"data.root={planted.root}", *more]
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})


def test_the_exit_code_follows_the_gravest_finding(planted: Planted, tmp_path: Path) -> None:
    planted.write()
    assert run(planted).exit_code == 0
    planted.annotations[4].pop("area")
    planted.write()
    assert run(planted).exit_code == 0
    planted.annotations[0]["area"] = 0
    planted.write()
    assert run(planted).exit_code == 1
    planted.annotations[4]["bbox"] = [1, 1, 0, 0]
    planted.write()
    result = run(planted, "--json", str(tmp_path / "report.json"), "--sample", str(tmp_path / "sheet.png"))
    assert result.exit_code == 2
    assert "box-empty" in result.output
    assert "annotation 5, image 3" in result.output
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["severity"] == "error"
    assert content["counts"] == {"error": 1, "warning": 1, "note": 0}
    assert [f["kind"] for f in content["findings"]] == ["box-empty", "area-zero"]
    assert content["findings"][0]["examples"][0]["annotation_id"] == 5
    assert content["splits"]["train"]["instances"] == 3
    assert Image.open(tmp_path / "sheet.png").width > 256


def test_an_empty_folder_is_told_with_what_is_expected_in_it(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["check", "data=coco_folder", f"data.root={tmp_path}"])
    assert isinstance(result.exception, UserError)
    assert result.exception.what == f"There is nothing in {tmp_path}"
    assert "annotations/instances_train*.json" in result.exception.hint
    assert result.output == ""


def test_leaving_annotations_out_is_advised_where_it_helps(planted: Planted) -> None:
    planted.annotations[4]["bbox"] = [1, 1, 0, 0]
    planted.write()
    assert "data.on_error=skip" in run(planted).output
    for file in (planted.root / "annotations").iterdir():
        file.unlink()
    result = run(planted)
    assert result.exit_code == 2
    assert "No annotations of the train split" in result.output
    assert "data.on_error" not in result.output
    assert "instances" not in result.output.splitlines()[0], "no table without splits"


def test_the_page_on_data_explains_every_finding() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "data.md").read_text()
    for kind, (severity, meaning) in KINDS.items():
        assert f"| `{kind}` | {severity} | {meaning} |" in page
