"""TensorBoard and MLflow have what metrics.jsonl has, read back through their own libraries."""

import importlib
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mrbench.config.identity import science
from mrbench.config.schema import RunConfig
from mrbench.engine import tracking
from mrbench.engine.tracking import Tracking, check_trackers
from mrbench.engine.train import train
from mrbench.errors import UserError
from mrbench.runs.record import Run, list_runs, open_run

BOTH = "runtime.track=[tensorboard,mlflow]"
LINES = [
    {"kind": "train", "iteration": 2, "loss": 3.5, "lr": 0.01, "time": 1000.25, "images_per_second": None},
    {"kind": "train", "iteration": 4, "loss": 2.5, "lr": 0.02, "time": 1001.5, "images_per_second": 7.0},
    {"kind": "evaluation", "iteration": 4, "box/AP": 12.5, "mask/AP": None, "time": 1002.0},
    {"kind": "train", "iteration": 6, "loss": 1.5, "lr": 0.02, "time": 1003.0, "images_per_second": 8.0},
]
POINTS = {
    "train/loss": [(2, 3.5), (4, 2.5), (6, 1.5)],
    "train/lr": [(2, 0.01), (4, 0.02), (6, 0.02)],
    "train/images_per_second": [(4, 7.0), (6, 8.0)],
    "box/AP": [(4, 12.5)],
}

Points = dict[str, list[tuple[int, float]]]


def expected(run: Run) -> Points:
    """Of metrics.jsonl, all numbers by name."""
    found: Points = {}
    for line in run.metrics():
        prefix = "train/" if line["kind"] == "train" else ""
        for name in line.keys() - {"kind", "iteration", "time"}:
            if line[name] is not None:
                found.setdefault(prefix + name, []).append((line["iteration"], line[name]))
    return found


def as_tensorboard(points: Points) -> Points:
    """Its values have single precision."""
    return {name: [(step, float(np.float32(value))) for step, value in at] for name, at in points.items()}


def in_tensorboard(accumulator: Any) -> Points:
    accumulator.Reload()
    tags = accumulator.Tags()["scalars"]
    return {tag: [(event.step, event.value) for event in accumulator.Scalars(tag)] for tag in tags}


def accumulator(folder: Path) -> Any:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    return reader.EventAccumulator(str(folder), size_guidance={"scalars": 0})


def in_mlflow(client: Any, mlflow_run: Any) -> Points:
    history = {name: client.get_metric_history(mlflow_run.info.run_id, name) for name in mlflow_run.data.metrics}
    return {name: sorted((m.step, m.value) for m in found) for name, found in history.items()}


def only_run(client: Any, run: Run) -> Any:
    (experiment,) = client.search_experiments(filter_string="name = 'mrbench'")
    found = client.search_runs([experiment.experiment_id], f"tags.`mrbench.run_id` = '{run.run_id}'")
    (only,) = found
    return only


def mlflow_client(uri: str) -> Any:
    pytest.importorskip("alembic")
    pytest.importorskip("sqlalchemy")
    return pytest.importorskip("mlflow.client").MlflowClient(tracking_uri=uri)


@pytest.fixture(scope="module")
def resumed(
    tmp_path_factory: pytest.TempPathFactory, scripts: Path, overrides: tuple[str, ...], tiny: Callable[..., RunConfig]
) -> Run:
    """A run that both trackers were told of, killed between two checkpoints and gone on with."""
    for name in ("tensorboard", "mlflow", "sqlalchemy", "alembic"):
        pytest.importorskip(name, reason="the extra `tracking` is not installed")
    root = tmp_path_factory.mktemp("tracked")
    command = [sys.executable, str(scripts / "killed_train.py"), "train", "--root", str(root), *overrides, BOTH]
    with open(os.devnull, "w") as nowhere:
        environment = {**os.environ, "MOMENT": "inside-log-line"}  # of iteration 10: 8 is saved
        done = subprocess.run(command, env=environment, stdout=nowhere, stderr=nowhere, timeout=120)
    assert done.returncode == -signal.SIGKILL
    (run,) = list_runs(root)
    train(run, tiny(BOTH))
    return run


def test_tracking_changes_nothing_in_a_run(
    resumed: Run, undisturbed: Run, assert_same_result: Callable[[Run, Run], None]
) -> None:
    assert_same_result(resumed, undisturbed)
    assert "is told nothing more" not in resumed.log_file.read_text()


def test_tensorboard_has_each_logged_number_once_after_a_resume(resumed: Run) -> None:
    folder = resumed.folder / "tensorboard"
    assert in_tensorboard(accumulator(folder)) == as_tensorboard(expected(resumed))
    # Also for readers that know nothing of purged steps.
    loader = importlib.import_module("tensorboard.backend.event_processing.event_file_loader")
    (file,) = folder.iterdir()
    events = loader.LegacyEventFileLoader(str(file)).Load()
    times = Counter((value.tag, event.step) for event in events for value in event.summary.value)
    assert set(times.values()) == {1}


def test_tensorboard_shows_hyper_parameters_beside_the_metrics(resumed: Run) -> None:
    plugin = importlib.import_module("tensorboard.plugins.hparams.plugin_data_pb2")
    reader = accumulator(resumed.folder / "tensorboard")
    reader.Reload()
    content = reader.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    shown = plugin.HParamsPluginData.FromString(content).session_start_info.hparams
    assert shown["optimizer.lr"].number_value == resumed.config().optimizer.lr
    assert shown["model.norm"].string_value == resumed.config().model.norm
    assert shown["seed"].number_value == 0
    content = reader.summary_metadata["_hparams_/experiment"].plugin_data.content
    metrics = plugin.HParamsPluginData.FromString(content).experiment.metric_infos
    assert [metric.name.tag for metric in metrics] == ["box/AP", "mask/AP"]


def test_mlflow_goes_on_in_the_same_run_with_each_number_once(resumed: Run) -> None:
    client = mlflow_client(f"sqlite:///{resumed.folder.parents[1] / 'mlflow.db'}")
    found = only_run(client, resumed)
    wanted = {name: sorted(at) for name, at in expected(resumed).items()}
    assert in_mlflow(client, found) == wanted
    assert found.info.status == "FINISHED"
    assert found.info.run_name == resumed.run_id


def test_mlflow_says_what_ran_and_where_its_files_are(resumed: Run) -> None:
    client = mlflow_client(f"sqlite:///{resumed.folder.parents[1] / 'mlflow.db'}")
    data = only_run(client, resumed).data
    assert data.params["model.backbone.width"] == "8"
    assert data.params["data.shapes.diameters"] in ("[9, 40]", "[9.0, 40.0]")
    assert {name.split(".")[0] for name in data.params} == set(science(resumed.config()))
    assert data.tags["mrbench.seed"] == "0"
    assert data.tags["mrbench.attempt"] == "2"
    assert data.tags.get("mrbench.commit") == resumed.provenance()["code"].get("commit")
    files = {name: Path(path) for name, path in data.tags.items() if name.startswith("mrbench.artifact.")}
    assert len(files) == 8
    assert all(path.is_file() for path in files.values())


@pytest.fixture
def untrained(tmp_path: Path, tiny: Callable[..., RunConfig]) -> Run:
    return open_run(tmp_path, tiny())


def test_a_tensorboard_that_looks_on_sees_no_number_twice(untrained: Run) -> None:
    reader = accumulator(untrained.folder / "tensorboard")
    say: list[str] = []
    with Tracking(untrained, untrained.config(), ["tensorboard"], say.append) as first:
        first.start([])
        for line in LINES:
            first.add(line)
    assert in_tensorboard(reader) == as_tensorboard(POINTS)
    with Tracking(untrained, untrained.config(), ["tensorboard"], say.append) as second:
        second.start(LINES[:3])
        second.add(LINES[3])
    assert in_tensorboard(reader) == as_tensorboard(POINTS)
    assert [event.wall_time for event in reader.Scalars("train/loss")] == [1000.25, 1001.5, 1003.0]
    assert not say


def test_mlflow_keeps_runs_in_a_folder(
    untrained: Run, tmp_path: Path, tiny: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # for the client of this test
    config = tiny(f"runtime.mlflow_uri={tmp_path / 'store'}")
    say: list[str] = []
    client = mlflow_client((tmp_path / "store").as_uri())
    first = Tracking(untrained, config, ["mlflow"], say.append)
    first.start([])
    first.add(LINES[0])
    first.__exit__(KeyError, KeyError(), None)
    assert only_run(client, untrained).info.status == "FAILED"
    with Tracking(untrained, config, ["mlflow"], say.append) as second:
        second.start(LINES[:3])  # of which it missed two
        second.add(LINES[3])
    assert in_mlflow(client, only_run(client, untrained)) == POINTS
    assert not say


class Told:
    """A tracker that fails at the second line."""

    def __init__(self, run: Run, config: RunConfig) -> None:
        self.lines: list[Any] = []

    def start(self, history: Any) -> None:
        assert not self.lines

    def add(self, entry: Any) -> None:
        if len(self.lines) == 1:
            raise ConnectionError("no answer\nfrom anywhere")
        self.lines.append(entry)

    def close(self, state: str) -> None:
        raise AssertionError("it was dropped")


def test_a_tracker_that_fails_is_told_of_once(untrained: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    module = type(sys)("told")
    module.open_tracker = Told  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "told", module)
    monkeypatch.setitem(tracking._MODULES, "told", "told")
    say: list[str] = []
    with Tracking(untrained, untrained.config(), ["told"], say.append) as trackers:
        trackers.start([])
        for line in LINES:
            trackers.add(line)
    assert say == ["told is told nothing more: ConnectionError: no answer"]


def test_training_goes_on_without_trackers_that_cannot_write(tmp_path: Path, tiny: Callable[..., RunConfig]) -> None:
    for name in ("tensorboard", "mlflow", "sqlalchemy", "alembic"):
        pytest.importorskip(name, reason="the extra `tracking` is not installed")
    (tmp_path / "file").touch()
    config = tiny(BOTH, f"runtime.mlflow_uri=sqlite:///{tmp_path}/file/mlflow.db", "schedule.iterations=2")
    run = open_run(tmp_path, config)
    (run.folder / "tensorboard").touch()
    train(run, config)
    assert run.status().state == "completed"
    warnings = [line for line in run.log_file.read_text().splitlines() if "is told nothing more" in line]
    assert sorted(line.split()[1] for line in warnings) == ["mlflow", "tensorboard"]


def test_a_missing_library_is_told_with_what_installs_it(
    untrained: Run, tiny: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    check_trackers([])
    with pytest.raises(UserError) as raised:
        train(untrained, tiny("runtime.track=[tensorboard]"))
    assert raised.value.what == "runtime.track=tensorboard needs tensorboard, which is not installed"
    assert raised.value.hint == "pip install 'mrbench[tracking]'"
    with pytest.raises(UserError, match="mlflow and sqlalchemy and alembic"):
        check_trackers(["mlflow"])


def test_a_tracker_that_there_is_not_is_refused(tiny: Callable[..., RunConfig]) -> None:
    with pytest.raises(UserError) as raised:
        tiny("runtime.track=[tensorbord]")
    assert raised.value.what == "runtime.track=tensorbord is not one of tensorboard, mlflow"
    assert "tensorboard" in raised.value.hint


def test_trackers_are_imported_only_where_they_are_asked_for() -> None:
    code = "import sys, mrbench.engine.train; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"tensorboard", "mlflow", "torch.utils.tensorboard"} & set(done.stdout.split())
