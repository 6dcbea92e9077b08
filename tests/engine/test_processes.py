"""Several processes train as one, and the end of one is noticed."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mrbench.config.compose import to_yaml
from mrbench.config.schema import RunConfig
from mrbench.engine.distributed import World, check_processes
from mrbench.engine.evaluate import evaluate_run
from mrbench.engine.train import train
from mrbench.errors import UserError
from mrbench.runs.record import Run, list_runs, open_run

NORMS = ("frozen_bn", "gn", "sync_bn")


def test_two_processes_with_half_the_batch_have_the_same_losses(
    tmp_path: Path, scripts: Path, tiny: Callable[..., RunConfig], every_proposal: tuple[str, ...]
) -> None:
    files = []
    for norm in NORMS:
        config = tiny(f"model.norm={norm}", "schedule.iterations=20", "optimizer=sgd", *every_proposal)
        files.append(tmp_path / f"{norm}.yaml")
        files[-1].write_text(to_yaml(config))
    found = []
    for processes in (1, 2):
        out = tmp_path / f"{processes}.json"
        command = [sys.executable, scripts / "losses_by_processes.py", str(processes), out, *files]
        subprocess.run([str(part) for part in command], check=True, timeout=180)
        found.append(json.loads(out.read_text()))
    for file in files:
        one, two = found[0][str(file)], found[1][str(file)]
        assert len(one) == len(two) == 20
        for a, b in zip(one, two, strict=True):
            assert list(a) == list(b)
            assert a == pytest.approx(b, abs=1e-4), file.stem
        assert one[0]["loss"] != pytest.approx(one[-1]["loss"], abs=1e-2), "it learns"


def test_a_process_that_dies_ends_the_run_which_then_resumes(
    tmp_path: Path, scripts: Path, overrides: tuple[str, ...], tiny: Callable[..., RunConfig], undisturbed: Run
) -> None:
    command = [sys.executable, str(scripts / "killed_train.py"), "train", "--root", str(tmp_path), *overrides]
    done = subprocess.run(
        [*command, "runtime.devices=2"],
        env={**os.environ, "MOMENT": "one-of-two"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1, done.stderr
    assert "process 1 of the run was ended by SIGKILL" in done.stderr
    (run,) = list_runs(tmp_path)
    error = run.status().error
    assert run.status().state == "failed"
    assert error is not None
    assert (error["kind"], error["rank"], error["exit_code"]) == ("process_died", 1, -signal.SIGKILL)
    train(run, tiny())
    losses = [line["loss"] for line in run.metrics() if line["kind"] == "train"]
    expected = [line["loss"] for line in undisturbed.metrics() if line["kind"] == "train"]
    assert losses == pytest.approx(expected, abs=0.05), "four iterations with two processes, the rest with one"


def test_evaluation_in_two_processes_gives_identical_numbers(
    tmp_path: Path, tiny: Callable[..., RunConfig], undisturbed: Run
) -> None:
    # 6 pictures in batches of 4: one process has 4, the other 2.
    config = tiny("runtime.devices=2", "runtime.evaluation_batch=4")
    run = open_run(tmp_path, config)
    weights = undisturbed.checkpoint_dir / "final.pt"
    one = undisturbed.evaluation()
    assert one is not None
    two = evaluate_run(run, config, weights=weights)
    assert two["metrics"] == one["metrics"]
    assert two["per_category"] == one["per_category"]
    assert two["images"] == 6
    assert run.detections_file().read_bytes() == undisturbed.detections_file().read_bytes()


def test_processes_that_torchrun_starts_join_one_run(
    tmp_path: Path, overrides: tuple[str, ...], undisturbed: Run
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, "-m", "mrbench", "train", "--root", str(tmp_path), *overrides]
    processes = [
        subprocess.Popen(command, env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(2)
    ]
    assert [process.wait(120) for process in processes] == [0, 0]
    (run,) = list_runs(tmp_path)
    assert run.status().state == "completed"
    assert run.provenance()["processes"] == 2
    losses = [line["loss"] for line in run.metrics() if line["kind"] == "train"]
    expected = [line["loss"] for line in undisturbed.metrics() if line["kind"] == "train"]
    assert losses == pytest.approx(expected, abs=0.05)


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
