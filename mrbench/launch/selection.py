"""Which runs a person means: a study's, by its name, its file or its grid; some of them; or one run."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mrbench.config.schema import RunConfig
from mrbench.config.suggest import did_you_mean_of_own
from mrbench.errors import UserError
from mrbench.launch.record import job_config, read_job
from mrbench.runs.record import Run, find_run
from mrbench.study.ablation import load_study, study_names
from mrbench.study.grid import grid_study
from mrbench.study.plan import Plan, PlannedRun
from mrbench.study.record import ArmRecord, StudyRecord, read_study, study_file
from mrbench.study.study import Arm, Study


def find_record(root: Path, what: Sequence[str], name: str | None = None, scale: str | None = None) -> StudyRecord:
    """The study on disk that the arguments mean, or a record of the one run that they mean. Raises UserError."""
    if name or not what:
        return read_study(root, name or "")
    first = what[0]
    if "=" in first:
        return read_study(root, grid_study(what).name)
    if study_file(root, first).exists():
        return read_study(root, first)
    if first in study_names() or Path(first).suffix in (".yaml", ".yml"):
        return read_study(root, load_study(first).at_scale(scale).name)
    try:
        return record_of(find_run(root, first))
    except UserError:
        return read_study(root, first)  # its message names the nearest study


def names_run(root: Path, name: str) -> bool:
    try:
        find_run(root, name)
    except UserError:
        return False
    return True


def record_of(run: Run) -> StudyRecord:
    """One run as a study of one arm."""
    config = run.config()
    arm = ArmRecord(family=run.run_id, runs={config.seed: run.run_id})
    return StudyRecord(study=run.run_id, baseline=run.run_id, metrics=["box/AP"], arms={run.run_id: arm})


def narrowed(record: StudyRecord, arm: str | None = None, seed: int | None = None) -> StudyRecord:
    """The record with one arm, one seed, or both. An arm is meant by its name or by what only its name begins with.

    Raises UserError where there is none.
    """
    names = list(record.arms)
    if arm is not None and arm not in record.arms:
        names = [name for name in names if name.startswith(arm)]
        if len(names) != 1:
            what = f"may be any of {len(names)} arms" if names else f"is no arm of {record.study}"
            raise UserError(f"'{arm}' {what}", did_you_mean_of_own(arm, list(record.arms)))
    elif arm is not None:
        names = [arm]
    if seed is not None and not any(seed in record.arms[name].runs for name in names):
        there = sorted({s for name in names for s in record.arms[name].runs})
        raise UserError(f"{record.study} has no run with seed {seed}", f"Its seeds: {', '.join(map(str, there))}")
    arms = {}
    for name in names:
        runs = {s: r for s, r in record.arms[name].runs.items() if seed in (None, s)}
        arms[name] = replace(record.arms[name], runs=runs)
    return replace(record, arms=arms)


def planned(root: Path, record: StudyRecord) -> Plan:
    """The runs of a record, to be carried out again as they were planned. Runs that were removed are left out."""
    arms = tuple(Arm(name, tuple(a.overrides), a.published, a.note) for name, a in record.arms.items())
    study = Study(
        name=record.study,
        arms=arms,
        baseline=record.baseline,
        title=record.title or record.study,
        question=record.question,
        base=tuple(record.base),
        seeds=tuple(record.seeds()),
        metrics=tuple(record.metrics),
        scale=record.scale,
        note=record.note,
        source=record.source,
    )
    configs: dict[str, RunConfig] = {}
    found = []
    for name, arm in record.arms.items():
        for seed, run_id in arm.runs.items():
            run = Run(root / "runs" / run_id)
            if not run.config_file.exists():
                continue
            if run_id not in configs:
                configs[run_id] = _config(run)
            job = read_job(run.folder)
            overrides = (*record.base, *arm.overrides, f"seed={seed}")
            command = tuple(job.command) if job else ("train", *overrides)
            found.append(PlannedRun(name, seed, overrides, configs[run_id], run_id, command))
    return Plan(study, tuple(found))


def _config(run: Run) -> RunConfig:
    try:
        return job_config(run.folder)  # with the paths of the last attempt
    except (UserError, OSError):
        return run.config()
