"""The record of a run on disk: where everything lies, and what state it is in (DESIGN section 4)."""

import os
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mrbench.config import compose
from mrbench.config.identity import run_id
from mrbench.config.schema import RunConfig
from mrbench.config.suggest import did_you_mean
from mrbench.errors import UserError
from mrbench.runs import metrics
from mrbench.runs.files import cannot_write, read_json, write_json, write_text

STATES = ("pending", "running", "completed", "failed", "preempted")


def now() -> str:
    """UTC, ISO 8601, whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def default_root() -> Path:
    """$MRBENCH_ROOT, else the current folder; runs lie in <root>/runs, studies in <root>/studies."""
    return Path(os.environ.get("MRBENCH_ROOT") or ".")


@dataclass
class Status:
    """status.json. Times are UTC in ISO 8601; memory in bytes."""

    state: str = "pending"
    attempt: int = 0
    iteration: int = 0
    iterations: int = 0
    started: str | None = None
    updated: str | None = None
    ended: str | None = None
    host: str | None = None
    pid: int | None = None
    error: dict[str, Any] | None = None  # {"kind": ..., "message": ..., and what the kind needs}
    images_per_second: float | None = None
    peak_memory: int | None = None


class Run:
    """A run's folder, and what is read from it. Holds no state of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run_id = folder.name
        self.config_file = folder / "config.yaml"
        self.status_file = folder / "status.json"
        self.metrics_file = folder / "metrics.jsonl"
        self.provenance_file = folder / "provenance.json"
        self.checkpoint_dir = folder / "checkpoints"
        self.evaluation_file = folder / "evaluation.json"
        self.matches_file = folder / "matches.npz"
        self.log_file = folder / "log.txt"

    def detections_file(self, split: str = "val") -> Path:
        return self.folder / "detections" / f"{split}.json"

    def proposals_file(self, split: str = "val") -> Path:
        return self.folder / "detections" / f"{split}_proposals.npz"

    def config(self) -> RunConfig:
        return compose.load(self.config_file)

    def status(self) -> Status:
        """Raises UserError when status.json is damaged. Keys of another version are passed over."""
        found = read_json(self.status_file) or {}
        if not isinstance(found, dict) or found.get("state", "pending") not in STATES:
            raise UserError(f"{self.status_file} is damaged: no known state", "Remove the run and run it again.")
        known = {f.name for f in fields(Status)}
        return Status(**{k: v for k, v in found.items() if k in known})

    def update(self, **changes: Any) -> Status:
        """Replaces status.json atomically with these fields changed and `updated` set to now."""
        status = Status(**{**asdict(self.status()), **changes, "updated": now()})
        write_json(self.status_file, asdict(status))
        return status

    def evaluation(self) -> dict[str, Any] | None:
        return read_json(self.evaluation_file)

    def provenance(self) -> dict[str, Any]:
        return read_json(self.provenance_file) or {}

    def metrics(self) -> list[dict[str, Any]]:
        return metrics.read(self.metrics_file)

    def log(self, text: str) -> None:
        """Adds a line to log.txt."""
        try:
            with self.log_file.open("a", encoding="utf-8") as file:
                file.write(f"{now()} {text}\n")
        except OSError as error:
            raise cannot_write(self.log_file, error) from error


def open_run(root: Path, config: RunConfig) -> Run:
    """The run of `config` under `root`: the one that exists, or a new one in state pending.

    Raises UserError where the folder cannot be written.
    """
    run = Run(root / "runs" / run_id(config))
    if not run.config_file.exists():
        write_text(run.config_file, compose.to_yaml(config))
    if not run.status_file.exists():
        write_json(run.status_file, asdict(Status(iterations=config.schedule.iterations, updated=now())))
    return run


def list_runs(root: Path) -> list[Run]:
    """All runs under `root`, by name."""
    folder = root / "runs"
    if not folder.is_dir():
        return []
    return [Run(p) for p in sorted(folder.iterdir()) if (p / "config.yaml").is_file()]


def find_run(root: Path, name: str) -> Run:
    """The run called `name`, a unique beginning or the hash of it, or its folder. Raises UserError."""
    if (Path(name) / "config.yaml").is_file():
        return Run(Path(name).resolve())
    runs = list_runs(root)
    exact = [r for r in runs if r.run_id == name]
    found = exact or [r for r in runs if r.run_id.startswith(name) or r.run_id.rsplit("-", 1)[-1].startswith(name)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"{name} may be any of {len(found)} runs", ", ".join(r.run_id for r in found[:5]))
    raise UserError(
        f"There is no run '{name}' in {root / 'runs'}",
        did_you_mean(name, [r.run_id for r in runs], "mrbench runs list shows them; --root names another folder."),
    )
