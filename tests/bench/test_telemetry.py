"""What NVML tells of a GPU, from a module that stands in for it, and what is warned about."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mrbench.bench import device
from mrbench.bench.load import gpu_state
from mrbench.bench.matrix import Case
from mrbench.bench.record import Measurement
from mrbench.bench.session import suspicions
from mrbench.bench.telemetry import CpuObserver, NvmlObserver, Telemetry, observe_gpu
from mrbench.engine.nvml import EnergyMeter, Gpu


class NVMLError(Exception):
    pass


class FakeNvml:
    """A GPU whose readings are lists, used up one by one; a reading that is missing is not supported."""

    NVML_CLOCK_SM, NVML_TEMPERATURE_GPU = 1, 0
    NVMLError = NVMLError

    def __init__(self, **readings: list[Any]) -> None:
        self.readings = readings
        self.asked: list[tuple[Any, ...]] = []

    def nvmlInit(self) -> None: ...

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if uuid != "GPU-1":
            raise NVMLError("not found")
        return "handle"

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("nvmlDeviceGet"):
            raise AttributeError(name)

        def answer(*arguments: Any) -> Any:
            assert arguments[0] == "handle"
            self.asked.append((name, *arguments[1:]))
            readings = self.readings.get(name.removeprefix("nvmlDeviceGet"))
            if not readings:
                raise NVMLError("not supported")
            return readings.pop(0)

        return answer


def processes(*pids: int) -> list[Any]:
    return [SimpleNamespace(pid=pid, usedGpuMemory=None) for pid in pids]


def observed(nvml: FakeNvml, blocks: int = 3, seconds: float = 2.0) -> Telemetry:
    observer = NvmlObserver(Gpu(nvml, "GPU-1"))
    observer.begin()
    for _ in range(blocks):
        observer.look()
    return observer.end(seconds)


def warnings_about(seen: Telemetry) -> list[str]:
    return suspicions(Measurement(Case("train", "small", "fp32", 2, [64, 64]), "measured", telemetry=seen))


def test_clock_temperature_power_and_energy_of_the_blocks() -> None:
    nvml = FakeNvml(
        ClockInfo=[1980, 1755, 1965],
        MaxClockInfo=[1980],
        Temperature=[61, 66, 64],
        TotalEnergyConsumption=[5_000_000, 6_200_000],
    )
    seen = observed(nvml)
    assert seen.clock == [1755, 1965, 1980]
    assert seen.highest_clock == 1980
    assert seen.temperature == 66
    assert seen.energy_joules == 1200  # millijoules
    assert seen.power == 600  # in 2 s
    assert ("nvmlDeviceGetClockInfo", FakeNvml.NVML_CLOCK_SM) in nvml.asked


@pytest.mark.parametrize(
    "reasons, words",
    [
        ([0x04], "the power limit"),
        ([0x01, 0x40, 0x01], "the temperature (hardware)"),
        ([0x20], "the temperature (software)"),
        ([0x08], "a hardware slowdown"),
        ([0x80], "the power brake"),
    ],
)
@pytest.mark.parametrize("call", ["CurrentClocksEventReasons", "CurrentClocksThrottleReasons"])
def test_throttling_in_any_block_is_warned_about(reasons: list[int], words: str, call: str) -> None:
    seen = observed(FakeNvml(**{call: list(reasons)}), blocks=len(reasons))
    [warning] = warnings_about(seen)
    assert warning.startswith("the GPU was throttled by")
    assert seen.throttled
    assert seen.throttled[0] == words


def test_an_idle_or_user_set_clock_is_no_throttling() -> None:
    seen = observed(FakeNvml(CurrentClocksEventReasons=[0x1 | 0x2, 0x10, 0x100]))
    assert seen.throttled == []
    assert warnings_about(seen) == []


@pytest.mark.parametrize(
    "before, after, others",
    [
        (processes(os.getpid()), processes(os.getpid()), 0),
        (processes(os.getpid()), processes(os.getpid(), 7, 8), 2),  # came meanwhile
        (processes(7, os.getpid()), processes(os.getpid()), 1),  # was there
        (processes(7), processes(7), 0),  # in a container: we, by the host's number
        (processes(7, 8), processes(7, 8), 1),
        ([], [], 0),
    ],
)
def test_other_processes_on_the_gpu_are_warned_about(before: list[Any], after: list[Any], others: int) -> None:
    seen = observed(FakeNvml(ComputeRunningProcesses=[before, after]))
    assert seen.others == others
    told = warnings_about(seen)
    word = "process" if others == 1 else "processes"
    assert told == ([f"{others} other {word} had the GPU as well"] if others else [])


def test_a_card_that_tells_nothing_is_measured_all_the_same() -> None:
    assert observed(FakeNvml()) == Telemetry("nvml")
    assert warnings_about(Telemetry("nvml")) == []


def test_without_the_module_or_the_gpu_there_is_no_observer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert observe_gpu("GPU-1") is None
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml())  # type: ignore[arg-type]
    assert observe_gpu("GPU-2") is None
    assert isinstance(observe_gpu("GPU-1"), NvmlObserver)


def test_the_clock_of_the_cores(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\ncpu MHz\t\t: 2000.0\nprocessor : 1\ncpu MHz\t\t: 3000.0\n")
    observer = CpuObserver(cpuinfo)
    observer.begin()
    cpuinfo.write_text("cpu MHz\t\t: 2100.0\n")
    assert observer.end(1.0).clock == [2100, 2300, 2500]
    silent = CpuObserver(tmp_path / "none")
    silent.begin()
    assert silent.end(1.0) == Telemetry(None)


def test_energy_of_a_run_is_that_of_all_its_gpus_on_top_of_earlier_attempts() -> None:
    """Two GPUs take 2 J and 3 J after an attempt that took 10 J; NVML counts millijoules from an hour of its own."""
    first, second = FakeNvml(TotalEnergyConsumption=[7000, 9000]), FakeNvml(TotalEnergyConsumption=[100, 3100])
    meter = EnergyMeter([Gpu(first, "GPU-1"), Gpu(second, "GPU-1")], 10.0)
    assert meter.joules() == pytest.approx(15.0)


def test_energy_is_unknown_where_a_gpu_does_not_tell() -> None:
    told = Gpu(FakeNvml(TotalEnergyConsumption=[1000, 2000]), "GPU-1")
    assert EnergyMeter([told, Gpu(FakeNvml(), "GPU-1")], 10.0).joules() is None
    assert EnergyMeter([], None).joules() is None


def test_the_driver_is_asked_for_the_gpu_that_torch_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """nvidia-smi counts GPUs by their place on the bus, CUDA the fastest first."""
    program = tmp_path / "nvidia-smi"
    program.write_text('#!/bin/sh\n[ "$*" = "${*%-i GPU-1}" ] && exit 6\necho "7, 1024, 1980, 41"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    wanted = {"utilization.gpu": 7, "memory.used": 1024, "clocks.sm": 1980, "temperature.gpu": 41}
    assert gpu_state("GPU-1") == wanted
    assert gpu_state("GPU-2") is None


def test_what_is_asked_of_a_gpu_is_asked_after_the_last_event(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    event = SimpleNamespace(record=lambda: done.append("event"), elapsed_time=lambda _last: 1500.0)
    monkeypatch.setattr(torch.cuda, "Event", lambda enable_timing: event)
    monkeypatch.setattr(device, "synchronise", lambda _device: done.append("wait"))
    watch = device.EventStopwatch(torch.device("cuda"))
    watch.begin()
    assert watch.end(lambda: done.append("look")) == 1.5
    assert done == ["wait", "event", "event", "look", "wait"]
