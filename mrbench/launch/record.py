"""<root>/runs/<run>/job/: what was submitted for a run, for whoever carries it out or asks about it later.

job.json     the latest submission (`JobRecord`), replaced atomically
config.yaml  the configuration to run with: as the run's own, but for paths and other settings of this machine
stop         there once somebody has cancelled the job
*.out        what the job printed
"""

from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from mrbench.config import compose
from mrbench.config.schema import RunConfig
from mrbench.errors import UserError
from mrbench.launch.executor import Job
from mrbench.runs.files import read_json, write_json, write_text
from mrbench.runs.record import now


@dataclass(frozen=True)
class JobRecord:
    """job.json. `submission` names what it was submitted with, `job_id` is the place's own name of the job (None
    until it has one), `log` the file that it prints to, below the run's folder. Times are UTC, ISO 8601."""

    launcher: str
    submission: str
    submitted: str
    entry: str
    command: list[str] = field(default_factory=list)
    max_failures: int | None = None
    job_id: str | None = None
    host: str | None = None
    pid: int | None = None
    started: str | None = None
    ended: str | None = None
    slots: list[str] = field(default_factory=list)
    log: str | None = None


def job_folder(run: Path) -> Path:
    return run / "job"


def stop_file(run: Path) -> Path:
    """Asks the run's job not to begin, even while it is too young to hear a signal."""
    return job_folder(run) / "stop"


def begin(job: Job, launcher: str, submission: str, entry: str, max_failures: int | None = None) -> JobRecord:
    """Writes the records of a job that is about to be submitted, in place of an earlier job's."""
    folder = job_folder(job.folder)
    write_text(folder / "config.yaml", compose.to_yaml(job.config))
    stop_file(job.folder).unlink(missing_ok=True)
    record = JobRecord(launcher, submission, now(), entry, list(job.command), max_failures)
    write_json(folder / "job.json", asdict(record))
    return record


def read_job(run: Path) -> JobRecord | None:
    """The run's latest job; None where it never had one, or its record is damaged: the run's own record counts."""
    try:
        found: Any = read_json(job_folder(run) / "job.json")
        names = {f.name for f in fields(JobRecord)}
        return JobRecord(**{k: v for k, v in found.items() if k in names}) if found else None
    except (UserError, TypeError, AttributeError):
        return None


def update_job(run: Path, **changes: Any) -> JobRecord | None:
    """Replaces job.json atomically with these fields changed. None where there is no job."""
    record = read_job(run)
    if record is not None:
        record = replace(record, **changes)
        write_json(job_folder(run) / "job.json", asdict(record))
    return record


def job_config(run: Path) -> RunConfig:
    return compose.load(job_folder(run) / "config.yaml")
