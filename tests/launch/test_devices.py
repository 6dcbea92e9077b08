"""How a machine is divided among runs, against cases worked out by hand."""

from dataclasses import replace
from pathlib import Path

import pytest

from mrbench.config.schema import LauncherConfig, RunConfig, RuntimeConfig
from mrbench.errors import UserError
from mrbench.launch.devices import divide, hold, visible_gpus
from mrbench.runs.lock import is_held


def config(devices: int = 1, device: str = "auto", parallel: int | None = None) -> RunConfig:
    return RunConfig(runtime=RuntimeConfig(devices=devices, device=device), launcher=LauncherConfig(parallel=parallel))


@pytest.mark.parametrize(
    "devices,gpus,cores,parallel,places,at_once,threads",
    [
        (1, "", 2, None, ["cpu-0", "cpu-1"], 2, 1),
        (1, "", 8, 2, ["cpu-0", "cpu-1"], 2, 4),
        (2, "", 8, None, ["cpu-0", "cpu-1", "cpu-2", "cpu-3"], 4, 1),
        (4, "", 2, None, ["cpu-0"], 1, 1),
        (1, "", 2, 5, [f"cpu-{k}" for k in range(5)], 5, 1),
        (1, "01", 16, None, ["gpu-0", "gpu-1"], 2, 8),
        (1, "01", 16, 1, ["gpu-0", "gpu-1"], 1, 16),
        (2, "0123", 16, None, ["gpu-0", "gpu-1", "gpu-2", "gpu-3"], 2, 4),
        (1, "35", 16, 4, ["gpu-3", "gpu-5", "gpu-3.1", "gpu-5.1"], 4, 4),
    ],
)
def test_slots(
    devices: int, gpus: str, cores: int, parallel: int | None, places: list[str], at_once: int, threads: int
) -> None:
    slots = divide([config(devices)], parallel, list(gpus), cores)
    assert [s.name for s in slots.places] == places
    assert (slots.parallel, slots.threads) == (at_once, threads)
    assert slots.needed(config(devices)) == (devices if gpus else 1)


def test_the_configuration_may_say_how_many_at_once() -> None:
    assert divide([config(parallel=3)], None, [], 8).parallel == 3
    assert divide([config(parallel=3)], 2, [], 8).parallel == 2


def test_runs_on_the_cpu_leave_the_gpus_alone() -> None:
    slots = divide([config(device="cpu")], None, ["0"], 2)
    assert [s.gpu for s in slots.places] == [None, None]


def test_more_gpus_than_there_are_is_a_mistake() -> None:
    with pytest.raises(UserError, match="has 2 GPUs"):
        divide([config(1), replace(config(4))], None, ["0", "1"], 8)


@pytest.mark.parametrize(
    "value,gpus", [("", []), ("-1", []), ("0,2", ["0", "2"]), ("1,-1,2", ["1"]), ("GPU-8f", ["GPU-8f"])]
)
def test_gpus_are_those_that_cuda_would_see(value: str, gpus: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert visible_gpus() == gpus


def test_a_slot_is_held_until_it_is_let_go(tmp_path: Path) -> None:
    path = tmp_path / "slots" / "gpu-0.lock"
    with hold([path]):
        assert is_held(path)
    assert not is_held(path)
