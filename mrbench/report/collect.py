"""From records on disk to plain values: a study, its arms, their runs. What is missing or broken is kept and named."""

import math
import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import yaml

from mrbench.config.suggest import did_you_mean, did_you_mean_of_own
from mrbench.errors import UserError
from mrbench.report import rerun
from mrbench.report.recorded import details, thresholds
from mrbench.runs.files import read_json
from mrbench.runs.record import Run
from mrbench.runs.state import state_of

DEFAULT_METRICS = ("box/AP", "mask/AP")
KEYPOINT_METRIC = "keypoint/AP"
PROPOSAL_METRICS = ("proposal/AR100", "proposal/AR1000")
NOT_SCIENCE = ("runtime", "launcher", "seed")
FAR_ABOVE = 5.0  # points of AP, from 0


@dataclass(frozen=True)
class RunRecord:
    """One run of one arm. `metrics` (percent) is empty unless the run is completed and evaluated.

    `seed` pairs it with runs of other arms; where arms were made by hand that may be another number than the seed it
    was trained with, `own_seed`.

    `state` is that of status.json, or `interrupted` (running, but its process is gone), `missing` (no folder),
    `damaged` (unreadable record) or `diverged` (stopped by a loss that is not finite, or completed with an AP of 0
    where other runs of the arm are far above); `problem` says in a line what is wrong. Memory in bytes, energy in
    joules, hours of wall clock from the first start to the end.
    """

    arm: str
    seed: int
    run_id: str | None
    state: str
    problem: str = ""
    folder: Path | None = None
    iteration: int = 0
    iterations: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    images: int | None = None
    notes: tuple[str, ...] = ()
    images_per_second: float | None = None
    peak_memory: int | None = None
    energy: float | None = None
    hours: float | None = None
    config: dict[str, Any] = field(default_factory=dict)  # flat: "model.norm" -> "gn"
    provenance: dict[str, Any] = field(default_factory=dict)
    matches: Path | None = None
    details: dict[str, float] = field(default_factory=dict)  # see `recorded.details`

    @property
    def own_seed(self) -> int:
        """What its configuration says; `seed` where that cannot be read."""
        found = self.config.get("seed")
        return found if isinstance(found, int) else self.seed

    @cached_property
    def _logged(self) -> "dict[tuple[str, str], tuple[array[int], array[float]]]":
        """metrics.jsonl, read once and kept by kind and name, in less room than its lines take."""
        found: dict[tuple[str, str], tuple[array[int], array[float]]] = {}  # (kind, name) -> iterations, values
        for line in Run(self.folder).metrics() if self.folder else []:
            for name, value in line.items():
                if name not in ("kind", "iteration") and isinstance(value, int | float) and math.isfinite(value):
                    x, y = found.setdefault((line["kind"], name), (array("q"), array("d")))
                    x.append(line["iteration"])
                    y.append(value)
        return found

    @cached_property
    def _thresholds(self) -> dict[str, float]:
        return thresholds(self.matches) if self.matches else {}

    def score(self, metric: str) -> float | None:
        """One of `metrics` or `details`; AP at an IoU threshold also where only matches.npz has it."""
        found = self.metrics.get(metric, self.details.get(metric))
        return self._thresholds.get(metric) if found is None and self.metrics and "/AP@" in metric else found

    def curve(self, kind: str, name: str) -> tuple[list[int], list[float]]:
        """Iterations and values of one logged quantity (`train`/`loss`, `evaluation`/`box/AP`), finite ones only."""
        x, y = self._logged.get((kind, name), ((), ()))
        return list(x), list(y)


@dataclass(frozen=True)
class Arm:
    name: str
    overrides: tuple[str, ...]  # all that differ from the default, but the seed
    published: str | None
    note: str
    runs: tuple[RunRecord, ...]
    scale: str | None = None  # of the ablation file: `small`, `full`, or none
    published_recipe: bool = False  # it is the training that the row `published` is of, at full length

    def count(self, state: str) -> int:
        return sum(run.state == state for run in self.runs)

    def scores(self, metric: str) -> dict[int, float]:
        """Seed -> value, of the completed runs that have one. One that diverged says nothing of the arm's level."""
        completed = [run for run in self.runs if run.state == "completed"]
        return {run.seed: value for run in completed if (value := run.score(metric)) is not None}


@dataclass(frozen=True)
class Study:
    """`baseline` is the name of an arm. `by_hand`: made of named runs, without a study file. `command`: what sweeps
    the study again, where the record says so."""

    name: str
    title: str
    question: str
    baseline: str
    metrics: tuple[str, ...]
    arms: tuple[Arm, ...]
    notes: tuple[str, ...] = ()
    by_hand: bool = False
    command: str = ""
    until: tuple[int, int] | None = None  # first and most seeds an arm of a study that grows until it is decided
    warnings: tuple[str, ...] = ()  # on arms that are not of one configuration

    @property
    def runs(self) -> list[RunRecord]:
        return [run for arm in self.arms for run in arm.runs]

    def arm(self, name: str) -> Arm:
        return next(arm for arm in self.arms if arm.name == name)


def study_names(root: Path) -> list[str]:
    return sorted(path.stem for path in (root / "studies").glob("*.json"))


def load_study(root: Path, name: str) -> Study:
    """The study `<root>/studies/<name>.json` with every run's record. Raises UserError where it is not there or
    is not a study."""
    path = root / "studies" / f"{name}.json"
    record = read_json(path)
    if record is None:
        raise UserError(
            f"There is no study {name!r} in '{root / 'studies'}'.", did_you_mean_of_own(name, study_names(root))
        )
    try:
        base, scale = tuple(record.get("base") or ()), record.get("scale")
        own = {arm_name: tuple(arm.get("overrides") or ()) for arm_name, arm in record["arms"].items()}
        extra = rerun.added(name, scale, base, own)
        arms = tuple(
            Arm(
                name=arm_name,
                overrides=(*base, *own[arm_name]),
                published=arm.get("published"),
                note=arm.get("note") or "",
                runs=tuple(
                    read_run(root, arm_name, int(seed), run_id)
                    for seed, run_id in sorted((arm.get("runs") or {}).items(), key=lambda item: int(item[0]))
                ),
                scale=scale,
                published_recipe=rerun.is_published_recipe(
                    (*base, *own[arm_name]), arm.get("published"), scale, extra
                ),
            )
            for arm_name, arm in record["arms"].items()
        )
        note = record.get("notes") or record.get("note") or ()
        study = Study(
            name=name,
            title=record.get("title") or name,
            question=record.get("question") or "",
            baseline=record.get("baseline") or next(iter(record["arms"]), ""),
            metrics=tuple(record.get("metrics") or default_metrics([run for arm in arms for run in arm.runs])),
            arms=tuple(map(with_divergence, arms)),
            notes=(note,) if isinstance(note, str) else tuple(note),
            command=rerun.sweep_command(
                name, scale, base, own, sorted({run.seed for arm in arms for run in arm.runs})
            ),
            until=(int(until["first"]), int(until["most"])) if (until := record.get("until")) else None,
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} is not the record of a study: {error!r}.", "`mrbench sweep` writes it; sweep the study again."
        ) from error
    if not study.arms:
        raise UserError(f"The study {name!r} has no arms.", f"See {path}.")
    return with_baseline(study, study.baseline)


def with_baseline(study: Study, baseline: str) -> Study:
    """The same study against another arm."""
    names = [arm.name for arm in study.arms]
    if baseline not in names:
        raise UserError(f"The study {study.name!r} has no arm {baseline!r}.", did_you_mean(baseline, names))
    return replace(study, baseline=baseline)


def known_metrics(study: Study) -> list[str]:
    """Every metric that a run of the study has, in the order of its evaluation."""
    return list(dict.fromkeys(metric for run in study.runs for metric in run.metrics))


def with_metrics(study: Study, metrics: Sequence[str]) -> Study:
    """The same study by other metrics; UserError where no run has one of them."""
    known = known_metrics(study)
    for metric in metrics:
        if known and metric not in known:
            raise UserError(f"No run of {study.name!r} has the metric {metric!r}.", did_you_mean(metric, known))
    return replace(study, metrics=tuple(metrics))


def with_divergence(arm: Arm) -> Arm:
    """The same arm, with completed runs that detect nothing at all (every AP is 0) as `diverged` where other runs of
    it do, each at `FAR_ABOVE` or more. An arm of which all are at 0, or some hardly above, was trained too briefly:
    there 0 is a result."""
    best = {run.run_id: max(_levels(run), default=None) for run in arm.runs}
    above = [level for level in best.values() if level]
    if not above or min(above) < FAR_ABOVE:
        return arm
    return replace(arm, runs=tuple(_diverged(run) if best[run.run_id] == 0 else run for run in arm.runs))


def _levels(run: RunRecord) -> list[float]:
    """AP of boxes, masks, keypoints."""
    return [value for name, value in run.metrics.items() if name.endswith("/AP")]


def _diverged(run: RunRecord) -> RunRecord:
    return replace(run, state="diverged", problem="completed with AP 0")


def default_metrics(runs: Sequence[RunRecord]) -> tuple[str, ...]:
    """Those of detections, keypoints among them where the runs have some, or of proposals where they make nothing
    else."""
    found = {metric for run in runs for metric in run.metrics}
    only_proposals = found.isdisjoint(DEFAULT_METRICS) and not found.isdisjoint(PROPOSAL_METRICS)
    if only_proposals:
        return PROPOSAL_METRICS
    return (*DEFAULT_METRICS, KEYPOINT_METRIC) if KEYPOINT_METRIC in found else DEFAULT_METRICS


def read_run(root: Path, arm: str, seed: int, run_id: str | None) -> RunRecord:
    """The run's record, whatever state it is in. Never raises for what the record lacks."""
    if not run_id:
        return RunRecord(arm, seed, None, "missing", "not started")
    run = Run(root / "runs" / run_id)
    if not run.folder.is_dir():
        return RunRecord(arm, seed, run_id, "missing", "no folder of this run")
    return read_record(run, arm, seed)


def read_record(run: Run, arm: str, seed: int) -> RunRecord:
    """The record of a folder that is there."""
    try:
        status = run.status()
        evaluation = run.evaluation() or {}
        provenance = run.provenance()
        config = _config(run.config_file)
        numbers = {
            name: float(value)
            for name, value in (evaluation.get("metrics") or {}).items()
            if isinstance(value, int | float) and math.isfinite(value)
        }
        notes = tuple(str(note) for note in evaluation.get("notes") or ())
        beyond = details(evaluation)
    except (UserError, OSError, ValueError, yaml.YAMLError, AttributeError, TypeError) as error:
        what = error.what if isinstance(error, UserError) else str(error)
        return RunRecord(arm, seed, run.run_id, "damaged", what.splitlines()[0], folder=run.folder)
    state = state_of(run, status)
    done = state == "completed"
    problem = ""
    if status.error:
        problem = str(status.error.get("message") or status.error.get("kind") or "").strip().partition("\n")[0]
        if state == "failed" and status.error.get("kind") == "non_finite_loss":
            state = "diverged"
    elif done and not evaluation:
        problem = "not evaluated"
    elif state in ("running", "interrupted", "preempted") and status.iterations:
        problem = f"at iteration {status.iteration:,} of {status.iterations:,}"
    return RunRecord(
        arm=arm,
        seed=seed,
        run_id=run.run_id,
        state=state,
        problem=problem,
        folder=run.folder,
        iteration=status.iteration,
        iterations=status.iterations,
        metrics=numbers if done else {},
        images=evaluation.get("images"),
        notes=notes if done else (),
        images_per_second=status.images_per_second,
        peak_memory=status.peak_memory,
        energy=status.energy,
        hours=_hours(status.started, status.ended),
        config=config,
        provenance=provenance if isinstance(provenance, dict) else {},
        matches=run.matches_file if done and run.matches_file.is_file() else None,
        details=beyond if done else {},
    )


def _config(path: Path) -> dict[str, Any]:
    """The configuration, flat, as it was written, without today's schema: an older version's run can be reported too.

    Seeds of an arm differ in one line, so that the rest is parsed once for all of them: YAML is slow.
    """
    if not path.is_file():
        return {}
    text = path.read_text(encoding="utf-8")
    seed = re.search(r"^seed: (\d+)$", text, re.MULTILINE)
    if seed is None:
        return dict(_parsed(text))
    return {**_parsed(text[: seed.start()] + text[seed.end() :]), "seed": int(seed[1])}


@lru_cache(maxsize=256)
def _parsed(text: str) -> dict[str, Any]:
    return _flat(yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value} if prefix else {}
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= _flat(inner, f"{prefix}.{key}" if prefix else str(key))
    return found


def _hours(started: str | None, ended: str | None) -> float | None:
    try:
        return (datetime.fromisoformat(ended) - datetime.fromisoformat(started)).total_seconds() / 3600  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
