"""What a study will cost, against speeds and hours worked out by hand."""

import json
import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mrbench.bench.matrix import Case
from mrbench.bench.record import Measurement, Plan, Record, write
from mrbench.bench.statistics import summarise
from mrbench.cli.app import app
from mrbench.config.compose import to_yaml
from mrbench.config.composer import compose
from mrbench.runs import metrics
from mrbench.runs.files import write_json
from mrbench.runs.record import Run, open_run
from mrbench.study.cost import SpeedsOnRecord
from mrbench.study.grid import grid_study
from mrbench.study.plan import make_plan
from mrbench.study.record import write_study

BASE = ["data=shapes", "schedule.images_per_batch=2", "schedule.iterations=100"]


def on_record(root: Path, *overrides: str, rate: float, host: str | None = None, **status: object) -> Run:
    run = open_run(root, compose([*BASE, *overrides]))
    run.update(images_per_second=rate, host=host or socket.gethostname(), state="completed", **status)
    return run


def hours(root: Path, *overrides: str) -> tuple[float, str] | None:
    plan = make_plan(grid_study([*BASE, *overrides]))
    found = SpeedsOnRecord(root, plan).estimate(plan.runs[0].config, iterations=90)
    return (found.seconds, found.source) if found else None


def test_runs_of_the_same_work_on_this_host_come_first_then_those_of_the_same_model(tmp_path: Path) -> None:
    assert hours(tmp_path) is None
    on_record(tmp_path, "model.rpn.convs=3", rate=1.0)  # another model
    on_record(tmp_path, "precision=bf16", rate=1.0)  # another format
    on_record(tmp_path, "seed=1", rate=1.0, host="elsewhere")
    assert hours(tmp_path) is None
    on_record(tmp_path, "augmentation=large_scale_jitter", rate=1.0)  # pictures of another size
    on_record(tmp_path, "data.shapes.image_size=96", rate=1.0)  # another data set
    assert hours(tmp_path) is None
    on_record(tmp_path, "augmentation.flip=0", rate=4.0)
    assert hours(tmp_path) == (90 * 2 / 4.0, "runs of the same model and pictures on this host")
    for seed, rate in ((2, 9.0), (3, 10.0), (4, 30.0)):
        on_record(tmp_path, f"seed={seed}", "optimizer.lr=0.3", rate=rate)
    assert hours(tmp_path, "seed=7") == (90 * 2 / 10.0, "runs of the same work on this host")


def test_evaluations_count_as_other_runs_took_them(tmp_path: Path) -> None:
    run = on_record(tmp_path, "seed=1", rate=10.0, ended="2026-01-01T00:10:00+00:00")
    metrics.append(run.metrics_file, {"kind": "train", "iteration": 100, "time": 1767226200.0 - 4})
    assert hours(tmp_path) == (90 * 2 / 10.0 + 4, "runs of the same work on this host")  # from its end
    write_json(run.evaluation_file, {"metrics": {}, "seconds": 7.0})
    found = hours(tmp_path, "evaluation.period=20")  # after 20, 40, 60, 80 and 100; 10 iterations are done
    assert found is not None
    assert found[0] == 90 * 2 / 10.0 + 5 * 7


def benchmark(path: Path, config: list[str], rows: dict[tuple[str, str, int, int], list[float]]) -> None:
    """A record of gpu-bench: (mode, precision, batch, devices) -> images a second of each block."""
    cases = {row: Case(row[0], "a", row[1], row[2], [128, 128], devices=row[3]) for row in rows}
    of_model = {"a": to_yaml(compose(config))}
    plan = Plan(of_model, "cpu", list(cases.values()), "synthetic", 1, None, 1, False, None, 0.1)
    measured = []
    for row, rates in rows.items():
        found = summarise(rates) if rates else None
        measured.append(Measurement(cases[row], "measured" if rates else "memory", images_per_second=found))
    write(path, Record(plan, "", {}, {}, measurements=measured))


def test_a_benchmark_of_the_same_model_tells_where_no_run_does(tmp_path: Path) -> None:
    rows = {
        ("train", "fp32", 1, 1): [2.0, 3.0, 9.0],
        ("train", "fp32", 8, 2): [16.0],
        ("train", "fp32", 9, 1): [],
        ("infer", "fp32", 2, 1): [50.0],
        ("train", "bf16", 2, 1): [90.0],
    }
    benchmark(tmp_path / "bench" / "other.json", [*BASE, "model.rpn.convs=3"], rows)
    (tmp_path / "bench" / "torn.json").write_text('{"plan"')
    assert hours(tmp_path) is None
    same = ["model.inference.score_threshold=0.1", "model.name=mine", "schedule.iterations=5"]
    benchmark(tmp_path / "bench" / "same.json", [*BASE, *same], rows)
    source = "gpu-bench records of the same model"
    assert hours(tmp_path) == (90 * 2 / 3.0, source)
    assert hours(tmp_path, "schedule.images_per_batch=16", "runtime.devices=2") == (90 * 16 / (2 * 8.0), source)


def test_a_dry_run_tells_what_exists_what_is_left_and_what_it_costs(tmp_path: Path) -> None:
    on_record(tmp_path, "seed=0", rate=0.01, iteration=100, iterations=100)
    started = open_run(tmp_path, compose([*BASE, "seed=1"]))
    started.update(state="running", iteration=40)
    command = ["sweep", *BASE, "seed=0,1,2", "--dry-run", "--root", str(tmp_path)]
    text = CliRunner().invoke(app, command).output
    assert "3 runs, 1 complete; 160 iterations left." in text
    assert "About 8.9 hours" in text  # 160 iterations of 2 images at 0.01 images a second
    told = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert [run["iterations_left"] for run in told["runs"]] == [0, 60, 100]
    assert [run["state"] for run in told["runs"]] == ["completed", "interrupted", "pending"]
    assert told["hours_left"] == pytest.approx(160 * 2 / 0.01 / 3600)
    assert told["speed_unknown"] == 0
    assert not (tmp_path / "studies").exists()
    other = CliRunner().invoke(app, ["sweep", *BASE, "model.rpn.convs=2,3", "--dry-run", "--root", str(tmp_path)])
    assert "No speed is on record for 2 runs" in other.output
    short = CliRunner().invoke(app, ["sweep", *BASE, "schedule.iterations=11", "--dry-run", "--root", str(tmp_path)])
    assert "37 minutes" in short.output  # 11 iterations
    assert "About 37 minutes" in short.output


def test_a_dry_run_of_a_study_on_disk_tells_what_its_sweep_would_run(tmp_path: Path) -> None:
    plan = make_plan(grid_study([*BASE, "optimizer.lr=0.1,0.2", "seed=0,1"], "pair"))
    write_study(tmp_path, plan)
    for planned, state in zip(plan.runs, ("completed", "failed", "pending", None), strict=True):
        if state is not None:  # the last run was removed
            open_run(tmp_path, planned.config).update(state=state)
    command = ["sweep", "pair", "--dry-run", "--root", str(tmp_path)]
    text = CliRunner().invoke(app, command).output
    assert "3 runs, 1 complete; 100 iterations left." in text
    assert "1 run failed, and would run again with --retry only." in text
    assert text.endswith("Nothing was run.\n")

    def left(*more: str) -> dict[tuple[str, int], int]:
        told = json.loads(CliRunner().invoke(app, [*command, "--json", *more]).stdout)
        return {(run["arm"], run["seed"]): run["iterations_left"] for run in told["runs"]}

    first, second = "optimizer.lr=0.1", "optimizer.lr=0.2"
    assert left() == {(first, 0): 0, (first, 1): 0, (second, 0): 100}
    assert left("--retry") == {(first, 0): 0, (first, 1): 100, (second, 0): 100}
    assert left("--seed", "0") == {(first, 0): 0, (second, 0): 100}


def test_a_dry_run_of_a_grid_shows_the_arm_and_the_seed_that_are_asked_for(tmp_path: Path) -> None:
    command = ["sweep", *BASE, "optimizer.lr=0.1,0.2", "seed=0,1", "--dry-run", "--json", "--root", str(tmp_path)]
    told = json.loads(CliRunner().invoke(app, [*command, "--arm", "optimizer.lr=0.2", "--seed", "1"]).stdout)
    assert [(run["arm"], run["seed"]) for run in told["runs"]] == [("optimizer.lr=0.2", 1)]
