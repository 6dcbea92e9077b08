"""What the rest of a study will cost, from the speed on record: of runs on this host, else of `mrbench gpu-bench`."""

import os
import socket
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from mrbench.config.identity import as_dict, canonical_json
from mrbench.config.schema import RunConfig
from mrbench.errors import UserError
from mrbench.runs.files import read_json
from mrbench.runs.record import Run
from mrbench.study.plan import Plan

SIZES = ("resize", "short_edge", "short_edge_sampling", "max_size", "test_short_edge", "jitter", "jitter_size")
MOST_READ = 12  # runs that are not the plan's own, of each model: reading a configuration takes its time


@dataclass(frozen=True)
class Speed:
    """Images a second that a run on record trained with, or a benchmark measured on one device (`batch` images).

    `model` is the model's key, with a run's data set and size of pictures; `work` is None of a benchmark.
    """

    model: str
    work: str | None
    images_per_second: float
    batch: int
    evaluation: float | None = None  # seconds of one evaluation, where they are on record


@dataclass(frozen=True)
class Estimate:
    """Seconds that one run has left. `source` says in words where the speed comes from."""

    seconds: float
    source: str


def model_key(model: Mapping[str, Any], precision: str) -> str:
    """Equal for two configurations whose training steps do the same to an image."""
    kept = {key: value for key, value in model.items() if key not in ("name", "weights", "inference")}
    kept["backbone"] = {key: value for key, value in model["backbone"].items() if key != "weights"}
    return canonical_json([kept, precision])


@dataclass(frozen=True)
class _Keys:
    """Of the model; of it with its data set and size of pictures; and of all that an iteration's time hangs on."""

    model: str
    pictures: str
    work: str


def _keys(config: RunConfig) -> _Keys:
    model = model_key(as_dict(config.model), config.precision.kind)
    data, augmentation = config.data, as_dict(config.augmentation)
    of = as_dict(data.shapes) if data.kind == "shapes" else data.name or data.root
    pictures = canonical_json([model, data.kind, of, {key: augmentation[key] for key in SIZES}])
    batch = [config.schedule.images_per_batch, config.runtime.devices]
    return _Keys(model, pictures, canonical_json([pictures, augmentation, batch]))


def _evaluations(config: RunConfig, iterations: int) -> int:
    """How many evaluations the last `iterations` have."""
    total, period = config.schedule.iterations, config.evaluation.period
    return 1 + ((total - 1) // period - (total - iterations) // period if period else 0)


class SpeedsOnRecord:
    """The speeds under a root: runs of this host for the plan's models, and the records in bench/."""

    def __init__(self, root: Path, plan: Plan) -> None:
        self._root = root
        self._plan = plan
        self._host = socket.gethostname()

    def estimate(self, config: RunConfig, iterations: int) -> Estimate | None:
        """None where no speed of the configuration's model is on record. Evaluations count as other runs took them;
        where none of those is on record they are left out."""
        if not self._of_runs and not self._of_benchmarks:
            return None
        keys = _keys(config)
        images = iterations * config.schedule.images_per_batch
        of_model = [speed for speed in self._of_runs if speed.model == keys.pictures]
        of_work = [speed for speed in of_model if speed.work == keys.work]
        if alike := of_work or of_model:
            seconds = images / statistics.median(speed.images_per_second for speed in alike)
            tested = [speed.evaluation for speed in alike if speed.evaluation is not None]
            seconds += _evaluations(config, iterations) * statistics.median(tested or [0.0])
            return Estimate(seconds, f"runs of the same {'work' if of_work else 'model and pictures'} on this host")
        share = config.schedule.images_per_batch / config.runtime.devices
        benched = [speed for speed in self._of_benchmarks if speed.model == keys.model]
        if benched:
            nearest = min(benched, key=lambda speed: abs(speed.batch - share))
            rate = nearest.images_per_second * config.runtime.devices
            return Estimate(images / rate, "gpu-bench records of the same model")
        return None

    @cached_property
    def _of_runs(self) -> list[Speed]:
        own = {run_id: planned.config for run_id, planned in self._plan.unique().items()}
        prefixes = {f"{config.model.name}-" for config in own.values()}
        folder = self._root / "runs"
        if not folder.is_dir():
            return []
        found, others = [], dict.fromkeys(prefixes, 0)
        with os.scandir(folder) as entries:
            newest = sorted(entries, key=lambda e: e.stat().st_mtime, reverse=True)
        for entry in newest:
            config = own.get(entry.name)
            prefix = next((p for p in prefixes if entry.name.startswith(p)), None)
            if config is None and (prefix is None or others[prefix] >= MOST_READ):
                continue
            if (rate := self._rate(run := Run(Path(entry.path)))) is None:
                continue
            if config is None and prefix is not None:
                others[prefix] += 1
                try:
                    config = run.config()
                except UserError:
                    continue
            if config is not None:
                keys, batch = _keys(config), config.schedule.images_per_batch
                found.append(Speed(keys.pictures, keys.work, rate, batch, _seconds_of_evaluation(run)))
        return found

    def _rate(self, run: Run) -> float | None:
        try:
            status = run.status()
        except UserError:
            return None
        return status.images_per_second or None if status.host == self._host else None

    @cached_property
    def _of_benchmarks(self) -> list[Speed]:
        return [speed for path in sorted((self._root / "bench").glob("*.json")) for speed in _benchmarked(path)]


def _seconds_of_evaluation(run: Run) -> float | None:
    """As evaluation.json has them, else from the last logged iteration to the run's end; None before that."""
    try:
        status, evaluation = run.status(), run.evaluation()
        if status.state != "completed" or status.ended is None:
            return None
        if evaluation and isinstance(evaluation.get("seconds"), int | float):
            return float(evaluation["seconds"])
        trained = [line["time"] for line in run.metrics() if line["kind"] == "train"]
        return max(0.0, datetime.fromisoformat(status.ended).timestamp() - trained[-1]) if trained else None
    except (UserError, OSError, KeyError, ValueError):
        return None


def _benchmarked(path: Path) -> Iterator[Speed]:
    """The trainings of a record of `mrbench gpu-bench`; none where the file is something else."""
    try:
        record = read_json(path)
        configs: dict[str, Any] = {
            name: OmegaConf.to_container(OmegaConf.create(text)) for name, text in record["plan"]["configs"].items()
        }
        for row in record["measurements"]:
            case, rate = row["case"], row["images_per_second"]
            if case["mode"] == "train" and rate:
                key = model_key(configs[case["model"]]["model"], case["precision"])
                yield Speed(key, None, float(rate["median"]) / int(case["devices"]), int(case["batch"]))
    except (UserError, AttributeError, KeyError, TypeError, ValueError, OmegaConfBaseException, YAMLError):
        return
