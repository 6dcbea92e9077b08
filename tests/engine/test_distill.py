"""A model annotates pictures, and another one is trained on them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from pycocotools.coco import COCO
from typer.testing import CliRunner

from mrbench.cli.app import app
from mrbench.config.schema import RunConfig
from mrbench.data.coco import CocoDataset
from mrbench.engine.distill import distill
from mrbench.engine.train import train
from mrbench.errors import UserError
from mrbench.evaluation.distill import threshold_for, usable
from mrbench.runs.record import Run, open_run

PEOPLE = (
    "data=coco_folder",
    "data.train.annotations=annotations/person_keypoints_train.json",
    "data.val.annotations=annotations/person_keypoints_val.json",
    "augmentation=short_edge",
    "augmentation.short_edge=[64]",
    "augmentation.max_size=96",
    "model.keypoint_head.enabled=true",
    "model.keypoint_head.convs=1",
    "model.keypoint_head.channels=16",
    "model.inference.score_threshold=0",
    "model.inference.detections_per_image=20",
    "schedule.iterations=2",
    "evaluation.period=0",
)
PICTURES = 5


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Path:
    """coco-mini, with five pictures left to validate on, which lie in another folder as well."""
    root = tmp_path_factory.mktemp("data") / "coco"
    shutil.copytree(shared / "data/coco-mini", root)
    (root / "more").mkdir()
    file = root / "annotations/person_keypoints_val.json"
    content = json.loads(file.read_text())
    content["images"] = content["images"][:PICTURES]
    kept = {image["id"] for image in content["images"]}
    content["annotations"] = [item for item in content["annotations"] if item["image_id"] in kept]
    file.write_text(json.dumps(content))
    for image in content["images"]:
        (found,) = root.rglob(image["file_name"])
        shutil.copy(found, root / "more")
    return root


@pytest.fixture(scope="module")
def teacher(root: Path, tiny: Callable[..., RunConfig], tmp_path_factory: pytest.TempPathFactory) -> Run:
    config = tiny(*PEOPLE, f"data.root={root}")
    run = open_run(tmp_path_factory.mktemp("teacher"), config)
    train(run, config)
    return run


def mrbench(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_pictures_are_annotated_and_trained_on(root: Path, teacher: Run, tiny: Callable[..., RunConfig]) -> None:
    tta = ("evaluation.tta.enabled=true", "evaluation.tta.short_edge=[64,96]")
    out = root / "annotations/more.json"
    mrbench("data", "distill", teacher.folder, *tta, "--images", root / "more", "--out", out)
    written = COCO(out)
    labelled = COCO(root / "annotations/person_keypoints_train.json")
    per_image = len(labelled.getAnnIds(iscrowd=False)) / len(labelled.getImgIds())
    assert len(written.anns) / PICTURES == pytest.approx(per_image, abs=0.5 / PICTURES), "the paper's rule"
    info = written.dataset["info"]
    assert info["labelled_instances_per_image"] == pytest.approx(per_image)
    assert info["tta"]["short_edge"] == [64, 96]

    mrbench("predict", teacher.folder, *tta, root / "more", "--out", root / "predicted")
    predicted = json.loads((root / "predicted/detections.json").read_text())["detections"]
    kept = [item for item in usable(predicted) if item["score"] >= info["score"]]
    assert len(kept) == len(written.anns)
    for found, annotation in zip(kept, written.anns.values(), strict=True):
        assert all(annotation[key] == found[key] for key in ("image_id", "category_id", "bbox", "score"))
        assert annotation["segmentation"] == found["segmentation"]
        assert annotation["area"] == written.annToMask(annotation).sum()
        assert annotation["keypoints"][::3] == found["keypoints"][::3]
        assert annotation["keypoints"][1::3] == found["keypoints"][1::3]
        assert set(annotation["keypoints"][2::3]) == {2}
        assert annotation["num_keypoints"] == 17

    dataset = CocoDataset(out, root / "more")
    assert not dataset.problems
    assert len(dataset) == PICTURES
    config = tiny(*PEOPLE, f"data.root={root}", "data.train_more=[{annotations: annotations/more.json, images: more}]")
    student = open_run(root / "student", config)
    train(student, config)
    assert student.status().state == "completed"


def test_a_score_keeps_what_has_it(root: Path, teacher: Run, tmp_path: Path) -> None:
    distill(teacher.config(), teacher.checkpoint_dir / "final.pt", root / "more", tmp_path / "all.json", 0.0)
    scores = sorted(item["score"] for item in json.loads((tmp_path / "all.json").read_text())["annotations"])
    middle = scores[len(scores) // 2]
    distill(teacher.config(), teacher.checkpoint_dir / "final.pt", root / "more", tmp_path / "half.json", middle)
    half = json.loads((tmp_path / "half.json").read_text())
    assert sorted(item["score"] for item in half["annotations"]) == [score for score in scores if score >= middle]
    assert len(half["images"]) == PICTURES, "pictures in which nothing was found stay"
    with pytest.raises(UserError, match="finds nothing of score 1"):
        distill(teacher.config(), teacher.checkpoint_dir / "final.pt", root / "more", tmp_path / "none.json", 1.0)
    assert not (tmp_path / "none.json").exists()


def test_several_processes_annotate_alike(root: Path, teacher: Run, tmp_path: Path) -> None:
    config = teacher.config()
    distill(config, teacher.checkpoint_dir / "final.pt", root / "more", tmp_path / "one.json")
    config.runtime.devices = 2
    distill(config, teacher.checkpoint_dir / "final.pt", root / "more", tmp_path / "two.json")
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()


@pytest.mark.parametrize("wanted, threshold", [(1, 0.9), (1.4, 0.9), (3, 0.8), (3.6, 0.5), (4, 0.5), (9, 0.3)])
def test_the_score_that_keeps_so_many(wanted: float, threshold: float) -> None:
    """0.9 alone is one, 0.8 three, 0.5 four, 0.3 all five."""
    assert threshold_for([0.8, 0.3, 0.9, 0.5, 0.8], wanted) == threshold


def test_empty_boxes_and_masks_are_no_annotations() -> None:
    full = {"size": [2, 2], "counts": "04"}
    empty = {"size": [2, 2], "counts": "4"}
    good = {"bbox": [0, 0, 2, 2], "segmentation": full}
    assert usable([good, {"bbox": [0, 0, 2, 0]}, {"bbox": [0, 0, 2, 2], "segmentation": empty}]) == [good]
