"""<root>/runs/<run>/job/: what was submitted for a run, for whoever carries it out or asks about it later.

job.json     the latest submission (`JobRecord`), replaced atomically
config.yaml  the configuration to run with: as the run's own, but for paths and other settings of this machine
stop         there once somebody has cancelled the job
*.out        what the job printed
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from mrbench.config import compose
from mrbench.config.schema import RunConfig
from mrbench.errors import UserError
from mrbench.launch.executor import Job, Limits
from mrbench.runs.code import to_submit
from mrbench.runs.files import read_json, write_json, write_text
from mrbench.runs.record import Run, now

T = TypeVar("T")


@dataclass(frozen=True)
class JobRecord:
    """job.json. `submission` names what it was submitted with, `job_id` is the place's own name of the job (None
    until it has one), `log` the file that it prints to, below the run's folder. Times are UTC, ISO 8601."""

    launcher: str
    submission: str
    submitted: str
    entry: str
    command: list[str] = field(default_factory=list)
    job_id: str | None = None
    host: str | None = None
    pid: int | None = None
    started: str | None = None
    ended: str | None = None
    slots: list[str] = field(default_factory=list)
    log: str | None = None


def job_folder(run: Path) -> Path:
    return run / "job"


def lock_file(run: Path) -> Path:
    return job_folder(run) / "lock"


def output_file(run: Path) -> Path:
    """Where a job on this machine prints to. A cluster's own file is named by `JobRecord.log`."""
    return job_folder(run) / "output.txt"


def stop_file(run: Path) -> Path:
    """Asks the run's job not to begin, even while it is too young to hear a signal."""
    return job_folder(run) / "stop"


@dataclass(frozen=True)
class Submission:
    """submission.json. `code` describes the code that was submitted (`runs.code`), `snapshot` is the folder of its
    copy, where the runs are to run from one."""

    launcher: str
    runs: list[str]
    parallel: int | None = None
    max_failures: int | None = None
    code: dict[str, Any] = field(default_factory=dict)
    snapshot: str | None = None


def submission_folder(root: Path, name: str) -> Path:
    return root / "submissions" / name


def begin(root: Path, launcher: str, entry: str, jobs: Sequence[Job], limits: Limits) -> str:
    """`register` and `enter`: for places that carry out nothing before they are told to."""
    name = register(root, launcher, jobs, limits)
    enter(name, launcher, entry, jobs)
    return name


def register(root: Path, launcher: str, jobs: Sequence[Job], limits: Limits) -> str:
    """Writes down that these jobs are submitted together; returns the submission's name."""
    name = f"{launcher}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
    submission = Submission(
        launcher,
        [job.run_id for job in jobs],
        limits.parallel,
        limits.max_failures,
        to_submit(),
        str(limits.snapshot) if limits.snapshot else None,
    )
    write_json(submission_folder(root, name) / "submission.json", asdict(submission))
    return name


def enter(submission: str, launcher: str, entry: str, jobs: Sequence[Job]) -> None:
    """Writes the records of a submission's jobs, in place of earlier jobs' of those runs."""
    for job in jobs:
        folder = job_folder(job.folder)
        write_text(folder / "config.yaml", compose.to_yaml(job.config))
        stop_file(job.folder).unlink(missing_ok=True)
        write_json(folder / "job.json", asdict(JobRecord(launcher, submission, now(), entry, list(job.command))))


def read_submission(root: Path, name: str) -> Submission | None:
    """None where it is not there, or damaged."""
    return _read(submission_folder(root, name) / "submission.json", Submission)


def too_many_failures(root: Path, name: str) -> bool:
    """Whether as many runs of a submission have failed as it allows. Those that had failed before are not in it."""
    submission = read_submission(root, name)
    if submission is None or submission.max_failures is None:
        return False
    failed = sum(_failed(Run(root / "runs" / run_id)) for run_id in submission.runs)
    return failed >= submission.max_failures


def _failed(run: Run) -> bool:
    try:
        return run.status().state == "failed"
    except UserError:
        return True


def _read(path: Path, kind: Callable[..., T]) -> T | None:
    """The file as a dataclass, without the keys of another version; None where it is not there, or damaged."""
    try:
        found: Any = read_json(path)
        names = {f.name for f in fields(kind)}  # type: ignore[arg-type]
        return kind(**{k: v for k, v in found.items() if k in names}) if found else None
    except (UserError, TypeError, AttributeError):
        return None


def read_job(run: Path) -> JobRecord | None:
    """The run's latest job; None where it never had one, or its record is damaged: the run's own record counts."""
    return _read(job_folder(run) / "job.json", JobRecord)


def update_job(run: Path, **changes: Any) -> JobRecord | None:
    """Replaces job.json atomically with these fields changed. None where there is no job."""
    record = read_job(run)
    if record is not None:
        record = replace(record, **changes)
        write_json(job_folder(run) / "job.json", asdict(record))
    return record


def job_config(run: Path) -> RunConfig:
    return compose.load(job_folder(run) / "config.yaml")
