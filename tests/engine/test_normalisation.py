"""What a loss is divided by where processes share a batch, and how they exchange gradients."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mrbench.config.compose import to_yaml
from mrbench.config.schema import RunConfig
from mrbench.data.loader import train_loader
from mrbench.data.sources import open_split
from mrbench.engine.step import TrainStep
from mrbench.modeling.build import build_detector

Tiny = Callable[..., RunConfig]
PLAIN = ("optimizer=sgd", "optimizer.lr=0.5", "optimizer.weight_decay=0", "schedule.warmup_iterations=0")
ARMS = {
    "global": (),
    "per_device": ("schedule.loss_normalisation=per_device",),
    "global_in_parts": ("runtime.accumulate=2",),
    "per_device_in_parts": ("schedule.loss_normalisation=per_device", "runtime.accumulate=2"),
    "fp16_gradients": ("precision.fp16_gradients=true",),
}


@pytest.fixture(scope="module")
def updated(tmp_path_factory: pytest.TempPathFactory, scripts: Path, tiny: Tiny) -> dict[str, list[float]]:
    """{arm: [loss, weight after one update]} of two processes, one with the sample 7.001, the other with 1, 2 and 6;
    the loss of a sample is itself times the weight, which begins at 1 and learns at a rate of 0.5."""
    folder = tmp_path_factory.mktemp("normalised")
    for name, changes in ARMS.items():
        (folder / f"{name}.yaml").write_text(to_yaml(tiny(*PLAIN, *changes)))
    out = folder / "out.json"
    command = [sys.executable, str(scripts / "normalised_by_two.py"), str(out), str(folder)]
    subprocess.run(command, check=True, timeout=120)
    found: dict[str, list[float]] = json.loads(out.read_text())
    return found


@pytest.mark.parametrize("how", ["", "_in_parts"])
def test_unequal_shares_weigh_by_sample_or_by_device(updated: dict[str, list[float]], how: str) -> None:
    """By hand: the mean of four samples is 16.001 / 4, the mean of the devices' means (7.001 / 1 + 9 / 3) / 2."""
    assert updated[f"global{how}"] == pytest.approx([4.00025, 1 - 0.5 * 4.00025], abs=1e-6)
    assert updated[f"per_device{how}"] == pytest.approx([5.0005, 1 - 0.5 * 5.0005], abs=1e-6)


def test_gradients_in_fp16_are_those_of_the_processes_rounded(updated: dict[str, list[float]]) -> None:
    """Of 2 * 7.001 / 4 = 3.5005 float16 keeps 3.5 (its neighbours are 2 ** -9 away), and of 4.5 all: the mean is 4."""
    assert updated["fp16_gradients"] == pytest.approx([4.00025, 1 - 0.5 * 4.0], abs=1e-6)


def test_one_process_is_normalised_the_same_either_way(tiny: Tiny) -> None:
    found = []
    for normalisation in ("global", "per_device"):
        config = tiny(f"schedule.loss_normalisation={normalisation}")
        torch.manual_seed(0)
        step = TrainStep(build_detector(config.model, 4), config, torch.device("cpu"))
        loader = train_loader(open_split(config.data, "train"), config)
        found.append([{k: float(v) for k, v in step(next(loader)).items()} for _ in range(3)])
    assert found[0] == found[1]
