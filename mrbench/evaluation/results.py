"""Reading and checking what an evaluation compares: COCO ground truth and COCO results.

Everything that COCOeval would stumble over, or silently misread, is answered here with a `UserError` that names
the first few offenders.
"""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from pycocotools import mask as rle_api

from mrbench.data.broken import Broken
from mrbench.data.keypoints import check_keypoints, count_visible
from mrbench.data.segmentation import check_segmentation
from mrbench.errors import UserError

KINDS = ("box", "mask", "keypoint")
SHOWN = 5  # offenders named in a message
EXAMPLES = {
    "box": '{"image_id": 1, "category_id": 1, "bbox": [x, y, w, h], "score": 0.9}',
    "mask": '{"image_id": 1, "category_id": 1, "segmentation": {"size": [h, w], "counts": "..."}, "score": 0.9}',
    "keypoint": '{"image_id": 1, "category_id": 1, "keypoints": [x, y, v, ...], "score": 0.9}',
}


class Problem(Broken):
    """Why one entry cannot be used; collected and shown together."""

    def __init__(self, reason: str) -> None:
        super().__init__("entry", reason)


def read_ground_truth(source: Path | dict[str, Any], kinds: Iterable[str]) -> dict[str, Any]:
    """COCO ground truth as COCOeval can take it: copied, checked, areas filled in, masks as compressed RLE.

    Annotations are numbered anew from 1: COCOeval takes a match with id 0 for no match and loses annotations
    with the same id.

    Raises UserError when the source is not COCO ground truth or an annotation is broken.
    """
    where = f"ground truth {source}" if isinstance(source, Path) else "ground truth"
    data = _read_json(source, where) if isinstance(source, Path) else source
    if not isinstance(data, dict) or not all(
        isinstance(data.get(key), list) for key in ("images", "annotations", "categories")
    ):
        raise UserError(
            f"{where} is not COCO ground truth: it needs the lists images, annotations and categories.",
            "Give the JSON that COCO calls instances_*.json.",
        )
    try:
        sizes = {image["id"]: (int(image["height"]), int(image["width"])) for image in data["images"]}
        categories = {category["id"]: str(category["name"]) for category in data["categories"]}
        names = {category["id"]: category.get("keypoints") or () for category in data["categories"]}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{where}: an image without id, height and width, or a category without id and name ({error!r})."
        ) from None
    with_masks, with_keypoints = "mask" in kinds, "keypoint" in kinds
    number = _number_of_keypoints(names.values(), where) if with_keypoints else 0
    annotations: list[dict[str, Any]] = []

    def check(annotation: Any) -> None:
        size = _owner(annotation, sizes, categories)
        box = _box(annotation)
        rle = _mask(annotation.get("segmentation"), size) if with_masks else None
        area = annotation.get("area")
        if area is None:
            area = float(rle_api.area(rle)) if rle is not None else box[2] * box[3]
        entry = {
            "id": len(annotations) + 1,
            "image_id": annotation["image_id"],
            "category_id": annotation["category_id"],
            "bbox": box,
            "area": _number(area, "area"),
            "iscrowd": int(bool(annotation.get("iscrowd", 0))),
        }
        if rle is not None:
            entry["segmentation"] = rle
        if with_keypoints:
            keypoints = check_keypoints(annotation.get("keypoints"), names[annotation["category_id"]])
            entry["keypoints"] = list(keypoints or [0] * 3 * number)
            entry["num_keypoints"] = count_visible(keypoints)
        annotations.append(entry)

    problems = _check_all(data["annotations"], check, lambda _, item: f"annotation {item.get('id', '?')}")
    if problems:
        raise UserError(f"{where}: {_listed(problems)}", "Mend or remove these annotations.")
    return {
        "images": [{"id": key, "height": h, "width": w} for key, (h, w) in sorted(sizes.items())],
        "categories": [
            {"id": key, "name": name, **({"keypoints": list(names[key])} if names[key] else {})}
            for key, name in sorted(categories.items())
        ],
        "annotations": annotations,
    }


def _number_of_keypoints(names: Iterable[Sequence[str]], where: str) -> int:
    """How many keypoints an instance has; raises UserError where no category names any, or they differ."""
    numbers = sorted({len(of_category) for of_category in names if of_category})
    if not numbers:
        raise UserError(f"{where}: no category names keypoints.", "COCO has them in person_keypoints_*.json.")
    if len(numbers) > 1:
        raise UserError(f"{where}: categories have different numbers of keypoints: {', '.join(map(str, numbers))}.")
    return numbers[0]


def read_detections(source: Path | list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The entries of a COCO results file, or the list itself. Raises UserError when it is not a JSON list."""
    if isinstance(source, list):
        return source
    data = _read_json(source, f"detections {source}")
    if not isinstance(data, list):
        raise UserError(
            f"{source} is not a COCO results file: it must be a JSON list of detections.",
            f"Each entry looks like {EXAMPLES['box']}.",
        )
    return data


def kinds_in(detections: list[dict[str, Any]]) -> tuple[str, ...]:
    """Which of box, mask and keypoint every detection carries; box and mask for an empty list."""
    if not detections:
        return ("box", "mask")
    fields = {"box": "bbox", "mask": "segmentation", "keypoint": "keypoints"}
    found = tuple(
        kind for kind, key in fields.items() if all(isinstance(item, dict) and item.get(key) for item in detections)
    )
    return found or ("box",)


def check_detections(
    detections: list[dict[str, Any]], truth: dict, kind: str, where: str = "The detections"
) -> list[dict[str, Any]]:
    """Detections of one kind as COCOeval takes them; what decides their size class is the area of that kind,
    for keypoints that of the box, as the COCO API has it.

    `where` is what a message calls them. Raises UserError that names the first few with unknown images or categories
    or malformed fields.
    """
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    categories = {category["id"]: category["name"] for category in truth["categories"]}
    number = max((len(category.get("keypoints", ())) for category in truth["categories"]), default=0)
    entries: list[dict[str, Any]] = []

    def check(item: Any) -> None:
        size = _owner(item, sizes, categories)
        entry = {
            "id": len(entries) + 1,
            "image_id": item["image_id"],
            "category_id": item["category_id"],
            "score": _number(item.get("score"), "score"),
            "iscrowd": 0,
        }
        if kind == "box":
            box = _box(item)
            entry.update(bbox=box, area=box[2] * box[3])
        elif kind == "keypoint":
            entry.update(keypoints=_keypoints(item, number))
            entry["bbox"] = _box(item) if "bbox" in item else _extent(entry["keypoints"])
            entry["area"] = entry["bbox"][2] * entry["bbox"][3]
        else:
            rle = _mask(item.get("segmentation"), size)
            entry.update(segmentation=rle, area=float(rle_api.area(rle)))
        entries.append(entry)

    problems = _check_all(detections, check, lambda number, _: f"detection {number}")
    if problems:
        raise UserError(
            f"{where} do not fit the ground truth: {_listed(problems)}",
            "Detections must be of the annotations' split, with the data set's own ids, and each look like "
            f"{EXAMPLES[kind]}.",
        )
    return entries


def _read_json(path: Path, where: str) -> Any:
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except OSError as error:
        raise UserError(f"Cannot read {where}: {error.strerror or error}.", "Check the file's name.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{where} is not JSON: {error}.", "Was it written, or downloaded, whole?") from None


def _check_all(items: list, check: Callable[[Any], None], name: Callable[[int, Any], str]) -> list[str]:
    """Checks each item and returns what is wrong with those that fail; entries are counted from 1."""
    problems = []
    for number, item in enumerate(items, 1):
        try:
            check(item)
        except Broken as problem:
            problems.append(f"{name(number, item) if isinstance(item, dict) else f'entry {number}'}: {problem}")
    return problems


def _listed(problems: list[str]) -> str:
    more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    return f"{len(problems)} broken: " + "; ".join(problems[:SHOWN]) + more + "."


def _owner(item: Any, sizes: dict, categories: dict) -> tuple[int, int]:
    if not isinstance(item, dict):
        raise Problem(f"not an object but {str(item)[:40]!r}")
    for key, known in (("image_id", sizes), ("category_id", categories)):
        value = item.get(key)
        if isinstance(value, (list, dict)) or value not in known:
            raise Problem(f"{key} {value} is unknown" if key in item else f"no {key}")
    return sizes[item["image_id"]]


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise Problem(f"{name} is {value!r}" if value is not None else f"no {name}")
    return float(value)


def _box(item: dict[str, Any]) -> list[float]:
    box = item.get("bbox")
    if not isinstance(box, (list, tuple)) or len(box) != 4:
        raise Problem("no bbox of 4 numbers")
    x, y, w, h = (_number(value, "bbox") for value in box)
    if w < 0 or h < 0:
        raise Problem(f"bbox {list(box)} has a negative size")
    return [x, y, w, h]


def _keypoints(item: dict[str, Any], number: int) -> list[float]:
    keypoints = item.get("keypoints")
    if not isinstance(keypoints, list) or len(keypoints) != 3 * number:
        raise Problem(f"no keypoints of {3 * number} numbers ({number} times x, y, score)")
    return [_number(value, "keypoints") for value in keypoints]


def _extent(keypoints: list[float]) -> list[float]:
    """The rectangle about keypoints, xywh: the box of a detection without one (COCO API, `loadRes`)."""
    x, y = keypoints[0::3], keypoints[1::3]
    return [min(x), min(y), max(x) - min(x), max(y) - min(y)]


def _mask(value: Any, size: tuple[int, int]) -> dict[str, Any]:
    """Compressed RLE of polygons, run lengths or compressed RLE; raises Broken for anything else."""
    segmentation = check_segmentation(value, *size)
    if segmentation is None:
        raise Problem("no segmentation")
    if isinstance(segmentation, dict):
        return segmentation
    return rle_api.merge(rle_api.frPyObjects(segmentation, *size))
