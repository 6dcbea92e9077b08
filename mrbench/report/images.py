"""Chance in the choice of test images: a bootstrap that draws whole images and computes AP anew.

All runs of a comparison see the same draws, so a difference is paired over images. What comes out is the variance
of a mean over seeds (or of a difference of two such means) for the networks at hand; `statistics` adds it to the
variance over seeds. That errs on the safe side: what a seed does to single images is in both parts.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mrbench.errors import UserError
from mrbench.evaluation import bootstrap
from mrbench.report.collect import Study
from mrbench.report.run_record import RunRecord
from mrbench.report.statistics import ImageNoise

Resampled = np.ndarray  # [resamples] one score a draw, percent; nan where a draw has no ground truth


def mean(runs: Sequence[Resampled]) -> Resampled | None:
    """Over runs that saw the same draws; None of none."""
    return np.mean(np.stack(runs), axis=0, dtype=float) if runs else None


def noise(drawn: Resampled, images: int) -> ImageNoise | None:
    """Variance over the draws of a mean, or of a difference of two."""
    if images < 2:
        return None
    drawn = drawn[np.isfinite(drawn)]
    return ImageNoise(float(drawn.var(ddof=1)), images) if len(drawn) > 1 else None


class Sampler:
    """Resampled scores of the runs of one study, computed when first asked for and kept.

    `resamples` says how many draws went into the intervals (0: none) and `problem` why there are none, or not for
    all: settled once all has been asked.
    """

    def __init__(self, study: Study, resamples: int = bootstrap.RESAMPLES) -> None:
        self._study = study
        self._draws = resamples
        self._images = ""  # checksum of the ids of the first fitting run's images: the others must have the same
        self._count = 0
        self._kinds = list(dict.fromkeys(metric.partition("/")[0] for metric in study.metrics))
        self._drawn: dict[tuple[str, int], dict[str, bootstrap.Drawn]] = {}  # (arm, seed) -> kind -> all draws
        self._scores: dict[tuple[str, int, str], dict[str, Resampled]] = {}  # (arm, seed, kind) -> those that count
        self._means: dict[tuple[str, str, tuple[int, ...]], Resampled | None] = {}  # (metric, arm, seeds)
        self._problems: dict[str, dict[str, None]] = {}  # what is wrong -> of which runs
        self._used = False

    @property
    def resamples(self) -> int:
        return self._draws if self._used else 0

    @property
    def problem(self) -> str:
        if not self._problems:
            return ""
        rows = "Some intervals do" if self._used else "Intervals do"
        told = "; ".join(_told(why, list(runs)) for why, runs in self._problems.items())
        return f"{rows} not hold the choice of test images: {told}."

    def of_mean(self, metric: str, arm: str, seeds: Sequence[int]) -> ImageNoise | None:
        """For the mean of `arm` over `seeds`; None where a run's matches are not there."""
        return self._noise(self._mean(metric, arm, seeds))

    def of_difference(self, metric: str, arm: str, baseline: str) -> ImageNoise | None:
        """For `arm` minus `baseline`, over the seeds that both have, or all where none is shared."""
        ours, theirs = (tuple(self._study.arm(name).scores(metric)) for name in (arm, baseline))
        shared = [seed for seed in ours if seed in theirs]
        first = self._mean(metric, arm, shared or ours)
        second = self._mean(metric, baseline, shared or theirs)
        return self._noise(None if first is None or second is None else first - second)

    def _noise(self, drawn: Resampled | None) -> ImageNoise | None:
        found = None if drawn is None else noise(drawn, self._count)
        self._used = self._used or found is not None
        return found

    def _mean(self, metric: str, arm: str, seeds: Sequence[int]) -> Resampled | None:
        """Over every seed's scores, or None where one is lacking: a mean over other seeds has another variance."""
        key = metric, arm, tuple(seeds)
        if key not in self._means:
            runs = [run for run in self._study.arm(arm).runs if run.seed in seeds] if self._draws else []
            found = [self._of_run(run, metric) for run in runs]
            known = [scores for scores in found if scores is not None]
            self._means[key] = mean(known) if len(known) == len(found) else None
        return self._means[key]

    def _of_run(self, run: RunRecord, metric: str) -> Resampled | None:
        kind, _, name = metric.partition("/")
        key = run.arm, run.seed, kind
        if key not in self._scores:
            self._scores[key] = self._of_kind(run, kind)
        return self._scores[key].get(name)

    def _of_kind(self, run: RunRecord, kind: str) -> dict[str, Resampled]:
        if run.matches is None:
            return self._without(run, "no matches.npz")
        try:
            drawn = self._drawn_of(run, run.matches).get(kind)
        except UserError as error:
            return self._without(run, error.what.splitlines()[0].rstrip("."))
        if drawn is None:
            return self._without(run, f"no matches of {kind}")
        recorded = run.metrics.get(f"{kind}/AP")
        if np.isnan(drawn.whole) or (recorded is not None and abs(drawn.whole - recorded) > 1e-3):
            return self._without(run, "matches.npz is not that of its evaluation.json")
        self._images, self._count = self._images or drawn.images, self._count or drawn.count
        if drawn.images != self._images:
            return self._without(run, "evaluated on other images")
        return drawn.scores

    def _drawn_of(self, run: RunRecord, matches: Path) -> dict[str, bootstrap.Drawn]:
        """The study's kinds that the run was evaluated by, together: a file takes time to open. Raises UserError where
        the matches cannot be read."""
        key = run.arm, run.seed
        if key not in self._drawn:
            kinds = [kind for kind in self._kinds if f"{kind}/AP" in run.metrics]
            self._drawn[key] = bootstrap.of_run(matches, kinds, self._draws)
        return self._drawn[key]

    def _without(self, run: RunRecord, why: str) -> dict[str, Resampled]:
        """No scores, and the reason for the report's notes."""
        self._problems.setdefault(why, {})[run.run_id or ""] = None
        return {}


def _told(why: str, runs: Sequence[str]) -> str:
    return f"{runs[0]}: {why}" if len(runs) == 1 else f"{len(runs)} runs, of which the first is {runs[0]}: {why}"
