"""From a study's record on disk to plain values: the study, its arms, their runs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mrbench.config.suggest import did_you_mean, did_you_mean_of_own
from mrbench.errors import UserError
from mrbench.report import rerun
from mrbench.report.run_record import RunRecord, read_run
from mrbench.runs.files import read_json

DEFAULT_METRICS = ("box/AP", "mask/AP")
KEYPOINT_METRIC = "keypoint/AP"
PROPOSAL_METRICS = ("proposal/AR100", "proposal/AR1000")
FAR_ABOVE = 5.0  # points of AP, from 0


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
    baseline_because: str = ""  # why this arm is the baseline, where neither a study's record nor the reader chose it

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
        raise UserError(
            f"The baseline {baseline!r} is not an arm of the study {study.name!r}.", did_you_mean(baseline, names)
        )
    return replace(study, baseline=baseline, baseline_because="")


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
