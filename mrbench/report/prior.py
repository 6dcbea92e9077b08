"""What is known of the noise of seeds before a study has measured it: the spread of public runs of one recipe.

The public runs are MLPerf's of Mask R-CNN R50-FPN on COCO (results/published/seed_variance.csv). Taken is the last
evaluation of each run; dropped are runs that diverged (AP 0) and runs that were handed in again with a later
release, evaluation for evaluation the same. What remains is pooled over recipes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import sqrt

from mrbench.config.suggest import did_you_mean
from mrbench.errors import UserError
from mrbench.report.collect import Study
from mrbench.report.published import SeedRow, seed_variance
from mrbench.report.run_record import RunRecord
from mrbench.report.statistics import Spread, within_arms

KINDS = ("auto", "public", "own", "none")
METRICS = {"box/AP": "box_ap", "mask/AP": "mask_ap"}  # metric -> the field of the public rows
IMAGES = 5000  # that the public runs were tested on: val2017
COCO = ("coco_2014", "coco_2017")  # data.name of the data that the public runs were trained and tested on
WEIGHT = 30  # degrees of freedom that the public spread counts for in a study of another recipe


@dataclass(frozen=True)
class Prior:
    """What a report takes for the noise of seeds where an arm has few. `kind` is public, own or none; `images` is
    the size of the study's test set; `foreign`: the public spread was asked for although the data are others."""

    kind: str
    images: int | None = None
    foreign: bool = False

    @property
    def fewest_seeds(self) -> int:
        """The fewest runs on a side of a difference that is decided."""
        return 2 if self.kind == "none" else 1

    def spread(self, metric: str) -> Spread | None:
        """The public spread of `metric` on a test set of the study's size, with `WEIGHT` degrees of freedom.

        None for another kind and for metrics that the public runs do not have. On fewer images than the public
        runs' the variance grows as 1 / images: what differs between seeds is mostly which images each gets right
        (Jordan 2023, arXiv:2304.01910); the part that does not grow makes this err on the wide side.
        """
        if self.kind != "public" or metric not in METRICS:
            return None
        sd = public_spread(metric).sd
        return Spread(sd * sqrt(max(1.0, IMAGES / self.images)) if self.images else sd, WEIGHT)


@cache
def public_runs() -> dict[tuple[int, float, str, int], tuple[SeedRow, ...]]:
    """Recipe -> the last evaluation of each of its runs, without diverged and repeated ones."""
    runs: dict[tuple[object, ...], list[SeedRow]] = {}
    for row in seed_variance():
        runs.setdefault((row.recipe, row.release, row.submitter, row.system, row.run), []).append(row)
    found: dict[tuple[int, float, str, int], dict[tuple[object, ...], SeedRow]] = {}
    for rows in runs.values():
        rows.sort(key=lambda row: row.epoch)
        if not rows[-1].diverged:
            course = tuple((row.epoch, row.box_ap, row.mask_ap) for row in rows)
            found.setdefault(rows[-1].recipe, {})[course] = rows[-1]
    return {recipe: tuple(finals.values()) for recipe, finals in found.items()}


@cache
def public_spread(metric: str) -> Spread:
    """Standard deviation of final AP over the public runs, pooled over recipes, with its own degrees of freedom."""
    field = METRICS[metric]
    return within_arms(
        {str(recipe): dict(enumerate(getattr(row, field) for row in rows)) for recipe, rows in public_runs().items()}
    )


def choose(study: Study, wanted: str = "auto") -> Prior:
    """`auto` is `public` where every run with a result was trained on COCO, and `own` elsewhere.

    Raises UserError for a word that is none of `KINDS`.
    """
    if wanted not in KINDS:
        raise UserError(f"There is no prior {wanted!r}.", did_you_mean(wanted, KINDS))
    runs = [run for run in study.runs if run.metrics]
    coco = bool(runs) and all(run.config.get("data.name") in COCO for run in runs)
    kind = ("public" if coco else "own") if wanted == "auto" else wanted
    return Prior(kind, _images(runs), foreign=kind == "public" and not coco)


def _images(runs: Sequence[RunRecord]) -> int | None:
    return min((run.images for run in runs if run.images), default=None)
