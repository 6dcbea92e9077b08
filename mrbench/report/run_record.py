"""One run as a report reads it from disk. What is missing or broken is kept and named."""

import math
import re
from array import array
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import yaml

from mrbench.config.identity import science_as_written, setting
from mrbench.errors import UserError
from mrbench.report.recorded import details, thresholds
from mrbench.runs.record import Run
from mrbench.runs.state import iteration_of, state_of


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

    def setting(self, key: str) -> Any:
        """See `config.identity.setting`; None where its configuration has no such key."""
        return setting(key, self.config.get)

    @cached_property
    def science(self) -> dict[str, Any]:
        """What of its configuration tells recipes apart: where the data lie is a matter of the machine."""
        return {key: value for key, value in science_as_written(self.config).items() if key != "seed"}

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
    state, iteration = state_of(run, status), iteration_of(run, status)
    done = state == "completed"
    problem = ""
    if status.error:
        problem = str(status.error.get("message") or status.error.get("kind") or "").strip().partition("\n")[0]
        if state == "failed" and status.error.get("kind") == "non_finite_loss":
            state = "diverged"
    elif done and not evaluation:
        problem = "not evaluated"
    elif state in ("running", "interrupted", "preempted") and status.iterations:
        problem = f"at iteration {iteration:,} of {status.iterations:,}"
    return RunRecord(
        arm=arm,
        seed=seed,
        run_id=run.run_id,
        state=state,
        problem=problem,
        folder=run.folder,
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


def show(value: Any) -> str:
    """A value of the configuration as people write it."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
