"""How a machine is divided among runs, against cases worked out by hand."""

from dataclasses import replace

import pytest

from mrbench.config.schema import RunConfig
from mrbench.config.schema_execution import LauncherConfig, RuntimeConfig
from mrbench.errors import UserError
from mrbench.launch.devices import Gpu, Slot, divide, short_of_memory, visible_gpus


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


GIB = 2**30
DRIVER = [
    Gpu("0", "GPU-8f1a", 80 * GIB, 79 * GIB),
    Gpu("1", "GPU-77c2", 80 * GIB, 30 * GIB),
    Gpu("2", "GPU-0", None, None),
]


@pytest.mark.parametrize(
    "gib,shared,short",
    [
        (None, False, ["gpu-1"]),  # another program has more than half of it
        (None, True, []),
        (20.0, False, []),
        (79.5, False, ["gpu-0", "gpu-1"]),
        (31.0, True, ["gpu-1"]),
        (0.0, False, []),
    ],
)
def test_a_run_begins_where_memory_is_free(
    gib: float | None, shared: bool, short: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mrbench.launch.devices.query_gpus", lambda: DRIVER)
    slots = [Slot("gpu-0", 0, shared, "GPU-8f"), Slot("gpu-1", 0, shared, "1"), Slot("gpu-2", 0, shared, "2")]
    found = short_of_memory(slots, gib)
    assert list(found) == short
    if short == ["gpu-1"] and gib is None:
        assert found["gpu-1"] == "GPU 1 has 30.0 GiB free; a run waits for 40.0 GiB there"


def test_a_gpu_is_one_device_by_its_number_and_by_its_uuid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mrbench.launch.devices.query_gpus", lambda: DRIVER)
    devices = []
    for names in ("0,1", "GPU-77,GPU-8f1a"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", names)
        devices.append({slot.device for slot in divide([config()]).places})
    assert devices[0] == devices[1]
