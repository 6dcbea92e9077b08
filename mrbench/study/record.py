"""<root>/studies/<study>.json: what a study asks, and which runs answer it.

{"study": "demo", "source": name of a study of mrbench's own | another ablation file | "the grid",
 "title": ..., "question": ..., "note": ..., "scale": null | "small" | "full",
 "baseline": "gn", "metrics": ["box/AP", "mask/AP"], "base": [overrides],
 "arms": {"gn": {"overrides": [...], "published": null | row id, "note": "", "family": run id with seed 0,
                 "runs": {"0": run id, "1": run id}}}}
"""

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from mrbench.config.suggest import did_you_mean_of_own
from mrbench.errors import UserError
from mrbench.runs.files import read_json, write_json
from mrbench.study.ablation import recorded_source
from mrbench.study.plan import Plan, told_same


@dataclass
class ArmRecord:
    """An arm in the record; `runs` maps seed to run id, `family` tells whether they all belong to one recipe."""

    overrides: list[str] = field(default_factory=list)
    published: str | None = None
    note: str = ""
    family: str = ""
    runs: dict[int, str] = field(default_factory=dict)


@dataclass
class StudyRecord:
    """A study on disk."""

    study: str
    baseline: str
    source: str = ""
    title: str = ""
    question: str = ""
    note: str = ""
    scale: str | None = None
    metrics: list[str] = field(default_factory=list)
    base: list[str] = field(default_factory=list)
    until: dict[str, int] | None = None  # a study that grows until it is decided: its first and most seeds an arm
    arms: dict[str, ArmRecord] = field(default_factory=dict)

    def run_ids(self) -> list[str]:
        """All runs, each once."""
        return list(dict.fromkeys(r for arm in self.arms.values() for r in arm.runs.values()))

    def seeds(self) -> list[int]:
        return sorted({seed for arm in self.arms.values() for seed in arm.runs})


def study_file(root: Path, name: str) -> Path:
    return root / "studies" / f"{name}.json"


def read_study(root: Path, name: str) -> StudyRecord:
    """Raises UserError when there is no such study (with the nearest names), or its record is damaged."""
    path = study_file(root, name)
    found = read_json(path)
    if found is None:
        names = sorted(p.stem for p in path.parent.glob("*.json")) if path.parent.is_dir() else []
        raise UserError(
            f"There is no study '{name}' in '{path.parent}'",
            did_you_mean_of_own(name, names, "A sweep makes it: mrbench sweep ablations/demo.yaml"),
        )
    try:
        arms = {
            name: ArmRecord(**{**_known(ArmRecord, arm), "runs": {int(s): str(r) for s, r in arm["runs"].items()}})
            for name, arm in found["arms"].items()
        }
        return StudyRecord(**{**_known(StudyRecord, found), "arms": arms})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} is damaged: {error!r}", "Remove it and sweep again: runs that are complete are found again."
        ) from error


def _known(kind: Any, found: dict[str, Any]) -> dict[str, Any]:
    """The keys that this version knows; another version's are passed over."""
    names = {f.name for f in fields(kind)}
    return {k: v for k, v in found.items() if k in names}


def check_same_study(root: Path, plan: Plan) -> None:
    """Raises UserError where the record of that name is another study's: it asks something else, and no run of it is
    among the plan's. An edited study keeps its title and question, or some of its runs."""
    study = plan.study
    if not study_file(root, study.name).exists():
        return
    before = read_study(root, study.name)
    runs = set(before.run_ids())
    same = (before.title, before.question) == (study.title, study.question)
    if same or not runs or not runs.isdisjoint(run.run_id for run in plan.runs):
        return
    of = f" of {before.source}" if before.source else ""
    raise UserError(
        f"{study_file(root, study.name)} is the record of another study, '{before.title}'{of}, and {study.source} "
        "shares no run with it",
        f"Give this one its own name, as --name {study.name}-2.",
    )


def write_study(root: Path, plan: Plan, until: dict[str, int] | None = None) -> tuple[StudyRecord, list[str]]:
    """Enters a plan into the study's record, atomically; returns the record and what to tell about it.

    What was there stays: other seeds, and arms that the plan does not have. The exception is an arm whose recipe
    has changed: seeds of another recipe in one mean would be wrong, so the arm's list starts anew, and it is said
    (the runs themselves are not touched). `until` is how a study grows, once it is known.

    Raises UserError where the record is another study's (`check_same_study`).
    """
    check_same_study(root, plan)
    study, families = plan.study, plan.families()
    path = study_file(root, study.name)
    before = read_study(root, study.name) if path.exists() else None
    old = before.arms if before else {}
    notes, arms = [], dict(old)
    planned: dict[str, dict[int, str]] = {}
    for run in plan.runs:
        planned.setdefault(run.arm, {})[run.seed] = run.run_id
    for arm in study.arms:
        runs: dict[int, str] = {}
        if arm.name in old:
            if old[arm.name].family == families[arm.name]:
                runs = dict(old[arm.name].runs)
            else:
                notes.append(f"{study.name}: arm {arm.name} has changed; its earlier runs leave the study's record")
        runs |= planned[arm.name]
        arms[arm.name] = ArmRecord(
            list(arm.overrides), arm.published, arm.note, families[arm.name], dict(sorted(runs.items()))
        )
    same = told_same({name: arm.family for name, arm in arms.items()})
    notes += [f"{study.name}: {line}" for line in same]
    record = StudyRecord(
        study=study.name,
        baseline=study.baseline,
        source=recorded_source(study.source),
        title=study.title,
        question=study.question,
        note=" ".join(filter(None, [study.note, *same])),
        scale=study.scale,
        metrics=list(study.metrics),
        base=list(study.base),
        until=until or (before.until if before else None),
        arms=arms,
    )
    write_json(path, asdict(record))
    return record, notes
