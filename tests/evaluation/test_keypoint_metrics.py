"""COCO's numbers for keypoints against pycocotools, called directly, and how detections become results."""

import json

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mrbench.errors import UserError
from mrbench.evaluation.coco import KEYPOINT_METRICS, evaluate
from mrbench.evaluation.inference import coco_results
from mrbench.evaluation.matches import average_precision
from mrbench.evaluation.results import kinds_in
from mrbench.modeling.postprocess import Detections


def pycocotools(truth, results):
    """The ten numbers as COCO's own program prints them."""
    ground_truth = COCO(str(truth))
    run = COCOeval(ground_truth, ground_truth.loadRes(str(results)), "keypoints")
    run.evaluate()
    run.accumulate()
    run.summarize()
    return [None if value == -1 else 100 * value for value in run.stats]


def test_golden_picture(shared):
    folder = shared / "data/coco-eval-golden/keypoints_one_image"
    expected = pycocotools(folder / "gt_dataset.json", folder / "dt_dataset.json")
    result = evaluate(folder / "gt_dataset.json", folder / "dt_dataset.json", ("keypoint",))
    measured = [result.metrics[f"keypoint/{name}"] for name in KEYPOINT_METRICS]
    assert len(result.metrics) == 10
    assert measured == pytest.approx(expected, abs=1e-9)
    assert 0 < result.metrics["keypoint/AP"] < 100


@pytest.mark.parametrize("boxes", [True, False], ids=["with boxes", "without"])
def test_real_people_found_nearly_right(shared, tmp_path, boxes):
    truth = shared / "data/coco-mini/annotations/person_keypoints_val.json"
    random = np.random.default_rng(0)
    results = []
    for annotation in json.loads(truth.read_text())["annotations"]:
        for spread in (2.0, 15.0):
            points = np.array(annotation["keypoints"], dtype=float).reshape(-1, 3)
            points[:, :2] += random.normal(0, spread, (17, 2))
            results.append(
                {
                    "image_id": annotation["image_id"],
                    "category_id": 1,
                    **({"bbox": annotation["bbox"]} if boxes else {}),
                    "keypoints": points.ravel().tolist(),
                    "score": float(random.random()),
                }
            )
    file = tmp_path / "results.json"
    file.write_text(json.dumps(results))
    result = evaluate(truth, file, ("keypoint",))
    measured = [result.metrics[f"keypoint/{name}"] for name in KEYPOINT_METRICS]
    assert measured == pytest.approx(pycocotools(truth, file), abs=1e-9)
    again = average_precision(result.matches, "keypoint")
    for name in ("AP", "AP50", "AP75", "APm", "APl"):
        assert again[name] == pytest.approx(result.metrics[f"keypoint/{name}"], abs=1e-9)
    assert kinds_in(results) == (("box", "keypoint") if boxes else ("keypoint",))


def test_people_without_keypoints_and_crowds_are_neither_to_be_found_nor_to_be_missed(tmp_path):
    """COCO's rule: they do not count, and what is found on them is no mistake, though what is found elsewhere is."""

    def person(number, x, y, visibility, crowd=0):
        mask = {"size": [300, 300], "counts": [300 * x + y, 100, 300 * 300 - 300 * x - y - 100]}
        points = [v for i in range(17) for v in (x + 5 * i, y + 5 * i, visibility)]
        return {"id": number, "image_id": 1, "category_id": 1, "bbox": [x, y, 100, 100], "area": 8000,
                "iscrowd": crowd, "keypoints": points if visibility else [0] * 51,
                "segmentation": mask if crowd else [[x, y, x + 100, y, x + 100, y + 100]],
                "num_keypoints": 17 if visibility else 0}  # fmt: skip

    def found(x, y, score):
        points = [v for i in range(17) for v in (x + 5 * i, y + 5 * i, 1)]
        return {"image_id": 1, "category_id": 1, "bbox": [x, y, 100, 100], "keypoints": points, "score": score}

    names = ["nose", *(f"point{i}" for i in range(16))]
    truth = {
        "info": {},
        "images": [{"id": 1, "height": 300, "width": 300}],
        "categories": [{"id": 1, "name": "person", "keypoints": names}],
        "annotations": [person(1, 10, 10, 2), person(2, 150, 10, 0), person(3, 10, 150, 0, crowd=1)],
    }
    for detections, wanted in (
        ([found(150, 10, 0.9), found(20, 160, 0.8), found(10, 10, 0.7)], 100.0),
        ([found(190, 190, 0.9), found(10, 10, 0.7)], 50.0),  # half of what is found is there, at every recall
    ):
        for name, content in (("truth", truth), ("found", detections)):
            (tmp_path / name).write_text(json.dumps(content))
        metrics = evaluate(tmp_path / "truth", tmp_path / "found", ("keypoint",)).metrics
        assert list(metrics.values()) == pytest.approx(pycocotools(tmp_path / "truth", tmp_path / "found"), abs=1e-9)
        assert metrics["keypoint/AP"] == pytest.approx(wanted)
        assert metrics["keypoint/APl"] is None


def test_other_creatures_have_other_keypoints():
    truth = {
        "images": [{"id": 1, "height": 100, "width": 100}],
        "categories": [{"id": 4, "name": "fish", "keypoints": ["head", "tail"]}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 4, "bbox": [0, 0, 50, 50], "area": 2500, "iscrowd": 0,
             "keypoints": [10, 10, 2, 40, 40, 1]},
        ],
    }  # fmt: skip
    found = {
        "image_id": 1,
        "category_id": 4,
        "bbox": [0, 0, 50, 50],
        "score": 0.9,
        "keypoints": [10, 10, 1, 40, 40, 1],
    }
    result = evaluate(truth, [found], ("keypoint",))
    assert result.metrics["keypoint/AP"] == pytest.approx(100)
    assert any("17 keypoints" in note for note in result.notes)
    with pytest.raises(UserError, match="no keypoints of 6 numbers"):
        evaluate(truth, [{**found, "keypoints": [1, 2, 3]}], ("keypoint",))
    del truth["categories"][0]["keypoints"]
    with pytest.raises(UserError, match="no category names keypoints"):
        evaluate(truth, [found], ("keypoint",))


def test_results_number_pixels_as_coco_does():
    found = Detections(
        boxes=torch.tensor([[0.0, 0.0, 20.0, 20.0]]),
        scores=torch.tensor([0.5]),
        labels=torch.tensor([0]),
        masks=None,
        keypoints=torch.tensor([[[10.5, 7.5, 0.25], [3.0, 4.25, 1.0]]]),
    )
    (result,) = coco_results(found, 1, 40, 40, [1])
    assert result["keypoints"] == [10.0, 7.0, 0.25, 2.5, 3.75, 1.0]
