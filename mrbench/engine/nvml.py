"""What NVML tells of GPUs, asked from the host: a look costs no wait for the device.

It is asked through `pynvml` (the package nvidia-ml-py, the extra `nvml`) where that is installed.
"""

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # whoever reads a benchmark's record answers without torch
    import torch

    from mrbench.engine.distributed import World


class Gpu:
    """One GPU. What a card or driver does not tell is None, never an error."""

    def __init__(self, nvml: Any, uuid: str) -> None:
        """nvml: the module `pynvml`. Raises its NVMLError where there is no such GPU."""
        self.nvml = nvml
        nvml.nvmlInit()
        self.handle = nvml.nvmlDeviceGetHandleByUUID(uuid)

    def ask(self, name: str, *arguments: Any) -> Any:
        function = getattr(self.nvml, name, None)
        if function is None:
            return None
        try:
            return function(self.handle, *arguments)
        except self.nvml.NVMLError:
            return None

    def energy(self) -> float | None:
        """Joules since the driver was loaded."""
        millijoules = self.ask("nvmlDeviceGetTotalEnergyConsumption")
        return None if millijoules is None else millijoules / 1000


def find_gpu(uuid: str) -> Gpu | None:
    """The GPU with this UUID ("GPU-..."); None without pynvml, or where NVML does not know it."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        return Gpu(nvml, uuid)
    except nvml.NVMLError:
        return None


def gpu_uuid(device: "torch.device | int") -> str:
    import torch

    return f"GPU-{torch.cuda.get_device_properties(device).uuid}"


def run_gpus(device: "torch.device", world: "World") -> list[Gpu]:
    """The GPUs of all processes of a run on one machine; empty where one of them cannot be asked, on a CPU, and over
    several machines, of which a process sees only its own."""
    if device.type != "cuda" or world.size != world.local_size:
        return []
    places = range(world.size) if world.size > 1 else [device]
    found = [find_gpu(gpu_uuid(place)) for place in places]
    return [gpu for gpu in found if gpu is not None] if None not in found else []


class EnergyMeter:
    """Joules that GPUs took since the meter was made, on top of `before`: what earlier attempts took."""

    def __init__(self, gpus: Sequence[Gpu], before: float | None) -> None:
        self._gpus = gpus
        self._start = self._read()
        self._before = before or 0.0

    def _read(self) -> float | None:
        values = [gpu.energy() for gpu in self._gpus]
        known = [value for value in values if value is not None]
        return sum(known) if known and len(known) == len(values) else None

    def joules(self) -> float | None:
        """None where a GPU does not tell."""
        now = self._read()
        return None if now is None or self._start is None else self._before + now - self._start
