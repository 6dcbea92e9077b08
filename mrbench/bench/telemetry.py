"""What the device did besides the work: clocks, temperature, power, energy, throttling, and who else was on it.

NVML is asked through `pynvml` (the package nvidia-ml-py, the extra `nvml`) where it is installed. Without it, and on
a CPU, only the host's clock is known.
"""

import os
import statistics
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from mrbench.engine.nvml import Gpu, find_gpu

# Bits of nvmlDeviceGetCurrentClocksEventReasons (nvml.h, "nvmlClocksEventReasons") that cost speed.
THROTTLING = {
    0x04: "the power limit",
    0x08: "a hardware slowdown",
    0x20: "the temperature (software)",
    0x40: "the temperature (hardware)",
    0x80: "the power brake",
}


@dataclass
class Telemetry:
    """What was seen while the blocks were timed; null or empty where nothing tells it. Clocks in MHz: low, median,
    high over one look a block (on a CPU one before and one after). Energy and power are of one device."""

    source: str | None  # "nvml", "/proc/cpuinfo"
    clock: list[float] | None = None  # of the SMs, or of the CPU's cores in the mean
    highest_clock: float | None = None  # that the device could have
    temperature: float | None = None  # highest, Celsius
    power: float | None = None  # mean over the blocks, watts: energy over time
    energy_joules: float | None = None  # of all blocks
    joules_per_image: float | None = None
    throttled: list[str] = field(default_factory=list)  # by what, in any block
    others: int | None = None  # processes of others on the GPU, before or after the blocks


class Observer(Protocol):
    """Looks at a device while blocks are timed."""

    def begin(self) -> None: ...
    def look(self) -> None: ...
    def end(self, seconds: float) -> Telemetry: ...


class CpuObserver:
    """The clock that Linux tells of the cores, before and after the blocks: with many cores asking takes time."""

    def __init__(self, cpuinfo: Path = Path("/proc/cpuinfo")) -> None:
        self.cpuinfo = cpuinfo
        self.clocks: list[float] = []

    def begin(self) -> None:
        self.clocks.clear()
        self._read()

    def look(self) -> None:
        pass

    def _read(self) -> None:
        with suppress(OSError, ValueError):
            lines = self.cpuinfo.read_text().splitlines()
            if found := [float(line.split(":")[1]) for line in lines if line.startswith("cpu MHz")]:
                self.clocks.append(statistics.fmean(found))

    def end(self, seconds: float) -> Telemetry:
        self._read()
        return Telemetry(str(self.cpuinfo) if self.clocks else None, _range(self.clocks))


class NvmlObserver:
    """Asks NVML about one GPU. What a card or driver does not tell is left out, never an error."""

    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu
        self.clocks: list[float] = []
        self.temperatures: list[float] = []
        self.reasons = 0
        self.energy: float | None = None
        self.others: int | None = None

    def begin(self) -> None:
        self.clocks, self.temperatures, self.reasons = [], [], 0
        self.others = self._others()
        self.energy = self.gpu.energy()

    def look(self) -> None:
        clock = self.gpu.ask("nvmlDeviceGetClockInfo", self.gpu.nvml.NVML_CLOCK_SM)
        temperature = self.gpu.ask("nvmlDeviceGetTemperature", self.gpu.nvml.NVML_TEMPERATURE_GPU)
        # The name before driver 535 was another.
        reasons = self.gpu.ask("nvmlDeviceGetCurrentClocksEventReasons")
        if reasons is None:
            reasons = self.gpu.ask("nvmlDeviceGetCurrentClocksThrottleReasons")
        self.clocks += [] if clock is None else [float(clock)]
        self.temperatures += [] if temperature is None else [float(temperature)]
        self.reasons |= reasons or 0

    def end(self, seconds: float) -> Telemetry:
        after = self.gpu.energy()
        joules = None if self.energy is None or after is None else after - self.energy
        highest = self.gpu.ask("nvmlDeviceGetMaxClockInfo", self.gpu.nvml.NVML_CLOCK_SM)
        others = [count for count in (self.others, self._others()) if count is not None]
        return Telemetry(
            "nvml",
            clock=_range(self.clocks),
            highest_clock=None if highest is None else float(highest),
            temperature=max(self.temperatures, default=None),
            power=None if joules is None or seconds <= 0 else joules / seconds,
            energy_joules=joules,
            throttled=[name for bit, name in THROTTLING.items() if self.reasons & bit],
            others=max(others, default=None),
        )

    def _others(self) -> int | None:
        found = self.gpu.ask("nvmlDeviceGetComputeRunningProcesses")
        if found is None:
            return None
        pids = [process.pid for process in found]
        # In a container NVML tells the host's numbers, among which ours is one that we do not know.
        return len(pids) - 1 if pids and os.getpid() not in pids else sum(pid != os.getpid() for pid in pids)


def observe_gpu(uuid: str) -> Observer | None:
    """What tells about the GPU with this UUID ("GPU-..."); None without pynvml, or where NVML does not know it."""
    gpu = find_gpu(uuid)
    return None if gpu is None else NvmlObserver(gpu)


def _range(values: list[float]) -> list[float] | None:
    return [min(values), statistics.median(values), max(values)] if values else None
