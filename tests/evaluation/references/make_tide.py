"""Writes tide.json, the numbers of tidecv: python make_tide.py COCO_MINI/annotations/instances_val.json.

Needs tidecv; README.md beside this file says which version was used, and what is in the file.
"""

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tidecv
from disturbed import disturbed
from tidecv import quantify
from tidecv.ap import ClassedAPDataObject

NAMES = {
    "Cls": "classification",
    "Loc": "localisation",
    "Both": "both",
    "Dupe": "duplicate",
    "Bkg": "background",
    "Miss": "missed",
    "FalsePos": "false_positive",
    "FalseNeg": "false_negative",
}


def without_crowds(truth: dict[str, Any]) -> dict[str, Any]:
    return truth | {"annotations": [item for item in truth["annotations"] if not item["iscrowd"]]}


def analysed(truth: dict[str, Any], results: list[dict[str, Any]], mode: str) -> dict[str, Any]:
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(truth, file)
        file.flush()
        expected = tidecv.datasets.COCO(file.name)
    given = tidecv.Data("detections")
    for item in results:
        given.add_detection(
            item["image_id"], item["category_id"], item["score"], list(item["bbox"]), item["segmentation"]
        )
    tide = quantify.TIDE()
    run = tide.evaluate(expected, given, mode=mode, name="run")
    cost = {error.short_name: value for error, value in run.fix_main_errors().items()}
    cost |= {error.short_name: value for error, value in run.fix_special_errors().items()}
    count = {error.short_name: value for error, value in run.count_errors().items()}
    return {
        "ap50": run.ap,
        "cost": {name: cost[short] for short, name in NAMES.items()},
        "count": {name: count[short] for short, name in NAMES.items() if short in count},
    }


def as_coco_has_it(truth: dict[str, Any]) -> Callable[[], None]:
    """Changes tidecv; what comes back undoes it."""
    classes = {item["category_id"] for item in truth["annotations"] if not item["iscrowd"]}
    mean, add = ClassedAPDataObject.get_mAP, quantify.TIDERun._add_error

    def mean_over_classes(self: Any) -> float:
        values = [found.get_ap() for k, found in self.objs.items() if k in classes and not found.is_empty()]
        return sum(values) / len(values)

    def add_unless_on_crowd(self: Any, error: Any) -> None:
        if error.__class__.__name__ == "MissedError" or error.pred["used"] is not None:
            add(self, error)

    def make(kind: type) -> type:
        class Quiet(kind):  # an error on a crowd must not claim an instance either
            def __init__(self, pred: Any, gt: Any, ex: Any) -> None:
                super().__init__(pred, gt if pred["used"] is not None else gt | {"used": True}, ex)

        Quiet.__name__, Quiet.short_name = kind.__name__, kind.short_name
        return Quiet

    ClassedAPDataObject.get_mAP = mean_over_classes
    quantify.TIDERun._add_error = add_unless_on_crowd
    kinds = {name: getattr(quantify, name) for name in ("ClassError", "BoxError")}
    order = list(quantify.TIDE._error_types)
    for name, kind in kinds.items():
        setattr(quantify, name, make(kind))
    quantify.TIDE._error_types = [getattr(quantify, kind.__name__) for kind in order]

    def undo() -> None:
        ClassedAPDataObject.get_mAP, quantify.TIDERun._add_error = mean, add
        quantify.TIDE._error_types = order
        for name, kind in kinds.items():
            setattr(quantify, name, kind)

    return undo


def main(annotations: Path) -> None:
    truth = json.loads(annotations.read_text())
    results = disturbed(truth)
    plain = without_crowds(truth)
    with_truth = {item["category_id"] for item in plain["annotations"]}
    modes = {"box": "bbox", "mask": "mask"}
    known = [item for item in results if item["category_id"] in with_truth]
    numbers: dict[str, Any] = {"plain": {kind: analysed(plain, known, mode) for kind, mode in modes.items()}}
    undo = as_coco_has_it(truth)
    numbers["crowds"] = {kind: analysed(truth, results, mode) for kind, mode in modes.items()}
    undo()
    text = json.dumps(numbers, indent=1)
    Path(__file__).with_name("tide.json").write_text(text + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
