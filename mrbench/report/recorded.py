"""What evaluation.json says beyond COCO's numbers, under the names by which reports ask for it.

"box/AP/cat": AP of a class; "box/AP@0.75": AP at an IoU threshold; "box/cost/missed": points of AP50 that a category
of error costs. The first two are named as in `mrbench.evaluation.matches.breakdown_names`.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mrbench.errors import UserError
from mrbench.evaluation.matches import Matches, breakdown, breakdown_names, resampler


def details(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """The numbers that are there; those of an older record are fewer. Raises AttributeError where it is no record."""
    found: dict[str, Any] = {}
    for name, values in (evaluation.get("per_category") or {}).items():
        found |= {f"{metric}/{name}": value for metric, value in values.items()}
    for kind, values in (evaluation.get("per_threshold") or {}).items():
        found |= {f"{kind}/AP@{threshold}": value for threshold, value in values.items()}
    for kind, analysis in (evaluation.get("errors") or {}).items():
        found |= {f"{kind}/cost/{name}": value for name, value in (analysis.get("cost") or {}).items()}
    return {
        name: float(value) for name, value in found.items() if isinstance(value, int | float) and math.isfinite(value)
    }


def thresholds(matches: Path) -> dict[str, float]:
    """AP at each IoU threshold from matches.npz, for records that are older than its place in evaluation.json; nothing
    where the file cannot be read."""
    try:
        found = Matches.load(matches)
    except UserError:
        return {}
    values = {}
    for kind in found.kinds:
        table = resampler(found, kind)(np.ones(len(found.image_ids), np.int64))
        for name, value in zip(breakdown_names(found), breakdown(found, table).tolist(), strict=True):
            if "@" in name and math.isfinite(value):
                values[f"{kind}/{name}"] = value
    return values
