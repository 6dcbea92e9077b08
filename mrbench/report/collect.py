"""From records on disk to plain values: a study, its arms, their runs. What is missing or broken is kept and named."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from mrbench.config.suggest import did_you_mean
from mrbench.errors import UserError
from mrbench.runs.files import read_json
from mrbench.runs.record import Run, find_run, list_runs
from mrbench.runs.state import state_of

DEFAULT_METRICS = ("box/AP", "mask/AP")
KEYPOINT_METRIC = "keypoint/AP"
PROPOSAL_METRICS = ("proposal/AR100", "proposal/AR1000")
NOT_SCIENCE = ("runtime", "launcher", "seed")


@dataclass(frozen=True)
class RunRecord:
    """One run of one arm. `metrics` (percent) is empty unless the run is completed and evaluated.

    `state` is that of status.json, or `interrupted` (running, but its process is gone), `missing` (no folder) or
    `damaged` (unreadable record); `problem` says in a
    line what is wrong. Memory in bytes, hours of wall clock from the first start to the end.
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
    hours: float | None = None
    config: dict[str, Any] = field(default_factory=dict)  # flat: "model.norm" -> "gn"
    provenance: dict[str, Any] = field(default_factory=dict)
    matches: Path | None = None

    def curve(self, kind: str, name: str) -> tuple[list[int], list[float]]:
        """Iterations and values of one logged quantity (`train`/`loss`, `evaluation`/`box/AP`), finite ones only."""
        if self.folder is None:
            return [], []
        points = [
            (line["iteration"], float(line[name]))
            for line in Run(self.folder).metrics()
            if line["kind"] == kind and isinstance(line.get(name), int | float) and math.isfinite(line[name])
        ]
        return [x for x, _ in points], [y for _, y in points]


@dataclass(frozen=True)
class Arm:
    name: str
    overrides: tuple[str, ...]  # all that differ from the default, but the seed
    published: str | None
    note: str
    runs: tuple[RunRecord, ...]

    def count(self, state: str) -> int:
        return sum(run.state == state for run in self.runs)

    def scores(self, metric: str) -> dict[int, float]:
        """Seed -> value, of the runs that have one."""
        return {run.seed: run.metrics[metric] for run in self.runs if metric in run.metrics}


@dataclass(frozen=True)
class Study:
    """`baseline` is the name of an arm. `by_hand`: made of named runs, without a study file."""

    name: str
    title: str
    question: str
    baseline: str
    metrics: tuple[str, ...]
    arms: tuple[Arm, ...]
    notes: tuple[str, ...] = ()
    by_hand: bool = False

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
        raise UserError(f"There is no study {name!r} in {root / 'studies'}.", did_you_mean(name, study_names(root)))
    try:
        arms = tuple(
            Arm(
                name=arm_name,
                overrides=(*(record.get("base") or ()), *(arm.get("overrides") or ())),
                published=arm.get("published"),
                note=arm.get("note") or "",
                runs=tuple(
                    read_run(root, arm_name, int(seed), run_id)
                    for seed, run_id in sorted((arm.get("runs") or {}).items(), key=lambda item: int(item[0]))
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
            metrics=tuple(record.get("metrics") or _default_metrics([run for arm in arms for run in arm.runs])),
            arms=arms,
            notes=(note,) if isinstance(note, str) else tuple(note),
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
    return Study(**{**study.__dict__, "baseline": baseline})


def known_metrics(study: Study) -> list[str]:
    """Every metric that a run of the study has, in the order of its evaluation."""
    return list(dict.fromkeys(metric for run in study.runs for metric in run.metrics))


def with_metrics(study: Study, metrics: Sequence[str]) -> Study:
    """The same study by other metrics; UserError where no run has one of them."""
    known = known_metrics(study)
    for metric in metrics:
        if known and metric not in known:
            raise UserError(f"No run of {study.name!r} has the metric {metric!r}.", did_you_mean(metric, known))
    return Study(**{**study.__dict__, "metrics": tuple(metrics)})


def collect_runs(root: Path, names: Sequence[str]) -> Study:
    """Runs given by name as a study: those that differ in the seed alone are one arm; the first is the baseline."""
    runs = list(dict.fromkeys(find_run(root, name).folder for name in names))
    read = [_read(Run(folder), "", 0) for folder in runs]
    groups: dict[tuple[tuple[str, str], ...], list[RunRecord]] = {}
    for run in read:
        science = {key: value for key, value in run.config.items() if key.split(".")[0] not in NOT_SCIENCE}
        key = tuple(sorted((name, repr(value)) for name, value in science.items())) or ((run.run_id or "", ""),)
        groups.setdefault(key, []).append(run)
    arms = []
    for name, members in zip(_group_names(list(groups)), groups.values(), strict=True):
        seeded, taken = [], set()
        for run in members:
            seed = int(run.config.get("seed", 0))
            while seed in taken:  # the same seed under two identities, as of two versions of the code
                seed += 1
            taken.add(seed)
            seeded.append(RunRecord(**{**run.__dict__, "arm": name, "seed": seed}))
        arms.append(Arm(name, (), None, "", tuple(sorted(seeded, key=lambda run: run.seed))))
    first = read[0].run_id or "runs"
    return Study(
        name=first if len(read) == 1 else f"{first}-and-{len(read) - 1}-more",
        title=first if len(read) == 1 else f"{len(read)} runs compared",
        question="",
        baseline=arms[0].name,
        metrics=_default_metrics(read),
        arms=tuple(arms),
        by_hand=True,
    )


def _default_metrics(runs: Sequence[RunRecord]) -> tuple[str, ...]:
    """Those of detections, keypoints among them where the runs have some, or of proposals where they make nothing
    else."""
    found = {metric for run in runs for metric in run.metrics}
    only_proposals = found.isdisjoint(DEFAULT_METRICS) and not found.isdisjoint(PROPOSAL_METRICS)
    if only_proposals:
        return PROPOSAL_METRICS
    return (*DEFAULT_METRICS, KEYPOINT_METRIC) if KEYPOINT_METRIC in found else DEFAULT_METRICS


def _group_names(groups: list[tuple[tuple[str, str], ...]]) -> list[str]:
    """`norm=gn lr=0.02`: what tells each group from the others."""
    if len(groups) == 1:
        return ["these runs"]
    common = set.intersection(*(set(group) for group in groups))
    names = []
    for group in groups:
        own = [(key, value.strip("'")) for key, value in group if (key, value) not in common]
        parts = [f"{key.rpartition('.')[2]}={value}" if value else key for key, value in own]
        names.append(" ".join(parts[:2]) + (f" (+{len(parts) - 2})" if len(parts) > 2 else ""))
    return [name if names.count(name) == 1 else f"{name} #{i + 1}" for i, name in enumerate(names)]


def read_run(root: Path, arm: str, seed: int, run_id: str | None) -> RunRecord:
    """The run's record, whatever state it is in. Never raises for what the record lacks."""
    if not run_id:
        return RunRecord(arm, seed, None, "missing", "not started")
    run = Run(root / "runs" / run_id)
    if not run.folder.is_dir():
        return RunRecord(arm, seed, run_id, "missing", "no folder of this run")
    return _read(run, arm, seed)


def _read(run: Run, arm: str, seed: int) -> RunRecord:
    try:
        status = run.status()
        evaluation = run.evaluation() or {}
        provenance = run.provenance()
        config = _flat(_yaml(run.config_file))
        numbers = {
            name: float(value)
            for name, value in (evaluation.get("metrics") or {}).items()
            if isinstance(value, int | float) and math.isfinite(value)
        }
        notes = tuple(str(note) for note in evaluation.get("notes") or ())
    except (UserError, OSError, yaml.YAMLError, AttributeError, TypeError) as error:
        what = error.what if isinstance(error, UserError) else str(error)
        return RunRecord(arm, seed, run.run_id, "damaged", what.splitlines()[0], folder=run.folder)
    state = state_of(run, status)
    done = state == "completed"
    problem = ""
    if status.error:
        problem = str(status.error.get("message") or status.error.get("kind") or "").strip().partition("\n")[0]
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
        hours=_hours(status.started, status.ended),
        config=config,
        provenance=provenance if isinstance(provenance, dict) else {},
        matches=run.matches_file if done and run.matches_file.is_file() else None,
    )


def _yaml(path: Path) -> Any:
    """The configuration as it was written, without today's schema: an older version's run can be reported too."""
    if not path.is_file():
        return {}
    return yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


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


def split_names(root: Path, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Which names are studies and which are runs; UserError with the nearest of both where one is neither."""
    studies, runs = [], []
    known = study_names(root)
    for name in names:
        if name in known:
            studies.append(name)
        elif Path(name).suffix == ".yaml" and Path(name).stem in known:
            studies.append(Path(name).stem)
        else:
            try:
                find_run(root, name)
            except UserError as error:
                if "may be any of" in error.what:
                    raise
                near = did_you_mean(name, known + [run.run_id for run in list_runs(root)])
                sweep = "`mrbench sweep` makes studies; --root names another folder."
                raise UserError(f"There is no study or run {name!r} in {root}.", near or sweep) from error
            runs.append(name)
    return studies, runs
