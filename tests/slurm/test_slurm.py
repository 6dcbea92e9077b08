"""Sweeps on a real Slurm cluster: whatever happens to a job, the table is right and the next sweep does what is left.

Most of a scenario's time is waiting for Slurm, so they go on side by side, on nodes of their own where they would get
into each other's way.
"""

import os
import signal
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from slurm_cluster import PATIENCE, Cluster, Done, Together, diary, iterations, only_run, states, until

from mrbench.config.composer import compose
from mrbench.errors import UserError
from mrbench.launch.executor import Job, JobState, Limits
from mrbench.launch.record import read_job
from mrbench.launch.slurm import SlurmExecutor
from mrbench.runs.record import Run, list_runs, open_run

# A model and a data set so small that a step takes some hundredths of a second.
TINY = (
    "data.shapes.image_size=64", "data.shapes.train_images=24", "data.shapes.val_images=6",
    "data.shapes.diameters=[9,40]", "model.group_size=4", "model.backbone.width=8", "model.neck.channels=16",
    "model.rpn.samples=32", "model.rpn.pre_nms_train=50", "model.rpn.post_nms_train=32", "model.roi.samples=32",
    "model.box_head.fc_channels=16", "model.mask_head.convs=1", "model.mask_head.channels=16",
    "schedule.images_per_batch=4", "schedule.warmup_iterations=2", "runtime.threads=1", "runtime.num_workers=0",
    "runtime.log_period=2", "runtime.checkpoint_period=5000",
)  # fmt: skip
CPU = "runtime.device=cpu"
FREE = "launcher.additional_parameters=['exclude=n[3-5]']"  # nodes that nothing happens to
LONG = "launcher.time=60"


@dataclass
class Twice:
    """A sweep that something happened to, the study's status then, the same sweep again, and the runs' states."""

    first: Done
    status: Done
    second: Done
    between: list[str]
    after: list[str]
    more: dict[str, Any] = field(default_factory=dict)


def twice(cluster: Cluster, root: Path, first: Done, study: tuple[str, ...], job: str = "slow", **more: Any) -> Twice:
    between = states(root)
    status = cluster.status(root, "study")
    second = cluster.sweep(root, *study, job=job)
    return Twice(first, status, second, between, states(root), more)


def named(*study: str) -> tuple[str, ...]:
    return (*study, CPU, "--name", "study")


def finish(process: Any) -> Done:
    out, _ = process.communicate(timeout=PATIENCE)
    return Done(process.returncode, out)


def running(root: Path, iteration: int = 3) -> bool:
    """Whether all runs of `root` have done some iterations."""
    runs = list_runs(root)
    return bool(runs) and all(len(iterations(run)) >= iteration for run in runs)


def arrays(cluster: Cluster, root: Path) -> Twice:
    study = named("seed=0,1,2,3,4,5", "optimizer.lr=0.1,0.2", "schedule.iterations=40", FREE, "--parallel", "4")
    return twice(cluster, root, cluster.sweep(root, *study), study)


def several_nodes(cluster: Cluster, root: Path) -> Twice:
    study = named(
        *TINY, "schedule.iterations=20", "seed=1", "launcher.nodes=2", "launcher.tasks_per_node=2",
        "launcher.mem=1500M", FREE,
    )  # fmt: skip
    first = cluster.sweep(root, *study, job="train")
    return twice(cluster, root, first, study, "train")


def time_limit(cluster: Cluster, root: Path) -> Twice:
    study = named(
        *TINY, "schedule.iterations=150", "seed=2", "launcher.time=2", "launcher.warning=15", "launcher.mem=1G", FREE
    )
    first = cluster.sweep(root, *study, job="train")
    return twice(cluster, root, first, study, "train")


def too_short_a_limit(cluster: Cluster, root: Path) -> Twice:
    study = named("seed=0", "schedule.iterations=1", "launcher.time=1", "launcher.warning=15", FREE)
    return twice(cluster, root, cluster.sweep(root, *study, job="stuck"), study, "stuck")


def preemption(cluster: Cluster, root: Path) -> Twice:
    study = named("seed=0", "schedule.iterations=300", LONG, "launcher.additional_parameters=['nodelist=n5']")
    sweep = cluster.begin(root, *study)
    until(lambda: running(root), "the run has begun")
    wrap = "--wrap=sleep 5"
    high = cluster.call("sbatch", "-p", "high", "-w", "n5", "--exclusive", "-o", "/dev/null", wrap)
    assert high.code == 0, high.out
    return twice(cluster, root, finish(sweep), study)


def scancelled(cluster: Cluster, root: Path) -> Twice:
    study = named("seed=0,1", "schedule.iterations=150", LONG, FREE)
    sweep = cluster.begin(root, *study)
    until(lambda: running(root), "the runs have begun")
    victim = list_runs(root)[0]
    record = read_job(victim.folder)
    assert record is not None
    assert record.job_id is not None
    assert cluster.call("scancel", record.job_id).code == 0
    return twice(cluster, root, finish(sweep), study, victim=victim.run_id)


def killed_task(cluster: Cluster, root: Path) -> Twice:
    study = named("seed=0,1", "schedule.iterations=150", LONG, FREE)
    sweep = cluster.begin(root, *study)
    until(lambda: running(root), "the runs have begun")
    victim = list_runs(root)[0]
    pid = victim.status().pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    return twice(cluster, root, finish(sweep), study, victim=victim.run_id)


def killed_node(cluster: Cluster, root: Path) -> Twice:
    away = "launcher.additional_parameters=['exclude=n1,n2,n5']"
    study = named("seed=0", "schedule.iterations=100", LONG, away)
    sweep = cluster.begin(root, *study)
    until(lambda: running(root), "the run has begun")
    node = diary(only_run(root))[0][2]
    cluster.kill_node(node)
    return twice(cluster, root, finish(sweep), study, node=node)


def cancelled(cluster: Cluster, root: Path) -> Twice:
    study = named("seed=0,1,2", "schedule.iterations=300", LONG, FREE, "--parallel", "2")
    first = cluster.sweep(root, *study, "--no-wait")
    until(lambda: sum(len(iterations(run)) > 3 for run in list_runs(root)) == 2, "two runs have begun")
    cancel = cluster.sweep(root, "study", "--cancel")
    counts = {run.run_id: len(iterations(run)) for run in list_runs(root)}
    return twice(cluster, root, first, study, cancel=cancel, counts=counts)


def half_rejected(cluster: Cluster, root: Path) -> dict[str, Any]:
    """Two arrays, the second of which Slurm does not take."""
    with pytest.MonkeyPatch.context() as patch:
        for key, value in cluster.environment().items():
            patch.setenv(key, value)
        executor = SlurmExecutor(root, "paced:slow")
        jobs = []
        for seed, partition in enumerate(("main", "nope")):
            config = compose(["launcher=slurm", f"launcher.partition={partition}", f"seed={seed}", CPU, LONG])
            jobs.append(Job(open_run(root, config).folder, config, ()))
        with pytest.raises(UserError) as caught:
            executor.submit(jobs, Limits())
        time.sleep(2)
        states = executor.states([job.run_id for job in jobs])
    return {"error": caught.value, "states": states, "submissions": list(root.glob("submissions/slurm-*"))}


def rejected(cluster: Cluster, root: Path) -> Twice:
    study = named("seed=0,1", "schedule.iterations=5")
    first = cluster.sweep(root, *study, "launcher.partition=nope")
    return twice(cluster, root, first, (*study, FREE))


def no_accounting(cluster: Cluster, root: Path) -> Twice:
    study = named("seed=0,1,2", "schedule.iterations=120", LONG)
    sweep = cluster.begin(root, *study)
    until(lambda: running(root), "the runs have begun")
    victim = list_runs(root)[0]
    record = read_job(victim.folder)
    assert record is not None
    assert record.job_id is not None
    assert cluster.call("scancel", record.job_id).code == 0
    return twice(cluster, root, finish(sweep), study, victim=victim.run_id)


@pytest.fixture(scope="module")
def together(cluster: Cluster, without_accounting: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Together:
    scenarios = Together()
    here = (
        time_limit, killed_node, too_short_a_limit, preemption, several_nodes, arrays, scancelled, killed_task,
        cancelled, half_rejected, rejected,
    )  # fmt: skip
    for scenario in here:
        scenarios.add(scenario, cluster, tmp_path_factory.mktemp(scenario.__name__))
    scenarios.add(no_accounting, without_accounting, tmp_path_factory.mktemp("no_accounting"))
    return scenarios


def twice_of(together: Together, scenario: Any) -> tuple[Twice, Path]:
    return together.result(scenario.__name__), together.root(scenario.__name__)  # type: ignore[return-value]


def assert_complete_in_order(run: Run, killed: bool = False) -> None:
    """Every iteration was done once, over all attempts; a kill may have come before one was entered in the record."""
    done = iterations(run)
    assert sorted(set(done)) == list(range(run.config().schedule.iterations))
    assert len(done) - len(set(done)) <= killed


def most_at_once(root: Path) -> int:
    spans = []
    for run in list_runs(root):
        events = [(event, moment) for event, moment, _ in diary(run)]
        spans += [(start[1], end[1]) for start, end in pairwise(events) if start[0] == "start"]
    return max(sum(start <= moment < end for start, end in spans) for moment, _ in spans)


def test_an_array_of_twelve_is_cut_to_the_clusters_limit_and_four_run_at_once(together: Together) -> None:
    found, root = twice_of(together, arrays)
    assert found.first.code == 0, found.first.out
    assert found.after == ["completed"] * 12
    assert "12 completed" in found.first.out
    assert 1 < most_at_once(root) <= 4
    scripts = sorted(path.read_text() for path in root.glob("submissions/*/*_submission.sh"))
    assert sorted(
        "".join(line.split("=")[1] for line in text.splitlines() if "--array" in line) for text in scripts
    ) == [
        "0-3%4",
        "0-7%4",
    ]
    ids = {
        record.job_id.partition("_")[0]
        for run in list_runs(root)
        if (record := read_job(run.folder)) and record.job_id
    }
    assert len(ids) == 2, "MaxArraySize is 8"
    assert "0 submitted now" in found.second.out
    assert all([event for event, _, _ in diary(run)] == ["start", "completed"] for run in list_runs(root))


def test_two_nodes_with_two_tasks_train_as_one_process(
    together: Together, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mrbench.engine.train import train

    found, root = twice_of(together, several_nodes)
    assert found.first.code == 0, found.first.out
    assert "0 submitted now" in found.second.out
    run = only_run(root)
    assert run.provenance()["processes"] == 4
    alone = open_run(tmp_path, compose([*TINY, "schedule.iterations=20", "seed=1", CPU]))
    train(alone, alone.config())
    shared, single = losses(run), losses(alone)
    assert [line["iteration"] for line in shared] == [line["iteration"] for line in single]
    for mine, other in zip(shared, single, strict=True):
        assert mine == pytest.approx(other, rel=2e-3, abs=1e-4), mine["iteration"]


def losses(run: Run) -> list[dict[str, float]]:
    passing = ("kind", "time", "images_per_second", "peak_memory")
    return [{k: v for k, v in line.items() if k not in passing} for line in run.metrics() if line["kind"] == "train"]


def test_a_run_that_a_time_limit_cuts_short_goes_on_in_its_job_and_ends_bit_identical(
    together: Together, tmp_path: Path
) -> None:
    from mrbench.engine.train import train

    found, root = twice_of(together, time_limit)
    assert found.first.code == 0, found.first.out
    assert "0 submitted now" in found.second.out
    run = only_run(root)
    assert run.status().attempt >= 2, "it was cut short"
    alone = open_run(tmp_path, compose([*TINY, "schedule.iterations=150", "seed=2", CPU]))
    train(alone, alone.config())
    assert losses(run) == losses(alone)
    assert run.evaluation()["metrics"] == alone.evaluation()["metrics"]  # type: ignore[index]
    mine, other = (torch.load(r.checkpoint_dir / "final.pt", weights_only=True) for r in (run, alone))
    assert_same_tensors(mine, other)


def assert_same_tensors(mine: Any, other: Any) -> None:
    if isinstance(mine, torch.Tensor):
        assert torch.equal(mine, other)
    elif isinstance(mine, dict):
        assert mine.keys() == other.keys()
        for key in mine:
            assert_same_tensors(mine[key], other[key])
    else:
        assert mine == other


def test_a_run_that_gets_nowhere_within_its_time_limit_fails_instead_of_queueing_for_ever(together: Together) -> None:
    found, _ = twice_of(together, too_short_a_limit)
    assert found.first.code == 1
    assert found.between == ["failed"]
    assert "launcher.time=1 ends before one more iteration" in found.first.out
    assert "--retry" in found.second.out


def test_a_preempted_run_gives_way_and_goes_on_without_losing_an_iteration(together: Together) -> None:
    found, root = twice_of(together, preemption)
    assert found.first.code == 0, found.first.out
    run = only_run(root)
    assert [event for event, _, _ in diary(run)] == ["start", "preempted", "start", "completed"]
    assert_complete_in_order(run)
    assert "0 submitted now" in found.second.out


@pytest.mark.parametrize(("scenario", "state"), [(scancelled, "preempted"), (killed_task, "interrupted")])
def test_a_job_that_is_ended_from_outside_is_shown_and_the_next_sweep_completes_its_run_alone(
    together: Together, scenario: Any, state: str
) -> None:
    found, root = twice_of(together, scenario)
    assert found.first.code == 1
    assert f"1 completed, 1 {state}" in found.first.out
    assert f"1 completed, 1 {state}" in found.status.out
    assert "1 submitted now" in found.second.out
    assert found.second.code == 0
    assert found.after == ["completed"] * 2
    for run in list_runs(root):
        assert_complete_in_order(run, killed=scenario is killed_task)
        assert run.status().attempt == (2 if run.run_id == found.more["victim"] else 1)


def test_the_run_of_a_node_that_died_goes_on_on_another(together: Together) -> None:
    found, root = twice_of(together, killed_node)
    assert found.first.code == 0, found.first.out
    run = only_run(root)
    starts = [node for event, _, node in diary(run) if event == "start"]
    assert len(starts) == 2
    assert starts[0] == found.more["node"] != starts[1]
    assert_complete_in_order(run, killed=True)
    assert "0 submitted now" in found.second.out


def test_cancel_saves_what_runs_and_drops_what_waits(together: Together) -> None:
    found, root = twice_of(together, cancelled)
    assert found.first.code == 0
    assert found.between == ["pending", "preempted", "preempted"]
    assert sorted(found.more["counts"].values())[0] == 0
    assert found.second.code == 0, found.second.out
    assert "3 submitted now" in found.second.out
    for run in list_runs(root):
        assert_complete_in_order(run)


def test_a_submission_that_slurm_rejects_ends_with_its_reason_and_nothing_submitted(together: Together) -> None:
    found, _ = twice_of(together, rejected)
    assert found.first.code == 2
    said = found.first.out.strip().splitlines()
    assert len(said) == 2, found.first.out
    assert said[0].startswith("error: Slurm rejects the jobs: invalid partition specified: nope")
    assert "launcher.partition" in said[1]
    assert found.between == ["pending"] * 2
    assert found.second.code == 0, found.second.out
    assert found.after == ["completed"] * 2


def test_of_a_half_rejected_submission_nothing_is_left(together: Together) -> None:
    found: Any = together.result("half_rejected")
    assert "Invalid partition" in str(found["error"])
    assert JobState.ACTIVE not in found["states"].values()
    assert JobState.QUEUED not in found["states"].values()
    assert found["submissions"] == []
    assert all(not iterations(run) for run in list_runs(together.root("half_rejected")))


def test_without_accounting_squeue_and_the_records_do_and_it_is_said(together: Together) -> None:
    found, root = twice_of(together, no_accounting)
    assert found.first.code == 1
    assert "2 completed, 1 preempted" in found.first.out
    assert "2 completed, 1 preempted" in found.status.out
    assert "accounting is off" in found.first.out + found.status.out
    assert "1 submitted now" in found.second.out
    assert found.after == ["completed"] * 3
    for run in list_runs(root):
        assert_complete_in_order(run)
