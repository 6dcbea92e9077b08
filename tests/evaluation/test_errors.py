"""What each kind of error costs: against tidecv, the program of TIDE's authors, and against cases worked by hand."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from mrbench.evaluation import errors
from mrbench.evaluation.coco import evaluate
from mrbench.evaluation.errors import CATEGORIES

FOLDER = Path(__file__).parent / "references"
_spec = importlib.util.spec_from_file_location("disturbed", FOLDER / "disturbed.py")
assert _spec is not None
assert _spec.loader is not None
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
disturbed = _module.disturbed

SIDE = 20.0


def truth(*instances, images=1, crowds=()):
    """Ground truth of classes 1 and 2; an instance is (class, x, y[, image]) and 20 pixels wide and high."""
    return {
        "images": [{"id": i + 1, "height": 400, "width": 400} for i in range(images)],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"id": n, "image_id": rest[0] if rest else 1, "category_id": category, "bbox": [x, y, SIDE, SIDE],
             "area": SIDE * SIDE, "iscrowd": int(n in crowds)}
            for n, (category, x, y, *rest) in enumerate(instances)
        ],
    }  # fmt: skip


def found(*detections):
    """Detections (class, x, y, score), 20 pixels wide and high, on image 1."""
    return [
        {"image_id": 1, "category_id": category, "bbox": [x, y, SIDE, SIDE], "score": score}
        for category, x, y, score in detections
    ]


def analysis(ground_truth, detections):
    return evaluate(ground_truth, detections, ("box",)).errors["box"]


def costs(result):
    """What costs anything, without the totals."""
    return {name: round(result.cost[name], 6) for name in CATEGORIES if result.cost[name]}


@pytest.mark.parametrize("part", ["plain", "crowds"])
def test_costs_are_those_of_tidecv(shared, part, monkeypatch):
    # COCO's recall levels come from linspace and are off by a rounding error; tidecv divides by 100.
    monkeypatch.setattr(errors, "RECALLS", np.arange(101) / 100)
    ground_truth = json.loads((shared / "data/coco-mini/annotations/instances_val.json").read_text())
    detections = disturbed(ground_truth)
    if part == "plain":
        ground_truth["annotations"] = [item for item in ground_truth["annotations"] if not item["iscrowd"]]
        classes = {item["category_id"] for item in ground_truth["annotations"]}
        detections = [item for item in detections if item["category_id"] in classes]
    result = evaluate(ground_truth, detections)
    for kind, expected in json.loads((FOLDER / "tide.json").read_text())[part].items():
        ours = result.errors[kind]
        assert ours.ap50 == pytest.approx(expected["ap50"], abs=1e-9)
        assert ours.cost == pytest.approx(expected["cost"], abs=1e-9)
        assert {name: ours.count[name] for name in CATEGORIES} == expected["count"]


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_ap50_is_the_one_that_coco_computes(shared, kind):
    folder = shared / "data/coco-eval-golden"
    results = folder / f"instances_val2014_fake{kind}100_results.json"
    name = {"bbox": "box", "segm": "mask"}[kind]
    result = evaluate(folder / "instances_val2014_100.json", results, (name,))
    assert result.errors[name].ap50 == pytest.approx(result.metrics[f"{name}/AP50"], abs=1e-9)
    assert result.per_threshold[name]["0.50"] == pytest.approx(result.metrics[f"{name}/AP50"])
    assert result.per_threshold[name]["0.75"] == pytest.approx(result.metrics[f"{name}/AP75"])
    assert np.mean(list(result.per_threshold[name].values())) == pytest.approx(result.metrics[f"{name}/AP"])


# Two cats, the second found at 0.9. Precision is 1 up to a recall of 1/2, which 51 of COCO's 101 recall levels reach:
# AP is 51 / 101. What would make the first cat a true positive too costs the other 50 / 101.
CATS = truth((1, 0, 0), (1, 100, 100))
SECOND = (1, 100, 100, 0.9)
HALF = 100 * 50 / 101


@pytest.mark.parametrize(
    "first, expected",
    [
        ((2, 0, 0, 0.8), {"classification": HALF}),  # the right place, called a dog
        ((1, 10, 0, 0.8), {"localisation": HALF}),  # IoU 1/3 with it
        ((2, 10, 0, 0.8), {"missed": HALF}),  # both: removing a dog changes nothing for cats
        ((1, 300, 300, 0.8), {"missed": HALF}),  # background, but below all that is right
    ],
)
def test_an_error_costs_what_mending_it_brings(first, expected):
    assert costs(analysis(CATS, found(SECOND, first))) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    "wrong, name",
    [
        ((1, 300, 300, 0.95), "background"),
        ((1, 110, 100, 0.95), "localisation"),  # its cat is found by another: it is removed
        ((2, 100, 100, 0.95), "classification"),
        ((2, 110, 100, 0.95), "both"),
    ],
)
def test_each_false_positive_has_one_category(wrong, name):
    result = analysis(CATS, found(SECOND, wrong))
    assert {key: value for key, value in result.count.items() if value} == {
        name: 1,
        "missed": 1,
        "false_positive": 1,
        "false_negative": 1,
    }


def test_removing_a_false_positive_brings_its_precision_back():
    # Background at 0.95 before the hit at 0.9: precision 1/2 on 51 of 101 levels; without it 1.
    result = analysis(CATS, found((1, 300, 300, 0.95), SECOND))
    assert result.ap50 == pytest.approx(100 * 51 / 101 / 2)
    assert result.cost["background"] == pytest.approx(100 * 51 / 101 / 2)
    assert result.cost["false_positive"] == pytest.approx(result.cost["background"])
    # Without the missed cat in the ground truth the recall of 1 is reached: 1/2 on all levels.
    assert result.cost["missed"] == pytest.approx(100 * 50 / 101 / 2)
    assert result.cost["false_negative"] == pytest.approx(result.cost["missed"])


def test_both_wrong_is_removed():
    # The dog near a cat comes before the real dog, whose AP is 1/2 for it: a quarter of the mean over two classes.
    result = analysis(truth((1, 0, 0), (2, 100, 100)), found((1, 0, 0, 0.9), (2, 100, 100, 0.8), (2, 10, 0, 0.9)))
    assert costs(result) == pytest.approx({"both": 25})


def test_a_second_detection_of_the_same_instance_is_a_duplicate():
    # Both cats found, the first one twice: precisions 1, then 2/3 from recall 1/2 on.
    result = analysis(CATS, found(SECOND, (1, 101, 100, 0.8), (1, 0, 0, 0.7)))
    assert costs(result) == pytest.approx({"duplicate": 100 * 50 / 101 / 3}, abs=1e-5)
    assert result.count["duplicate"] == result.count["false_positive"] == 1


def test_of_several_errors_about_one_instance_the_best_scored_is_mended():
    # A dog at 0.8 and a badly placed cat at 0.7 about the first cat: mending localisation alone only removes the cat,
    # for the dog would have found it first; nothing is missed.
    result = analysis(CATS, found(SECOND, (2, 0, 0, 0.8), (1, 10, 0, 0.7)))
    assert costs(result) == pytest.approx({"classification": HALF}, abs=1e-5)
    assert result.count["missed"] == 0
    assert result.count["false_negative"] == 1


def test_a_detection_on_a_crowd_is_no_error():
    result = analysis(truth((1, 0, 0), (1, 100, 100), crowds=(1,)), found((1, 0, 0, 0.9), (1, 105, 100, 0.8)))
    assert result.ap50 == pytest.approx(100)
    assert not costs(result)
    assert not any(result.count.values())


def test_images_do_not_mix():
    # The detection on image 1 lies where image 2 has its cat.
    result = analysis(truth((1, 0, 0, 2), images=2), found((1, 0, 0, 0.9)))
    assert result.count["background"] == result.count["missed"] == 1


def test_nothing_found_is_all_missed_and_no_ground_truth_costs_nothing_known():
    empty = analysis(CATS, [])
    assert empty.ap50 == 0
    assert costs(empty) == {"missed": 100}
    assert empty.count["missed"] == 2
    nothing = analysis(truth(), found(SECOND))
    assert nothing.ap50 is None
    assert set(nothing.cost.values()) == {None}
    assert nothing.count["background"] == 1
