"""What kind of error costs how much AP: the categories of TIDE (Bolya et al., ECCV 2020), for boxes and for masks.

A false positive is put into one category by its overlap with the ground truth of its own class and of others; what a
category costs (its dAP) is how far AP50 would rise if an oracle mended its errors and nothing else (section 2.3).
Categories do not add up to 100 - AP50: mending one error changes what another costs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle_api

from mrbench.evaluation.matches import RECALLS

Array = NDArray[Any]

FOREGROUND, BACKGROUND = 0.5, 0.1  # IoU: found from the first on, nothing to do with it up to the second
CATEGORIES = ("classification", "localisation", "both", "duplicate", "background", "missed")
TOTALS = ("false_positive", "false_negative")
CLASSIFICATION, LOCALISATION, BOTH, DUPLICATE, OF_BACKGROUND = range(5)  # places in CATEGORIES
NO_ERROR = -1


@dataclass(frozen=True)
class ErrorAnalysis:
    """Of boxes or of masks. `ap50`: AP at IoU 0.5 as it is, in percent; `cost`: points of AP50 that each of
    `CATEGORIES` and `TOTALS` costs; None where there is no ground truth. `count`: how many errors there are; those of
    `TOTALS` are all false positives and all instances that nothing matched."""

    ap50: float | None
    cost: dict[str, float | None]
    count: dict[str, int]


@dataclass(frozen=True)
class Compared:
    """Detections and instances of one kind, and how COCO matched them at IoU 0.5.

    Detections [D] stand in order of image, and only those that count (best of image and category, not on a crowd);
    instances [G] likewise, without crowds. image, category: indices; score float64 [D]; match: index of the instance
    that a detection was matched with, -1 for none. regions: xywh boxes or RLEs, D and G of them.
    """

    image: Array
    category: Array
    score: Array
    match: Array
    regions: Sequence[Any]
    instance_image: Array
    instance_category: Array
    instance_regions: Sequence[Any]
    classes: int


def analyse(found: Compared) -> ErrorAnalysis:
    """Errors by category and what they cost.

    Follows `tidecv` 1.0.1 (quantify.py): a false positive is, by the first that holds, a localisation error (own
    class with IoU 0.1 to 0.5), a classification error (another class, IoU from 0.5 on), a duplicate (own class from
    0.5 on, but taken), background (IoU up to 0.1 with all), or both (what is left). Mending one of the first two makes
    a true positive of the best-scored one of an instance that nothing matched and removes the rest; mending the others
    removes them. Missed instances are those that nothing matched and that no such mending would find; mending takes
    them out of the ground truth. Two rules are COCO's and not tidecv's: detections on a crowd are no errors, and AP is
    the mean over the classes that have ground truth.
    """
    kind, target = _classify(found)
    instances = len(found.instance_category)
    matched = np.zeros(instances, bool)
    matched[found.match[found.match >= 0]] = True
    mended = _best_for_instance(kind, target, found.score, matched)
    mendable = np.zeros(instances, bool)
    mendable[target[mended]] = True
    false = kind != NO_ERROR

    wanted = np.bincount(found.instance_category, minlength=found.classes)
    every = np.ones(len(false), bool)

    def ap(category: Array, score: Array, true: Array, kept: Array, instances: Array) -> float:
        return _mean_ap(category[kept], score[kept], true[kept], instances, wanted > 0)

    if not wanted.any():
        return ErrorAnalysis(None, dict.fromkeys((*CATEGORIES, *TOTALS)), _counts(kind, matched, mendable))
    before = ap(found.category, found.score, ~false, every, wanted)
    after = {}
    for place, name in enumerate(CATEGORIES[:5]):
        here = kind == place
        repaired = here & mended
        category = found.category.copy()
        category[repaired] = found.instance_category[target[repaired]]
        after[name] = ap(category, found.score, ~false | repaired, ~here | repaired, wanted)
    for name, gone in (("missed", ~matched & ~mendable), ("false_negative", ~matched)):
        left = wanted - np.bincount(found.instance_category[gone], minlength=found.classes)
        after[name] = ap(found.category, found.score, ~false, every, left)
    after["false_positive"] = ap(found.category, (~false).astype(float), ~false, every, wanted)
    # Below zero only by COCO's 101 recall levels, where it says nothing.
    cost: dict[str, float | None] = {name: max(after[name] - before, 0.0) for name in (*CATEGORIES, *TOTALS)}
    return ErrorAnalysis(before, cost, _counts(kind, matched, mendable))


def _counts(kind: Array, matched: Array, mendable: Array) -> dict[str, int]:
    by_kind = np.bincount(kind[kind != NO_ERROR], minlength=5).tolist()
    return dict(
        zip(
            (*CATEGORIES, *TOTALS),
            [*by_kind, int((~matched & ~mendable).sum()), sum(by_kind), int((~matched).sum())],
            strict=True,
        )
    )


def _classify(found: Compared) -> tuple[Array, Array]:
    """Each detection's place in CATEGORIES, int8 [D], NO_ERROR for true positives; and the instance that it would have
    found, int64 [D], -1 where there is none."""
    kind = np.where(found.match >= 0, NO_ERROR, OF_BACKGROUND).astype(np.int8)
    target = np.full(len(kind), -1, np.int64)
    taken = np.zeros(len(found.instance_category), bool)
    taken[found.match[found.match >= 0]] = True
    images = np.flatnonzero(np.bincount(found.image[found.match < 0], minlength=1))
    first, last = (np.searchsorted(found.image, images, side) for side in ("left", "right"))
    begin, end = (np.searchsorted(found.instance_image, images, side) for side in ("left", "right"))
    for d, d_end, g, g_end in zip(*(part.tolist() for part in (first, last, begin, end)), strict=True):
        if g == g_end:
            continue
        wrong = d + np.flatnonzero(found.match[d:d_end] < 0)
        iou = _iou([found.regions[i] for i in wrong], found.instance_regions[g:g_end])
        own = found.category[wrong, None] == found.instance_category[None, g:g_end]
        of_own, of_other = np.where(own, iou, 0.0), np.where(own, 0.0, iou)
        nearest, other = of_own.argmax(1), of_other.argmax(1)
        highest = of_own.max(1)
        free = np.where(taken[None, g:g_end], of_own, 0.0).max(1) < FOREGROUND
        kind[wrong] = np.select(
            [
                (highest >= BACKGROUND) & (highest <= FOREGROUND),
                of_other.max(1) >= FOREGROUND,
                ~free,
                iou.max(1) <= BACKGROUND,
            ],
            [LOCALISATION, CLASSIFICATION, DUPLICATE, OF_BACKGROUND],
            BOTH,
        )
        target[wrong] = g + np.select([kind[wrong] == LOCALISATION, kind[wrong] == CLASSIFICATION], [nearest, other])
    target[(kind != LOCALISATION) & (kind != CLASSIFICATION)] = -1
    return kind, target


def _iou(detections: list[Any], instances: Sequence[Any]) -> Array:
    """COCO's IoU, float64 [D, G]."""
    return np.asarray(rle_api.iou(detections, list(instances), [0] * len(instances)))


def _best_for_instance(kind: Array, target: Array, score: Array, matched: Array) -> Array:
    """Which detections the oracle makes true positives: of those that would have found an instance which nothing
    matched, the best-scored one; bool [D]."""
    best = np.zeros(len(kind), bool)
    candidates = np.flatnonzero(target >= 0)
    candidates = candidates[~matched[target[candidates]]]
    order = candidates[np.lexsort((-score[candidates], target[candidates]))]
    best[order[np.r_[True, target[order][1:] != target[order][:-1]][: len(order)]]] = True
    return best


def _mean_ap(category: Array, score: Array, true: Array, instances: Array, counting: Array) -> float:
    """AP in percent at COCO's 101 recall levels, over the classes that are `counting`, bool [K]. `instances` int [K].

    A class whose instances an oracle has all removed counts as 0 with detections left and not at all without, as in
    tidecv.
    """
    order = np.lexsort((-score, category))
    category, true = category[order], true[order]
    edges = np.searchsorted(category, np.arange(len(instances) + 1)).tolist()
    values = []
    for k in np.flatnonzero(counting).tolist():
        hits = true[edges[k] : edges[k + 1]]
        if not instances[k]:
            values += [0.0] if len(hits) else []
            continue
        here = np.flatnonzero(hits)  # precision counts at true positives only
        rank = np.arange(1, len(here) + 1)
        precision = np.maximum.accumulate((rank / (here + 1))[::-1])[::-1]
        place = np.searchsorted(rank / instances[k], RECALLS, "left")
        values.append(float(np.r_[precision, 0.0][place].mean()))
    return 100.0 * sum(values) / len(values) if values else 100.0  # nothing left to find, and nothing wrong
