"""The record of a run on disk: where everything lies, and what state it is in (DESIGN section 4)."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mrbench.config import compose
from mrbench.config.identity import run_id
from mrbench.config.schema import RunConfig
from mrbench.config.suggest import did_you_mean_of_own, few
from mrbench.errors import UserError
from mrbench.runs import metrics
from mrbench.runs.files import cannot_write, read_json, write_json, write_text

DAMAGED_HINT = "Mend the file; or remove it, and the run goes on from its newest checkpoint."
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
    energy: float | None = None  # joules that the run's GPUs took, over all attempts; None where nothing tells it


_OPTIONAL_TEXT, _COUNT = (str, type(None)), int
_KINDS: dict[str, Any] = {  # of each field, to tell a record that was damaged by hand
    "state": str,
    "attempt": _COUNT,
    "iteration": _COUNT,
    "iterations": _COUNT,
    "started": _OPTIONAL_TEXT,
    "updated": _OPTIONAL_TEXT,
    "ended": _OPTIONAL_TEXT,
    "host": _OPTIONAL_TEXT,
    "pid": (int, type(None)),
    "error": (dict, type(None)),
    "images_per_second": (int, float, type(None)),
    "peak_memory": (int, float, type(None)),
    "energy": (int, float, type(None)),
}


class Run:
    """A run's folder, and what is read from it. Holds no state of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run_id = folder.name

    @property
    def config_file(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def status_file(self) -> Path:
        return self.folder / "status.json"

    @property
    def metrics_file(self) -> Path:
        return self.folder / "metrics.jsonl"

    @property
    def provenance_file(self) -> Path:
        return self.folder / "provenance.json"

    @property
    def checkpoint_dir(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def evaluation_file(self) -> Path:
        return self.folder / "evaluation.json"

    @property
    def matches_file(self) -> Path:
        return self.folder / "matches.npz"

    @property
    def log_file(self) -> Path:
        return self.folder / "log.txt"

    def detections_file(self, split: str = "val") -> Path:
        return self.folder / "detections" / f"{split}.json"

    def proposals_file(self, split: str = "val") -> Path:
        return self.folder / "detections" / f"{split}_proposals.npz"

    def config(self) -> RunConfig:
        return compose.load(self.config_file)

    def status(self) -> Status:
        """Raises UserError when status.json is damaged. Keys of another version are passed over."""
        found = read_json(self.status_file)
        if found is None:
            return Status()
        wrong = "no known state"
        if isinstance(found, dict) and found.get("state", "pending") in STATES:
            status = Status(**{name: found[name] for name in _KINDS if name in found})
            wrong = next((name for name, kinds in _KINDS.items() if not isinstance(getattr(status, name), kinds)), "")
        if wrong:
            raise UserError(f"{self.status_file} is damaged: {wrong}", DAMAGED_HINT)
        return status

    def update(self, **changes: Any) -> Status:
        """Replaces status.json atomically with these fields changed and `updated` set to now."""
        status = Status(**{**asdict(self.status()), **changes, "updated": now()})
        write_json(self.status_file, asdict(status))
        return status

    def evaluation(self) -> dict[str, Any] | None:
        """Raises UserError where it is damaged."""
        found = read_json(self.evaluation_file)
        if found is not None and not (isinstance(found, dict) and isinstance(found.get("metrics"), dict)):
            raise UserError(f"{self.evaluation_file} is damaged: no metrics", "Make it again with `mrbench eval RUN`.")
        return found

    def provenance(self) -> dict[str, Any]:
        """Raises UserError where it is damaged."""
        found = read_json(self.provenance_file)
        if found is not None and not isinstance(found, dict):
            raise UserError(f"{self.provenance_file} is damaged: not what a run came from", DAMAGED_HINT)
        return found or {}

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
    try:
        with os.scandir(folder) as found:
            names = sorted(entry.name for entry in found if not entry.name.startswith("."))
    except OSError as error:
        raise UserError(f"Cannot read {folder}: {error.strerror or error}") from error
    return [Run(folder / name) for name in names if os.path.isfile(f"{folder}/{name}/config.yaml")]


def find_run(root: Path, name: str) -> Run:
    """The run called `name`, a unique beginning or the hash of it, or its folder. Raises UserError."""
    return find_runs(root, [name])[0]


def find_runs(root: Path, names: Sequence[str]) -> list[Run]:
    """The runs of these names, as `find_run` finds each, with one look at the folder."""
    folders = [Path(name) for name in names]
    runs = [] if all((folder / "config.yaml").is_file() for folder in folders) else list_runs(root)
    by_name = {run.run_id: run for run in runs}
    found = []
    for name, folder in zip(names, folders, strict=True):
        if (folder / "config.yaml").is_file():
            found.append(Run(folder.resolve()))
        else:
            found.append(by_name.get(name) or _meant(root, name, runs))
    return found


def _meant(root: Path, name: str, runs: list[Run]) -> Run:
    found = [r for r in runs if r.run_id.startswith(name) or r.run_id.rsplit("-", 1)[-1].startswith(name)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"{name} may be any of {len(found)} runs", few([r.run_id for r in found]))
    raise UserError(
        f"There is no run '{name}' in '{root / 'runs'}'",
        did_you_mean_of_own(
            name, [r.run_id for r in runs], "mrbench runs list shows them; --root names another folder."
        ),
    )
