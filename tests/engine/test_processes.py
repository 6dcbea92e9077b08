"""Several processes train as one, and the end of one is noticed."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from mrbench.config.compose import changed_for_testing, to_yaml
from mrbench.config.schema import RunConfig
from mrbench.config.schema_execution import RuntimeConfig
from mrbench.data.loader import eval_loader
from mrbench.data.sources import open_split
from mrbench.engine.distributed import World, check_processes, process_group, world_from_environment
from mrbench.engine.evaluate import evaluate_run
from mrbench.engine.failures import ProcessDied, ProcessSilent
from mrbench.engine.train import train
from mrbench.errors import UserError
from mrbench.runs.record import Run, list_runs, open_run

TORCHRUN = (sys.executable, "-m", "torch.distributed.run")

Losses = list[dict[str, float]]  # of each iteration, by name

# The batch of the recipes, with pictures and a model as small as they go.
SIXTEEN = (
    "schedule.images_per_batch=16",
    "optimizer=sgd",
    "data.shapes.image_size=32",
    "data.shapes.diameters=[9,20]",
    "data.shapes.seed=3",
    "model.rpn.anchor_ratios=[1.0]",
    "model.rpn.samples=16",
    "model.rpn.pre_nms_train=20",
    "model.rpn.post_nms_train=16",
    "model.roi.samples=8",
    "model.pooler.mask_size=7",
)
# {name: (processes, parts into which each cuts its share)}
DIVISIONS = {"1 x 16": (1, 1), "2 x 8": (2, 1), "4 x 4": (4, 1), "1 x 4 x 4 parts": (1, 4)}
# Parts of a batch have statistics of their own, so sync_bn depends on them; its exchange needs two processes.
NORMS = {"frozen_bn": tuple(DIVISIONS), "gn": tuple(DIVISIONS), "sync_bn": ("1 x 16", "2 x 8")}
FORMATS = {
    "float64": ("schedule.iterations=20",),
    # A tenth of the learning rate, as under a warm-up.
    "float32": ("schedule.iterations=10", "schedule.warmup_iterations=20", "optimizer.lr=0.002"),
}


@pytest.fixture(scope="module")
def by_division(
    tmp_path_factory: pytest.TempPathFactory, scripts: Path, tiny: Callable[..., RunConfig]
) -> dict[tuple[str, str, str], Losses]:
    """{(format, norm, division): losses of a training of batches of 16}.

    Proposals are chosen and RoIs sampled as in any run. The learning rate is a run's in float64.
    """
    folder = tmp_path_factory.mktemp("by_division")
    jobs = {}
    for number_format, changes in FORMATS.items():
        for norm, divisions in NORMS.items():
            for division in divisions if number_format == "float64" else ("1 x 16", "2 x 8"):
                processes, parts = DIVISIONS[division]
                config = tiny(*SIXTEEN, *changes, f"model.norm={norm}", f"runtime.accumulate={parts}")
                file = folder / f"{number_format}-{norm}-{parts}.yaml"
                file.write_text(to_yaml(config))
                jobs[number_format, norm, division] = f"{processes}:{number_format}:{file}"
    out = folder / "losses.json"
    command = [sys.executable, scripts / "losses_by_processes.py", out, *jobs.values()]
    subprocess.run([str(part) for part in command], check=True, timeout=240)
    found = json.loads(out.read_text())
    return {key: found[job] for key, job in jobs.items()}


@pytest.mark.parametrize("norm", NORMS)
def test_two_processes_with_half_the_batch_have_the_same_losses(
    by_division: dict[tuple[str, str, str], Losses], norm: str
) -> None:
    """While the weights are young and move slowly, as under a warm-up. Later on float32 is no measure: a difference in
    the last bit reorders two scores that lie close, another proposal survives, and the losses part for good."""
    one, two = (by_division["float32", norm, division] for division in ("1 x 16", "2 x 8"))
    assert_same(one, two, iterations=10, within=1e-4)


@pytest.mark.parametrize(
    "norm, division",
    [(norm, division) for norm, all_of in NORMS.items() for division in all_of if division != "1 x 16"],
)
def test_nothing_but_rounding_tells_how_a_batch_of_16_was_divided(
    by_division: dict[tuple[str, str, str], Losses], norm: str, division: str
) -> None:
    """At a run's learning rate. In float64 scores that lie closer than the rounding hardly occur, so the same
    proposals survive, the same RoIs are sampled, and whatever really hung on the number of processes would show."""
    one = by_division["float64", norm, "1 x 16"]
    assert_same(one, by_division["float64", norm, division], iterations=20, within=1e-12)
    assert one[-1]["loss"] < one[0]["loss"] - 0.5, "it learns"


def assert_same(one: Losses, two: Losses, iterations: int, within: float) -> None:
    assert len(one) == len(two) == iterations
    for a, b in zip(one, two, strict=True):
        assert list(a) == list(b)
        assert a == pytest.approx(b, abs=within, rel=0)


@pytest.fixture(scope="module")
def two_nodes(tmp_path_factory: pytest.TempPathFactory, overrides: tuple[str, ...]) -> Run:
    """A tiny run of two processes, each started by the torchrun of a node of its own."""
    root = tmp_path_factory.mktemp("two_nodes")
    torchrun_on_two_nodes("-m", "mrbench", "train", "--root", root, *overrides)
    (run,) = list_runs(root)
    return run


def torchrun_on_two_nodes(*command: str | Path) -> list[str]:
    """What both printed. Both nodes are this machine; the processes meet at one port of it."""
    port = free_port()
    common = ("--nnodes=2", "--nproc-per-node=1", "--master-addr=127.0.0.1", f"--master-port={port}")
    nodes = [
        subprocess.Popen(
            [*TORCHRUN, *common, f"--node-rank={node}", *map(str, command)],
            env={**os.environ, "GLOO_SOCKET_IFNAME": "lo"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for node in range(2)
    ]
    printed = [node.communicate(timeout=180)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0]
    return printed


def free_port() -> int:
    """Below those that the system hands out by itself: nobody else gets it until it is used."""
    while True:
        with socket.socket() as free, suppress(OSError):
            free.bind(("127.0.0.1", port := random.SystemRandom().randrange(20000, 32000)))
            return port


def ended(moment: str, command: list[str | Path]) -> subprocess.CompletedProcess[str]:
    """A command of mrbench to which something happens at `moment` (killed_train.py)."""
    environment = {**os.environ, "MOMENT": moment, "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, timeout=180)


def test_two_nodes_of_torchrun_train_one_run(two_nodes: Run, undisturbed: Run) -> None:
    assert two_nodes.status().state == "completed"
    assert two_nodes.provenance()["processes"] == 2
    losses = [line["loss"] for line in two_nodes.metrics() if line["kind"] == "train"]
    expected = [line["loss"] for line in undisturbed.metrics() if line["kind"] == "train"]
    assert losses == pytest.approx(expected, abs=0.05)


def test_two_nodes_of_torchrun_evaluate_one_run(two_nodes: Run) -> None:
    written = two_nodes.evaluation()
    assert written is not None
    two_nodes.evaluation_file.unlink()
    root = two_nodes.folder.parents[1]
    main, other = torchrun_on_two_nodes("-m", "mrbench", "eval", two_nodes.run_id, "--root", root, "--json")
    again = json.loads(main)
    assert other == ""
    assert {**again, "seconds": None} == {**written, "seconds": None}
    assert two_nodes.evaluation() == again


def test_a_process_that_dies_ends_the_run_which_then_resumes_to_the_same_numbers(
    tmp_path: Path,
    scripts: Path,
    overrides: tuple[str, ...],
    tiny: Callable[..., RunConfig],
    two_nodes: Run,
    assert_same_result: Callable[[Run, Run], None],
) -> None:
    command = [sys.executable, scripts / "killed_train.py", "train", "--root", tmp_path, *overrides]
    done = ended("one-of-two", [*command, "runtime.devices=2"])
    assert done.returncode == 1, done.stderr
    assert "process 1 of the run was ended by SIGKILL" in done.stderr
    assert "Traceback" not in done.stderr
    (run,) = list_runs(tmp_path)
    error = run.status().error
    assert run.status().state == "failed"
    assert error is not None
    assert (error["kind"], error["rank"], error["exit_code"]) == ("process_died", 1, -signal.SIGKILL)
    train(run, tiny("runtime.devices=2"))
    assert run.status().attempt == 2
    assert_same_result(run, two_nodes)


# torchrun asks the process that is left to stop, as if it were for another reason.
@pytest.mark.parametrize("moment, dead", [("one-of-two-detecting", None), ("main-of-two", 0)])
def test_a_process_of_torchrun_that_dies_ends_the_run(
    tmp_path: Path, scripts: Path, overrides: tuple[str, ...], moment: str, dead: int | None
) -> None:
    port = f"--master-port={free_port()}"
    program = [scripts / "killed_train.py", "train", "--root", tmp_path, *overrides]
    done = ended(moment, [*TORCHRUN, "--nproc-per-node=2", port, *program])
    assert done.returncode != 0
    (run,) = list_runs(tmp_path)
    assert run.status().state == "failed", done.stderr
    assert run.status().error == {
        "kind": "process_died",
        "message": f"{'another process' if dead is None else 'process 0'} of the run is gone",
        "rank": dead,
        "exit_code": None,
    }


def test_torchrun_that_is_asked_to_stop_leaves_a_checkpoint(
    tmp_path: Path, overrides: tuple[str, ...], tiny: Callable[..., RunConfig]
) -> None:
    """It signals whole groups of processes, loaders' workers among them."""
    changes = ("schedule.iterations=2000", "evaluation.period=0", "runtime.num_workers=1")
    command = ("--nproc-per-node=2", f"--master-port={free_port()}", "-m", "mrbench", "train", "--root", str(tmp_path))
    run = open_run(tmp_path, tiny(*changes))
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"}
    job = subprocess.Popen([*TORCHRUN, *command, *overrides, *changes], env=environment)
    while run.status().iteration < 2:
        assert job.poll() is None
        time.sleep(0.1)
    job.terminate()
    assert job.wait(120) != 0
    status = run.status()
    assert status.state == "preempted"
    assert (run.checkpoint_dir / f"{status.iteration:08d}.pt").is_file()


def test_a_process_that_hangs_ends_the_run(tmp_path: Path, scripts: Path, overrides: tuple[str, ...]) -> None:
    command = [sys.executable, scripts / "killed_train.py", "train", "--root", tmp_path, *overrides]
    done = ended("one-of-two-hangs", [*command, "runtime.devices=2", "runtime.timeout=10"])
    assert done.returncode == 1, done.stderr
    (run,) = list_runs(tmp_path)
    error = run.status().error
    assert error is not None
    assert error["kind"] == "process_silent"
    assert "did not answer for 10 s (runtime.timeout)" in error["message"]


def test_a_process_that_dies_ends_an_evaluation_with_one_message(
    tmp_path: Path, scripts: Path, overrides: tuple[str, ...], undisturbed: Run
) -> None:
    weights = undisturbed.checkpoint_dir / "final.pt"
    command = [sys.executable, scripts / "killed_train.py", "eval", "--weights", weights, "--out", tmp_path / "out"]
    done = ended("one-of-two-detecting", [*command, *overrides, "runtime.devices=2"])
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "failed: process 1 of the run was ended by SIGKILL"
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


# Three processes share three batches of the ten pictures, and two pictures.
@pytest.mark.parametrize("images", [10, 2])
def test_three_processes_evaluate_to_identical_numbers(
    tmp_path: Path, tiny: Callable[..., RunConfig], undisturbed: Run, images: int
) -> None:
    weights = undisturbed.checkpoint_dir / "final.pt"
    config = tiny(f"data.shapes.val_images={images}", "runtime.evaluation_batch=4")
    runs = [open_run(tmp_path / name, config) for name in ("one", "three")]
    one = evaluate_run(runs[0], config, weights)
    three = evaluate_run(runs[1], changed_for_testing(config, ["runtime.devices=3"]), weights)
    assert one is not None
    assert one["images"] == images
    assert three == {**one, "seconds": three and three["seconds"]}
    assert runs[0].detections_file().read_bytes() == runs[1].detections_file().read_bytes()


def test_every_image_is_evaluated_once_by_however_many_processes(tiny: Callable[..., RunConfig]) -> None:
    config = tiny("data.shapes.val_images=10", "runtime.evaluation_batch=2")
    dataset = open_split(config.data, "val")
    for size in range(1, 13):
        shares = [
            [i for batch in eval_loader(dataset, config, rank, size) for i in batch.image_ids] for rank in range(size)
        ]
        assert sorted(i for share in shares for i in share) == sorted(image.id for image in dataset.images)


def test_tasks_of_a_slurm_step_know_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables as srun sets them (its manual, OUTPUT ENVIRONMENT VARIABLES): 2 nodes with 4 tasks each."""
    job = {"SLURM_JOB_ID": "1234567", "SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**job, "SLURM_JOB_NODELIST": "gpu[007-008]", "SLURM_JOB_NUM_NODES": "2"}.items():
        monkeypatch.setenv(name, value)
    assert world_from_environment() is None, "a batch script is no step"
    step = {"SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_ID": "0", "SLURM_PROCID": "6", "SLURM_LOCALID": "2"}
    for name, value in step.items():
        monkeypatch.setenv(name, value)
    world = world_from_environment()
    assert world is not None
    assert (world.rank, world.size, world.local_rank, world.local_size) == (6, 8, 2, 4)
    address, port = world.meeting.removeprefix("tcp://").split(":")
    assert address == "gpu007"
    assert 20000 <= int(port) < 60000
    monkeypatch.setenv("SLURM_STEP_ID", "1")
    other = world_from_environment()
    assert other is not None
    assert other.meeting != world.meeting, "steps of a job do not get in each other's way"
    monkeypatch.setenv("MASTER_ADDR", "10.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "29500")
    chosen = world_from_environment()
    assert chosen is not None
    assert chosen.meeting == "tcp://10.0.0.1:29500"


def test_tasks_of_a_slurm_step_exchange_tensors() -> None:
    program = """
import torch, torch.distributed as dist
from mrbench.config.schema_execution import RuntimeConfig
from mrbench.engine.distributed import process_group, world_from_environment
world = world_from_environment()
with process_group(world, torch.device("cpu"), RuntimeConfig()):
    total = torch.tensor(10 ** world.rank)
    dist.all_reduce(total)
print(int(total))
"""
    common = {"SLURM_JOB_ID": "1", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_JOB_NUM_NODES": "1"}
    common |= {"SLURM_JOB_NODELIST": "localhost", "MASTER_PORT": str(free_port()), "GLOO_SOCKET_IFNAME": "lo"}
    tasks = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            env={**os.environ, **common, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    assert [task.communicate(timeout=120)[0] for task in tasks] == ["11\n", "11\n"]


def test_nccl_without_gpus_is_refused(tiny: Callable[..., RunConfig]) -> None:
    with pytest.raises(UserError, match="backend=nccl needs GPUs"):
        check_processes(tiny("runtime.backend=nccl", "runtime.devices=2"), 2)


def test_a_batch_that_processes_cannot_share_is_refused(tiny: Callable[..., RunConfig]) -> None:
    config = tiny("schedule.images_per_batch=6")
    check_processes(config, 3)
    with pytest.raises(UserError, match="6 images cannot be shared evenly by 4") as caught:
        check_processes(config, 4)
    assert "runtime.devices=3" in caught.value.hint
    with pytest.raises(UserError, match="accumulate"):
        check_processes(tiny("runtime.accumulate=4"), 2)


def test_more_gpus_than_there_are_is_refused(tiny: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match="torch sees 1 GPU"):
        check_processes(tiny("runtime.device=cuda", "runtime.devices=2"), World().size)


@pytest.mark.parametrize(
    "said,kind",
    [
        ("wait timeout after 10000ms, keys: /default_pg/0//cpu//0", ProcessSilent),  # TCPStore: it never came
        ("[gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 10000ms for recv operation", ProcessSilent),
        ("[gloo/transport/tcp/pair.cc:538] Connection closed by peer [127.0.0.1]:41337", ProcessDied),
    ],
)
def test_a_process_that_never_came_is_told_from_one_that_is_gone(
    said: str, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise torch.distributed.DistBackendError(said)

    monkeypatch.setattr(torch.distributed, "init_process_group", never)
    world = World(rank=0, size=2)
    with pytest.raises(kind), process_group(world, torch.device("cpu"), RuntimeConfig(timeout=10)):
        pass
