"""Chance in the choice of test images: a bootstrap that draws whole images and computes AP anew.

All runs of a comparison see the same draws, so a difference is paired over images. What comes out is the variance
of a mean over seeds (or of a difference of two such means) for the networks at hand; `statistics` adds it to the
variance over seeds. That errs on the safe side: what a seed does to single images is in both parts.
"""

from collections.abc import Sequence

import numpy as np

from mrbench.errors import UserError
from mrbench.report import draws
from mrbench.report.collect import RunRecord, Study
from mrbench.report.statistics import ImageNoise

Resampled = np.ndarray  # [resamples] one score a draw, percent; nan where a draw has no ground truth


def noise(arm: Sequence[Resampled], baseline: Sequence[Resampled], images: int) -> ImageNoise | None:
    """Variance over the draws of the mean of `arm` (each one run's scores), less that of `baseline` where given."""
    if not arm or images < 2:
        return None
    drawn = np.mean(np.stack(arm), axis=0, dtype=float)
    if len(baseline):
        drawn = drawn - np.mean(np.stack(baseline), axis=0, dtype=float)
    drawn = drawn[np.isfinite(drawn)]
    return ImageNoise(float(drawn.var(ddof=1)), images) if len(drawn) > 1 else None


class Sampler:
    """Resampled scores of the runs of one study, computed when first asked for and kept.

    `resamples` says how many draws went into the intervals (0: none) and `problem` why there are none, or not for
    all: settled once all has been asked.
    """

    def __init__(self, study: Study, resamples: int = draws.RESAMPLES) -> None:
        self._study = study
        self._draws = resamples
        self._images = ""  # checksum of the ids of the first run's images: the others must have the same
        self._count = 0
        self._scores: dict[tuple[str, str], dict[str, Resampled] | None] = {}
        self._problems: dict[str, None] = {}
        self._used = False

    @property
    def resamples(self) -> int:
        return self._draws if self._used else 0

    @property
    def problem(self) -> str:
        if not self._problems:
            return ""
        rows = "Some intervals do" if self._used else "Intervals do"
        return f"{rows} not hold the choice of test images: {'; '.join(self._problems)}."

    def of_mean(self, metric: str, arm: str, seeds: Sequence[int]) -> ImageNoise | None:
        """For the mean of `arm` over `seeds`; None where a run's matches are not there."""
        return self._noise(self._all(metric, arm, seeds), [])

    def of_difference(self, metric: str, arm: str, baseline: str) -> ImageNoise | None:
        """For `arm` minus `baseline`, over the seeds that both have, or all where none is shared."""
        ours, theirs = (tuple(self._study.arm(name).scores(metric)) for name in (arm, baseline))
        shared = [seed for seed in ours if seed in theirs]
        first = self._all(metric, arm, shared or ours)
        second = self._all(metric, baseline, shared or theirs)
        return self._noise(first, second) if first and second else None

    def _noise(self, arm: list[Resampled], baseline: list[Resampled]) -> ImageNoise | None:
        found = noise(arm, baseline, self._count)
        self._used = self._used or found is not None
        return found

    def _all(self, metric: str, arm: str, seeds: Sequence[int]) -> list[Resampled]:
        """Every seed's scores, or nothing where one is lacking: a mean over other seeds has another variance."""
        if not self._draws:
            return []
        runs = [run for run in self._study.arm(arm).runs if run.seed in seeds]
        found = [self._of_run(run, metric) for run in runs]
        known = [scores for scores in found if scores is not None]
        return known if len(known) == len(found) else []

    def _of_run(self, run: RunRecord, metric: str) -> Resampled | None:
        kind, _, name = metric.partition("/")
        key = (f"{run.arm}/{run.seed}", kind)
        if key not in self._scores:
            self._scores[key] = self._resample(run, kind)
        scores = self._scores[key]
        return None if scores is None else scores.get(name)

    def _resample(self, run: RunRecord, kind: str) -> dict[str, Resampled] | None:
        if run.matches is None:
            return self._without(f"{run.run_id} has no matches.npz")
        try:
            drawn = draws.of_run(run.matches, kind, self._draws)
        except UserError as error:
            return self._without(error.what.splitlines()[0].rstrip("."))
        if drawn is None:
            return self._without(f"{run.run_id} has no matches of {kind}")
        self._images, self._count = self._images or drawn.images, self._count or drawn.count
        if drawn.images != self._images:
            return self._without(f"{run.run_id} was evaluated on other images")
        recorded = run.metrics.get(f"{kind}/AP")
        if np.isnan(drawn.whole) or (recorded is not None and abs(drawn.whole - recorded) > 1e-3):
            return self._without(f"matches.npz of {run.run_id} is not that of its evaluation.json")
        return drawn.scores

    def _without(self, why: str) -> dict[str, Resampled] | None:
        """No scores, and the reason for the report's notes."""
        self._problems[why] = None
        return None
