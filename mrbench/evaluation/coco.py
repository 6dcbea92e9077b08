"""COCO's twelve numbers for boxes and masks and ten for keypoints, overall and per category, by pycocotools.

Percent, as the literature prints them; None where COCO says -1 (no such ground truth).
"""

import contextlib
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mrbench.errors import UserError
from mrbench.evaluation.errors import Compared, ErrorAnalysis, analyse
from mrbench.evaluation.matches import AREAS, KindMatches, Matches, pack
from mrbench.evaluation.results import KINDS, check_detections, kinds_in, read_detections, read_ground_truth

IOU_TYPES = {"box": "bbox", "mask": "segm", "keypoint": "keypoints"}
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
KEYPOINT_METRICS = ("AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl")
MOST_KEYPOINT_DETECTIONS = 20  # of an image and category, by COCO's rules
COCO_AREAS = (1024.0, 9216.0)


@dataclass
class Evaluation:
    """The outcome of comparing detections with ground truth.

    metrics: "box/AP", ..., "mask/ARl", "keypoint/AP", ... in percent, None where undefined. per_category: by
    name, "box/AP", "mask/AP" and "keypoint/AP". notes: what a reader of the numbers must know. matches: see
    `mrbench.evaluation.matches`; proposals have none. per_threshold: AP at each IoU threshold by kind, "box":
    {"0.50": ...}. errors: of boxes and masks, what each category of error costs.
    """

    metrics: dict[str, float | None]
    per_category: dict[str, dict[str, float | None]]
    notes: list[str]
    matches: Matches | None
    images: int
    per_threshold: dict[str, dict[str, float | None]] = field(default_factory=dict)
    errors: dict[str, ErrorAnalysis] = field(default_factory=dict)


def evaluate(
    ground_truth: Path | dict[str, Any],
    detections: Path | list[dict[str, Any]],
    kinds: Sequence[str] | None = ("box", "mask"),
    areas: Sequence[float] = COCO_AREAS,
    max_detections: int = 100,
) -> Evaluation:
    """COCO evaluation (Lin et al. 2014) of `detections` (COCO results) against `ground_truth` (COCO annotations).

    `kinds`: of box, mask and keypoint; None: those that all detections have. `areas`: limits small | medium and
    medium | large in square pixels, of the box for boxes and of the mask for masks. `max_detections`: the best so many
    of each image and category count; "AR100" is recall at this number. Keypoints, whose similarity is COCO's OKS, have
    the best 20 and no small ones, which COCO does not annotate.

    Raises UserError for files that are not COCO's, unknown image or category ids and malformed entries.
    """
    found = read_detections(detections)
    kinds = kinds_in(found) if kinds is None else kinds
    _check_settings(kinds, areas, max_detections)
    truth = read_ground_truth(ground_truth, kinds)
    if not truth["images"] or not truth["categories"]:
        raise UserError("The ground truth has no images or no categories: there is nothing to evaluate.")
    where = f"Detections {detections}" if isinstance(detections, Path) else "The detections"
    names = _unique_names(truth["categories"])
    metrics: dict[str, float | None] = {}
    per_category: dict[str, dict[str, float | None]] = {name: {} for name in names}
    matches = Matches(
        image_ids=np.array([image["id"] for image in truth["images"]]),
        categories=names,
        areas=(float(areas[0]), float(areas[1])),
        max_detections=max_detections,
        iou_thresholds=np.zeros(0),
        kinds={},
    )
    per_threshold: dict[str, dict[str, float | None]] = {}
    errors: dict[str, ErrorAnalysis] = {}
    for kind in kinds:
        entries = check_detections(found, truth, kind, where)
        run = _run(truth, entries, kind, areas, max_detections)
        summary = _keypoint_summary(run.eval) if kind == "keypoint" else _summary(run.eval)
        metrics.update({f"{kind}/{name}": value for name, value in summary.items()})
        for name, precision in zip(names, run.eval["precision"].transpose(2, 0, 1, 3, 4), strict=True):
            per_category[name][f"{kind}/AP"] = _mean(precision[:, :, 0, -1])
        matches.iou_thresholds = np.asarray(run.params.iouThrs)
        matches.kinds[kind] = _matches(run, len(truth["images"]))
        per_threshold[kind] = {
            f"{threshold:.2f}": _mean(precision[:, :, 0, -1])
            for threshold, precision in zip(run.params.iouThrs, run.eval["precision"], strict=True)
        }
        if kind != "keypoint":
            errors[kind] = analyse(_compared(run, truth, entries, "bbox" if kind == "box" else "segmentation"))
    notes = _notes(truth, found, metrics, max_detections, areas)
    return Evaluation(metrics, per_category, notes, matches, len(truth["images"]), per_threshold, errors)


def without_annotations(images: int) -> Evaluation:
    """What there is to say of detections on images whose annotations nobody has, as COCO's test-dev: no numbers."""
    note = (
        "The images have no annotations: nothing was evaluated. The detections are COCO results, ready to be sent in."
    )
    return Evaluation({}, {}, [note], None, images)


def _check_settings(kinds: Sequence[str], areas: Sequence[float], max_detections: int) -> None:
    if not kinds or any(kind not in KINDS for kind in kinds):
        raise UserError(f"Evaluation knows the kinds {', '.join(KINDS)}, not {', '.join(kinds) or 'none'}.")
    if len(areas) != 2 or not 0 < areas[0] < areas[1]:
        raise UserError(
            f"areas must be two rising limits in square pixels, not {list(areas)}.",
            "COCO's are 1024,9216 (32 and 96 pixels squared).",
        )
    if max_detections < 1:
        raise UserError(f"max_detections must be at least 1, not {max_detections}.")


def _run(
    truth: dict, entries: list[dict[str, Any]], kind: str, areas: Sequence[float], max_detections: int
) -> COCOeval:
    """pycocotools' evaluation, without its prints."""
    head = {"images": truth["images"], "categories": truth["categories"]}
    with contextlib.redirect_stdout(io.StringIO()):
        apis = []
        # COCOeval marks annotations with its own keys, so each kind gets copies.
        for annotations in ([dict(item) for item in truth["annotations"]], entries):
            api = COCO()
            api.dataset = {**head, "annotations": annotations}
            api.createIndex()
            apis.append(api)
        run = COCOeval(*apis, iouType=IOU_TYPES[kind])
        small, large = map(float, areas)
        run.params.areaRng = [[0.0, 1e10], [0.0, small], [small, large], [large, 1e10]]
        run.params.areaRngLbl = list(AREAS)
        if kind == "keypoint":
            run.params.maxDets = [min(MOST_KEYPOINT_DETECTIONS, max_detections)]
            run.params.kpt_oks_sigmas = _sigmas(truth, run.params.kpt_oks_sigmas)
        else:
            run.params.maxDets = [1, min(10, max_detections), max_detections]
        run.evaluate()
        run.accumulate()
    return run


def _summary(arrays: dict[str, Any]) -> dict[str, float | None]:
    """COCO's twelve numbers from COCOeval's arrays, whose own summary takes it that maxDets ends with 100."""
    precision = arrays["precision"]  # [thresholds, recalls, categories, areas, max detections]
    recall = arrays["recall"]  # [thresholds, categories, areas, max detections]
    values = [
        precision[:, :, :, 0, -1],
        precision[0, :, :, 0, -1],
        precision[5, :, :, 0, -1],
        *(precision[:, :, :, area, -1] for area in (1, 2, 3)),
        *(recall[:, :, 0, limit] for limit in range(3)),
        *(recall[:, :, area, -1] for area in (1, 2, 3)),
    ]
    return {name: _mean(value) for name, value in zip(METRICS, values, strict=True)}


def _keypoint_summary(arrays: dict[str, Any]) -> dict[str, float | None]:
    """COCO's ten numbers for keypoints; arrays as of `_summary`."""
    precision, recall = arrays["precision"], arrays["recall"]
    values = []
    for array in (precision, recall):
        values += [array[..., 0, -1], array[0, ..., 0, -1], array[5, ..., 0, -1]]
        values += [array[..., AREAS.index(area), -1] for area in ("medium", "large")]
    return {name: _mean(value) for name, value in zip(KEYPOINT_METRICS, values, strict=True)}


def _sigmas(truth: dict, coco: NDArray[Any]) -> NDArray[Any]:
    """How far off each keypoint may be: COCO's own for its 17 of a person, for others the mean of these."""
    number = max(len(category.get("keypoints", ())) for category in truth["categories"])
    return coco if number == len(coco) else np.full(number, coco.mean())


def _mean(values: NDArray[Any]) -> float | None:
    """Mean in percent over what is defined."""
    defined = values[values > -1]
    return 100.0 * float(defined.mean()) if defined.size else None


def _matches(run: COCOeval, images: int) -> KindMatches:
    """COCOeval's results of each (category, area, image), regrouped by detection."""
    categories, thresholds = len(run.params.catIds), len(run.params.iouThrs)
    flat = np.empty(len(run.evalImgs), object)
    flat[:] = run.evalImgs
    results = flat.reshape(categories, len(AREAS), images)
    counts = np.zeros((images, categories, len(AREAS)), np.int32)
    image_parts, category_parts, scores, matched, ignored = [], [], [], [], []
    for k in range(categories):
        for i in range(images):
            cell = results[k, :, i]
            if cell[0] is None:
                continue
            counts[i, k] = [np.count_nonzero(item["gtIgnore"] == 0) for item in cell]
            size = len(cell[0]["dtScores"])
            image_parts.append(np.full(size, i, np.int32))
            category_parts.append(np.full(size, k, np.int16))
            scores.append(np.asarray(cell[0]["dtScores"], np.float64))
            matched.append(np.stack([item["dtMatches"].T != 0 for item in cell], 1))
            ignored.append(np.stack([item["dtIgnore"].T != 0 for item in cell], 1))
    shape = (0, len(AREAS), thresholds)
    return KindMatches(
        image=np.concatenate([np.zeros(0, np.int32), *image_parts]),
        category=np.concatenate([np.zeros(0, np.int16), *category_parts]),
        score=np.concatenate([np.zeros(0), *scores]),
        matched=pack(np.concatenate([np.zeros(shape, bool), *matched])),
        ignored=pack(np.concatenate([np.zeros(shape, bool), *ignored])),
        ground_truth=counts,
    )


def _compared(run: COCOeval, truth: dict, entries: list[dict[str, Any]], region: str) -> Compared:
    """COCOeval's matches at its first IoU threshold, 0.5, over all areas, for the analysis of errors."""
    image_places = {image["id"]: place for place, image in enumerate(truth["images"])}
    category_places = {category["id"]: place for place, category in enumerate(truth["categories"])}
    instances = sorted(
        (item for item in truth["annotations"] if not item["iscrowd"]), key=lambda item: image_places[item["image_id"]]
    )
    instance_places = np.full(len(truth["annotations"]) + 1, -1, np.int64)
    instance_places[[item["id"] for item in instances]] = np.arange(len(instances))
    images = len(truth["images"])
    numbers, matches = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for k in range(len(truth["categories"])):
        start = k * len(AREAS) * images
        for cell in run.evalImgs[start : start + images]:
            if cell is not None and cell["dtIds"]:
                counted = np.flatnonzero(cell["dtIgnore"][0] == 0)
                numbers.append(np.asarray(cell["dtIds"])[counted])
                matches.append(cell["dtMatches"][0][counted].astype(np.int64))
    number, match = np.concatenate(numbers), np.concatenate(matches)
    image = np.array([image_places[item["image_id"]] for item in entries], np.int64)
    order = np.argsort(image[number - 1], kind="stable")
    number, match = number[order], match[order]
    kept = [entries[i] for i in (number - 1).tolist()]
    return Compared(
        image=image[number - 1],
        category=np.array([category_places[item["category_id"]] for item in kept], np.int64),
        score=np.array([item["score"] for item in kept], np.float64),
        match=np.where(match > 0, instance_places[match], -1),
        regions=[item[region] for item in kept],
        instance_image=np.array([image_places[item["image_id"]] for item in instances], np.int64),
        instance_category=np.array([category_places[item["category_id"]] for item in instances], np.int64),
        instance_regions=[item[region] for item in instances],
        classes=len(truth["categories"]),
    )


def _unique_names(categories: list[dict[str, Any]]) -> list[str]:
    repeated = Counter(category["name"] for category in categories)
    return [
        category["name"] if repeated[category["name"]] == 1 else f"{category['name']} ({category['id']})"
        for category in categories
    ]


def _notes(
    truth: dict,
    found: list,
    metrics: dict[str, float | None],
    max_detections: int,
    areas: Sequence[float],
) -> list[str]:
    notes = []
    if not found:
        notes.append("There are no detections: every AP and AR is 0.")
    if not truth["annotations"]:
        notes.append("The ground truth has no annotations: nothing is defined.")
    if max_detections != 100:
        notes.append(f"At most {max_detections} detections of an image and category count; AR100 is recall at these.")
    if tuple(map(float, areas)) != COCO_AREAS:
        notes.append(f"Small is below {areas[0]:g} and large above {areas[1]:g} square pixels, unlike COCO's.")
    number = max((len(category.get("keypoints", ())) for category in truth["categories"]), default=0)
    if number not in (0, 17) and "keypoint/AP" in metrics:
        notes.append(f"COCO has tolerances for a person's 17 keypoints; the {number} here all have their mean.")
    undefined = [name for name, value in metrics.items() if value is None]
    if undefined and truth["annotations"]:
        notes.append(f"No ground truth for {', '.join(undefined)}.")
    return notes
