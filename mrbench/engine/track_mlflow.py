"""An MLflow run of a run: parameters, metrics against the iteration, and tags, through `mlflow.client` alone."""

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

# Before it is imported, which is when MLflow begins to report its use to its makers.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from mlflow.client import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from mrbench.config.schema import RunConfig
from mrbench.engine.tracking import Entry, parameters, points
from mrbench.runs.record import Run

logging.getLogger("mlflow").setLevel(logging.WARNING)  # else it tells how it makes its tables

EXPERIMENT = "mrbench"
RUN_TAG, FOLDER_TAG = "mrbench.run_id", "mrbench.folder"
BATCH = 100  # parameters, tags or metrics that one call may hold
STATUS = {"completed": "FINISHED", "failed": "FAILED", "preempted": "KILLED"}


class MlflowTracker:
    """The MLflow run of a run's folder: the one that is there, or a new one.

    MLflow cannot take points back. Those of a killed attempt that lie behind its checkpoint stay, and the points of
    the same iterations, which are then computed again, are not added to them.
    """

    def __init__(self, client: MlflowClient, run: Run, config: RunConfig) -> None:
        self._client, self._run, self._config = client, run, config
        self._id = ""
        self._there: set[tuple[str, int]] = set()

    def start(self, history: Sequence[Entry]) -> None:
        found = self._find()
        if found is None:
            self._id = self._create()
        else:
            self._id = found.info.run_id
            self._client.update_run(self._id, status="RUNNING")
            for name in found.data.metrics:
                self._there |= {(name, m.step) for m in self._client.get_metric_history(self._id, name)}
        self._tag()
        new = [metric for entry in history for metric in self._new(entry)]
        for start in range(0, len(new), BATCH):
            self._client.log_batch(self._id, metrics=new[start : start + BATCH])

    def add(self, entry: Entry) -> None:
        self._client.log_batch(self._id, metrics=list(self._new(entry)))

    def close(self, state: str) -> None:
        if self._id:
            self._client.set_terminated(self._id, status=STATUS[state])

    def _new(self, entry: Entry) -> Iterator[Metric]:
        for name, value in points(entry).items():
            if (name, entry["iteration"]) not in self._there:
                self._there.add((name, entry["iteration"]))
                yield Metric(name, value, round(1000 * entry["time"]), entry["iteration"])

    def _experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self._client.create_experiment(name))
            except MlflowException:
                found = self._client.get_experiment_by_name(name)  # another run has made it meanwhile
                if found is None:
                    raise
        return str(found.experiment_id)

    def _find(self) -> Any:
        same_id = self._client.search_runs([self._experiment()], f"tags.`{RUN_TAG}` = '{self._run.run_id}'")
        folder = str(self._run.folder.resolve())
        return next((found for found in same_id if found.data.tags.get(FOLDER_TAG) == folder), None)

    def _create(self) -> str:
        tags = {RUN_TAG: self._run.run_id, FOLDER_TAG: str(self._run.folder.resolve())}
        new = str(self._client.create_run(self._experiment(), tags=tags, run_name=self._run.run_id).info.run_id)
        named = [Param(name, str(value)) for name, value in parameters(self._config).items()]
        for start in range(0, len(named), BATCH):
            self._client.log_batch(new, params=named[start : start + BATCH])
        return new

    def _tag(self) -> None:
        """Of every attempt anew: its code may be another one."""
        code = self._run.provenance().get("code") or {}
        paths = {
            "config": self._run.config_file,
            "provenance": self._run.provenance_file,
            "metrics": self._run.metrics_file,
            "evaluation": self._run.evaluation_file,
            "detections": self._run.detections_file(),
            "matches": self._run.matches_file,
            "weights": self._run.checkpoint_dir / "final.pt",
            "log": self._run.log_file,
        }
        tags: dict[str, Any] = {"mrbench.seed": self._config.seed, "mrbench.attempt": self._run.status().attempt}
        if code.get("commit"):
            tags |= {"mrbench.commit": code["commit"], "mlflow.source.git.commit": code["commit"]}
        tags |= {f"mrbench.artifact.{name}": path.resolve() for name, path in paths.items()}
        self._client.log_batch(self._id, tags=[RunTag(name, str(value)) for name, value in tags.items()])


def open_tracker(run: Run, config: RunConfig) -> MlflowTracker:
    """Of runtime.mlflow_uri, else of $MLFLOW_TRACKING_URI, else of the SQLite file mlflow.db beside runs/."""
    default = f"sqlite:///{run.folder.resolve().parents[1] / 'mlflow.db'}"
    uri = config.runtime.mlflow_uri or os.environ.get("MLFLOW_TRACKING_URI") or default
    if "://" not in uri and not uri.startswith("file:"):
        uri = Path(uri).expanduser().resolve().as_uri()
    if uri.startswith("file:"):
        # Newer versions refuse folders unless told that they are meant.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    return MlflowTracker(MlflowClient(tracking_uri=uri), run, config)
