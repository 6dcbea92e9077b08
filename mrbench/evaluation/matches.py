"""Which detection matched: what COCO's matching left of each image, so that AP can be computed again over any images.

Matching happens inside an image, AP is computed over all of them. With the outcome of the matching kept, AP over any
multiset of images (a bootstrap resample, a subset) needs neither pictures nor ground truth, torch nor pycocotools.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from mrbench.errors import UserError
from mrbench.runs.files import replacing

Array = NDArray[Any]

VERSION = 1
AREAS = ("all", "small", "medium", "large")
RECALLS = np.linspace(0.0, 1.0, 101)  # COCO's 101 recall levels
_NEXT_RECALL = np.append(RECALLS[1:], np.inf)
ARRAYS = ("image", "category", "score", "matched", "ignored", "ground_truth")


@dataclass
class KindMatches:
    """Outcome for boxes or for masks. D detections, in order of category, image and falling score.

    image int32 [D]: index into `Matches.image_ids`; category int16 [D]: index into `Matches.categories`;
    score float64 [D]; matched, ignored uint8 [D, ceil(A*T/8)]: bits over (area, IoU threshold), see `unpack`;
    ground_truth int32 [I, K, A]: instances that count (no crowds, inside the area) of image, category and area.
    A detection is a true positive when matched and not ignored, a false positive when neither.
    """

    image: Array
    category: Array
    score: Array
    matched: Array
    ignored: Array
    ground_truth: Array


@dataclass
class Matches:
    """What `matches.npz` holds. Areas are all, small, medium, large; `areas` are the two limits in square pixels."""

    image_ids: Array  # [I], rising
    categories: list[str]  # K names, in order of category id
    areas: tuple[float, float]
    max_detections: int
    iou_thresholds: Array  # float64 [T]
    kinds: dict[str, KindMatches]  # "box", "mask"

    def save(self, path: Path) -> None:
        """Writes a compressed npz, replacing `path` as a whole."""
        content: dict[str, Any] = {
            "version": np.array(VERSION),
            "image_ids": self.image_ids,
            "categories": np.array(self.categories, dtype=str),
            "areas": np.array(self.areas, np.float64),
            "max_detections": np.array(self.max_detections),
            "iou_thresholds": self.iou_thresholds,
            "kinds": np.array(list(self.kinds), dtype=str),
        }
        for kind, record in self.kinds.items():
            content.update({f"{kind}/{name}": getattr(record, name) for name in ARRAYS})
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **content)

    @staticmethod
    def load(path: Path) -> "Matches":
        """Reads what `save` wrote. Raises UserError when there is no such file or it is damaged."""
        try:
            with np.load(path, allow_pickle=False) as content:
                if int(content["version"]) != VERSION:
                    raise UserError(f"{path} has version {int(content['version'])}; this mrbench reads {VERSION}.")
                return Matches(
                    image_ids=content["image_ids"],
                    categories=[str(name) for name in content["categories"]],
                    areas=(float(content["areas"][0]), float(content["areas"][1])),
                    max_detections=int(content["max_detections"]),
                    iou_thresholds=content["iou_thresholds"],
                    kinds={
                        str(kind): KindMatches(*(content[f"{kind}/{name}"] for name in ARRAYS))
                        for kind in content["kinds"]
                    },
                )
        except OSError as error:
            raise UserError(f"Cannot read the matches {path}: {error.strerror or error}.") from None
        except (KeyError, ValueError, EOFError, BadZipFile) as error:
            raise UserError(
                f"{path} is not a file of matches ({error}).", "Make it again with `mrbench eval RUN`."
            ) from None


def pack(flags: Array) -> Array:
    """Bits of bool [D, A, T], as uint8 [D, ceil(A*T/8)]."""
    return np.packbits(flags.reshape(len(flags), flags.shape[1] * flags.shape[2]), axis=1)


def unpack(bits: Array, areas: int, thresholds: int) -> Array:
    """The inverse of `pack`: bool [D, areas, thresholds]."""
    flags = np.unpackbits(bits, axis=1, count=areas * thresholds)
    return flags.astype(bool).reshape(len(bits), areas, thresholds)


def average_precision(matches: Matches, kind: str, weights: Array | None = None) -> dict[str, float | None]:
    """COCO's six AP numbers in percent ("AP", "AP50", "AP75", "APs", "APm", "APl"), None where undefined.

    `weights` int [I]: how often each image is drawn; every image once by default. For many draws make the
    function once with `resampler`.
    """
    draw = np.ones(len(matches.image_ids), np.int64) if weights is None else weights
    return summary(matches, resampler(matches, kind)(draw))


def summary(matches: Matches, table: Array) -> dict[str, float | None]:
    """The six AP numbers in percent from a table [A, T, K] of a `resampler`."""
    thresholds = np.round(matches.iou_thresholds, 6)
    parts = {
        "AP": table[0],
        "AP50": table[0, thresholds == 0.5],
        "AP75": table[0, thresholds == 0.75],
        "APs": table[1],
        "APm": table[2],
        "APl": table[3],
    }
    return {name: _mean(part) for name, part in parts.items()}


def breakdown_names(matches: Matches) -> list[str]:
    """What `breakdown` holds: the six of `summary`, AP at each IoU threshold ("AP@0.50"), of each class ("AP/cat")."""
    thresholds = [f"AP@{threshold:.2f}" for threshold in matches.iou_thresholds]
    return ["AP", "AP50", "AP75", "APs", "APm", "APl", *thresholds, *(f"AP/{name}" for name in matches.categories)]


def breakdown(matches: Matches, table: Array) -> Array:
    """AP in percent in the order of `breakdown_names`, float64, NaN where undefined; `table` as in `summary`."""
    means = [np.nan if value is None else value for value in summary(matches, table).values()]
    defined = ~np.isnan(table[0, 0])  # a class has ground truth at every threshold or at none
    by_threshold = table[0][:, defined].mean(1) if defined.any() else np.full(table.shape[1], np.nan)
    return np.concatenate([means, 100.0 * by_threshold, 100.0 * table[0].mean(0)])


def _mean(values: Array) -> float | None:
    defined = values[~np.isnan(values)]
    return 100.0 * float(defined.mean()) if defined.size else None


def resampler(matches: Matches, kind: str) -> Callable[[Array], Array]:
    """A function from image weights int [I] to AP in 0..1, float64 [A, T, K], NaN where there is no ground truth.

    Equal to pycocotools on a data set in which image i stands weights[i] times, copies side by side (they decide the
    order of equal scores between images; within a copy, equal scores of one category are taken together).
    Sorting and searching are done here, once: precision is looked at only where it can count, at true positives.
    """
    if kind not in matches.kinds:
        raise UserError(f"These matches hold {', '.join(matches.kinds) or 'nothing'}, not {kind}.")
    record = matches.kinds[kind]
    classes = len(matches.categories)
    shape = (len(AREAS), len(matches.iou_thresholds), classes)
    order = np.lexsort((-record.score, record.category))  # stable, as COCOeval's mergesort
    image = record.image[order]
    category = record.category[order].astype(np.int64)
    counted = ~unpack(record.ignored, *shape[:2])[order]
    true = unpack(record.matched, *shape[:2])[order] & counted
    first = np.searchsorted(category, np.arange(classes))  # of each category's detections

    # A curve belongs to an (area, threshold). The detections that count are listed once an area, those of its middle
    # threshold; the few in which another threshold differs are a list of changes, +1 or -1. How many detections were
    # seen up to a true positive is then the difference of two running sums in each list.
    middle = shape[1] // 2
    listed, changed, sign = _Lists(), _Lists(), []
    position, segment = [], []
    for area in range(shape[0]):
        listed.begin(np.flatnonzero(counted[:, area, middle]))
        for threshold in range(shape[1]):
            here = np.flatnonzero(true[:, area, threshold])
            change = counted[:, area, threshold].astype(np.int8) - counted[:, area, middle]
            changed.begin(np.flatnonzero(change))
            sign.append(change[change != 0])
            for part in (listed, changed):
                part.look_up(here, first[category[here]])
            position.append(here)
            segment.append(category[here] + (area * shape[1] + threshold) * classes)
    owner = np.concatenate(segment)
    begin = np.searchsorted(owner, owner, "left")
    true_image = image[np.concatenate(position)]
    listed_image, listed_last, listed_first = listed.joined(image)
    changed_image, changed_last, changed_first = changed.joined(image)
    signs = np.concatenate(sign).astype(np.int32)
    ground_truth = record.ground_truth.reshape(len(matches.image_ids), -1).astype(np.float64)
    segments = shape[0] * shape[1] * classes
    highest = (owner + 1) * len(RECALLS)  # of each curve's levels the last one stands first

    def table(weights: Array) -> Array:
        draw = np.asarray(weights)
        if draw.shape != (len(ground_truth),) or not np.issubdtype(draw.dtype, np.integer) or (draw < 0).any():
            raise ValueError(f"weights must be {len(ground_truth)} integers from 0 on")
        draw = draw.astype(np.int32)
        instances = (draw.astype(np.float64) @ ground_truth).reshape(classes, shape[0]).T  # [A, K]
        wanted: Array = np.repeat(instances[:, None], shape[1], axis=1).ravel()

        seen_listed = _running_sum(draw[listed_image])
        seen = seen_listed[listed_last] - seen_listed[listed_first]
        if len(signs):
            seen_changed = _running_sum(draw[changed_image] * signs)
            seen += seen_changed[changed_last] - seen_changed[changed_first]
        hits = _running_sum(draw[true_image])
        hit = hits[1:] - hits[begin]

        precision = hit / (seen + np.spacing(1))
        level = highest - levels_reached(hit / np.maximum(wanted, 1.0)[owner])
        best = np.zeros(segments * len(RECALLS))
        np.maximum.at(best, level, precision)
        envelope = np.maximum.accumulate(best.reshape(segments, -1), axis=1)
        return np.where(wanted > 0, envelope.mean(axis=1), np.nan).reshape(shape)

    return table


def levels_reached(recall: Array) -> Array:
    """How many of COCO's recall levels each recall (0..1) reaches, int64: what searching them finds, in less time.

    The levels are rounded, and so is the product: the first guess may be off by one.
    """
    guess = (recall * (len(RECALLS) - 1)).astype(np.int64)
    guess -= RECALLS[guess] > recall
    return guess + 1 + (_NEXT_RECALL[guess] <= recall)


class _Lists:
    """Lists of detections, one behind the other, and for true positives where their category begins and they stand."""

    def __init__(self) -> None:
        self.lists: list[Array] = []
        self.last: list[Array] = []
        self.first: list[Array] = []
        self.before = 0

    def begin(self, positions: Array) -> None:
        self.before = sum(map(len, self.lists))
        self.lists.append(positions)

    def look_up(self, here: Array, start: Array) -> None:
        self.last.append(np.searchsorted(self.lists[-1], here, "right") + self.before)
        self.first.append(np.searchsorted(self.lists[-1], start, "left") + self.before)

    def joined(self, image: Array) -> tuple[Array, Array, Array]:
        """The images of all lists, and for each true positive the two places in their running sum."""
        return image[np.concatenate(self.lists)], np.concatenate(self.last), np.concatenate(self.first)


def _running_sum(values: Array) -> Array:
    """Of the first 0, 1, ... values: int32, for the bootstrap is bound by memory; enough for 2**31 detections."""
    out = np.zeros(len(values) + 1, np.int32)
    np.cumsum(values, out=out[1:])
    return out
