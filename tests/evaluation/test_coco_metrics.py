"""COCO's numbers: against the values that COCO's authors published, and against cases worked by hand."""

import re
from pathlib import Path

import pytest

from mrbench.errors import UserError
from mrbench.evaluation.coco import METRICS, evaluate

FILES = {"box": "fakebbox100", "mask": "fakesegm100"}


def published(folder: Path, kind: str) -> list[float]:
    text = (folder / "val2014_fake_eval_res.txt").read_text()
    block = text.split({"box": "type=bbox", "mask": "type=segm"}[kind])[1].split("-----")[0]
    return [float(value) for value in re.findall(r"= (-?[\d.]+)$", block, re.MULTILINE)]


def ground_truth(boxes=((0, 0, 10, 10), (50, 50, 20, 20)), crowd=()):
    annotations = [
        {"id": index, "image_id": 1, "category_id": 3, "bbox": list(box), "area": box[2] * box[3],
         "iscrowd": int(index in crowd),
         "segmentation": [[box[0], box[1], box[0] + box[2], box[1], box[0] + box[2], box[1] + box[3], box[0],
                           box[1] + box[3]]]}
        for index, box in enumerate(boxes)
    ]  # fmt: skip
    return {
        "images": [{"id": 1, "height": 100, "width": 100}, {"id": 2, "height": 100, "width": 100}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
        "annotations": annotations,
    }


def detection(box, score, image_id=1, category_id=3, **more):
    return {"image_id": image_id, "category_id": category_id, "bbox": list(box), "score": score, **more}


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_numbers_published_by_coco(shared, kind):
    folder = shared / "data/coco-eval-golden"
    result = evaluate(
        folder / "instances_val2014_100.json", folder / f"instances_val2014_{FILES[kind]}_results.json", (kind,)
    )
    expected = published(folder, kind)
    assert len(expected) == 12
    measured = [result.metrics[f"{kind}/{name}"] for name in METRICS]
    assert [f"{value / 100:.3f}" for value in measured] == [f"{value:.3f}" for value in expected]
    known = [entry[f"{kind}/AP"] for entry in result.per_category.values() if entry[f"{kind}/AP"] is not None]
    assert sum(known) / len(known) == pytest.approx(result.metrics[f"{kind}/AP"])


def test_average_precision_worked_by_hand():
    # Falling score: hit, miss, hit. Recall 1/2 at precision 1, recall 1 at precision 2/3: of COCO's 101 recall
    # levels the 51 up to 0.5 see 1, the other 50 see 2/3.
    found = [
        detection((0, 0, 10, 10), 0.9),
        detection((80, 80, 10, 10), 0.8),
        detection((50, 50, 20, 20), 0.7),
    ]
    result = evaluate(ground_truth(), found, ("box",))
    expected = 100 * (51 + 50 * 2 / 3) / 101
    for name in ("AP", "AP50", "AP75"):
        assert result.metrics[f"box/{name}"] == pytest.approx(expected)
    assert result.metrics["box/AR1"] == pytest.approx(50)
    assert result.metrics["box/AR100"] == pytest.approx(100)
    assert result.metrics["box/APm"] is None
    assert result.metrics["box/APl"] is None
    assert result.per_category == {
        "cat": {"box/AP": pytest.approx(expected)},
        "dog": {"box/AP": None},
    }


def test_annotation_with_id_zero_can_be_matched():
    # COCOeval itself takes a match with annotation 0 for none.
    assert ground_truth()["annotations"][0]["id"] == 0
    result = evaluate(ground_truth(((0, 0, 10, 10),)), [detection((0, 0, 10, 10), 0.9)], ("box",))
    assert result.metrics["box/AP"] == pytest.approx(100)


def test_detection_inside_a_crowd_counts_neither_way():
    truth = ground_truth(((0, 0, 10, 10), (50, 50, 40, 40)), crowd=(1,))
    found = [detection((60, 60, 10, 10), 0.95), detection((0, 0, 10, 10), 0.9)]
    assert evaluate(truth, found, ("box",)).metrics["box/AP"] == pytest.approx(100)


def test_area_limits_decide_what_is_small():
    found = [detection((0, 0, 10, 10), 0.9)]
    result = evaluate(ground_truth(), found, ("box",), areas=(200, 300))
    assert result.metrics["box/APs"] == pytest.approx(100)
    assert result.metrics["box/APm"] is None
    assert result.metrics["box/APl"] == 0
    assert any("200" in note for note in result.notes)


def test_a_mask_is_small_by_its_own_area_not_by_its_box():
    # An L of 4x40 + 36x4 pixels in a 40x40 box: small as a mask, medium as a box.
    shape = [[0, 0, 40, 0, 40, 4, 4, 4, 4, 40, 0, 40]]
    truth = ground_truth(((0, 0, 40, 40),))
    truth["annotations"][0].update(segmentation=shape, area=304)
    found = [
        detection((0, 0, 40, 40), 0.9, segmentation=shape),
        # A miss: as a mask it is small and costs APs; as a box it is medium.
        detection((50, 50, 40, 40), 0.95, segmentation=[[50, 50, 90, 50, 90, 54, 54, 54, 54, 90, 50, 90]]),
    ]
    result = evaluate(truth, found)
    assert result.metrics["mask/APs"] == pytest.approx(50)


def test_max_detections_cuts_each_image_and_category():
    found = [detection((80, 80, 10, 10), 0.9), detection((0, 0, 10, 10), 0.8), detection((50, 50, 20, 20), 0.7)]
    result = evaluate(ground_truth(), found, ("box",), max_detections=2)
    assert result.metrics["box/AR100"] == pytest.approx(50)
    assert result.metrics["box/AR10"] == pytest.approx(50)
    assert result.metrics["box/AP50"] == pytest.approx(100 * 51 / 2 / 101)
    assert any("2 detections" in note for note in result.notes)


def test_no_detections_is_zero_with_a_note():
    result = evaluate(ground_truth(), [])
    assert result.metrics["box/AP"] == 0
    assert result.metrics["mask/AP50"] == 0
    assert result.metrics["box/AR100"] == 0
    assert any("no detections" in note for note in result.notes)


def test_no_ground_truth_is_undefined():
    truth = {**ground_truth(), "annotations": []}
    result = evaluate(truth, [detection((0, 0, 10, 10), 0.9)], ("box",))
    assert set(result.metrics.values()) == {None}
    assert any("no annotations" in note for note in result.notes)


def test_inputs_are_left_as_they_were():
    truth, found = ground_truth(), [detection((0, 0, 10, 10), 0.9)]
    evaluate(truth, found, ("box",))
    assert truth == ground_truth()
    assert found == [detection((0, 0, 10, 10), 0.9)]


BAD_RLE = {"size": [100, 100], "counts": "0100"}


@pytest.mark.parametrize(
    "bad, said",
    [
        (detection((0, 0, 1, 1), 0.5, image_id=99), "image_id 99"),
        (detection((0, 0, 1, 1), 0.5, category_id=4), "category_id 4"),
        (detection((0, 0, 1, 1), float("nan")), "score is nan"),
        (detection((0, 0, 1), 0.5), "4 numbers"),
        (detection((0, 0, -1, 1), 0.5), "negative size"),
        ({"image_id": 1, "category_id": 3, "bbox": [0, 0, 1, 1]}, "no score"),
        ({"category_id": 3, "bbox": [0, 0, 1, 1], "score": 1}, "no image_id"),
        (["a list"], "not an object"),
        (detection((0, 0, 1, 1), 0.5), "no segmentation"),
        (detection((0, 0, 1, 1), 0.5, segmentation=BAD_RLE), "hold"),
        (detection((0, 0, 1, 1), 0.5, segmentation={**BAD_RLE, "size": [9, 9]}), "size"),
        (detection((0, 0, 1, 1), 0.5, segmentation=[[0, 0, 5, 5]]), "polygon with 4"),
    ],
)
def test_bad_detections_are_named(bad, said):
    good = detection((0, 0, 10, 10), 0.9, segmentation=[[0, 0, 10, 0, 10, 10]])
    with pytest.raises(UserError) as caught:
        evaluate(ground_truth(), [good, bad])
    assert said in caught.value.what
    if isinstance(bad, dict):
        assert "detection 2" in caught.value.what


def test_only_the_first_few_of_many_are_named():
    with pytest.raises(UserError) as caught:
        evaluate(ground_truth(), [detection((0, 0, 1, 1), 0.5, image_id=10 + n) for n in range(50)], ("box",))
    assert "and 45 more" in caught.value.what
    assert len(caught.value.what) < 600


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"images": []}', '{"images": [1], "annotations": [], "categories": []}']
)
def test_ground_truth_that_is_not_coco(tmp_path, content):
    file = tmp_path / "instances.json"
    file.write_text(content)
    with pytest.raises(UserError, match=r"instances\.json"):
        evaluate(file, [])


def test_broken_annotations_are_named():
    truth = ground_truth()
    truth["annotations"][1]["category_id"] = 55
    with pytest.raises(UserError, match="annotation 1: category_id 55"):
        evaluate(truth, [], ("box",))
