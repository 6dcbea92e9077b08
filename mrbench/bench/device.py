"""What measuring needs of a device: waiting for it, its clock, its memory, and what it can do at best."""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
import torch.distributed as dist

from mrbench.bench.measure import Stopwatch
from mrbench.bench.process import peak_resident
from mrbench.bench.telemetry import CpuObserver, Observer, observe_gpu
from mrbench.engine.distributed import World
from mrbench.engine.nvml import gpu_uuid
from mrbench.engine.precision import AUTOCAST

SIDES = {"cpu": 1024, "cuda": 8192}  # of the matrices whose product is the peak
COPIED = {"cpu": 1 << 26, "cuda": 1 << 28}  # bytes
PEAK_SECONDS = 0.5
AT_ONCE = {"cpu": 1, "cuda": 10}  # queued before they are waited for: waiting takes as long as a tenth of a copy


class EventStopwatch(Stopwatch):
    """The GPU's own clock, between two events on the current stream."""

    name = "device events"

    def __init__(self, device: torch.device) -> None:
        super().__init__(lambda: synchronise(device))
        self.first, self.last = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def begin(self) -> None:
        self.synchronise()
        self.first.record()

    def end(self, look: Callable[[], object] = lambda: None) -> float:
        self.last.record()  # so that looking costs nothing where the GPU is done already
        look()
        self.synchronise()
        return self.first.elapsed_time(self.last) / 1000


def stopwatch(device: torch.device, world: World) -> Stopwatch:
    """With several processes the host's clock, read when all of them are done: the slowest counts."""
    if world.size > 1:
        return Stopwatch(lambda: _all_done(device))
    return EventStopwatch(device) if device.type == "cuda" else Stopwatch()


def _all_done(device: torch.device) -> None:
    synchronise(device)
    dist.barrier()


def synchronise(device: torch.device) -> None:
    """Wait for everything that was queued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def observer(device: torch.device) -> Observer | None:
    """None for a GPU about which NVML cannot be asked."""
    if device.type == "cpu":
        return CpuObserver()
    return observe_gpu(gpu_uuid(device))


def reset_peak(device: torch.device) -> None:
    """Count peaks of memory from here on."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    # Where it cannot be reset, the peak is that of the whole process, building the network included.
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets the peak resident set size


def peak_memory(device: torch.device) -> dict[str, int]:
    """Bytes at the peak: allocated and reserved by torch on a GPU, resident for the whole process on a CPU."""
    if device.type == "cuda":
        return {
            "allocated": torch.cuda.max_memory_allocated(device),
            "reserved": torch.cuda.max_memory_reserved(device),
        }
    resident = peak_resident("self")
    return {} if resident is None else {"resident": resident}


def peak_flops(precision: str, device: torch.device) -> float:
    """Floating point operations a second of a product of square matrices in `precision`, 2 n^3 each."""
    side, kind = SIDES[device.type], AUTOCAST.get(precision, torch.float32)
    a, b = (torch.randn(side, side, device=device).to(kind) for _ in range(2))
    out = torch.empty_like(a)
    return 2 * side**3 * _rate(lambda: torch.mm(a, b, out=out), device)


def peak_copy(device: torch.device) -> float:
    """Bytes read and written a second in copying within the device's memory."""
    source = torch.zeros(COPIED[device.type], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * len(source) * _rate(lambda: target.copy_(source), device)


def _rate(work: Callable[[], object], device: torch.device) -> float:
    """How often a second `work` is done, the best of some rounds: nothing is slower than it must be by chance."""
    work()
    synchronise(device)
    count, best, begin = AT_ONCE[device.type], 0.0, time.perf_counter()
    while time.perf_counter() - begin < PEAK_SECONDS or not best:
        start = time.perf_counter()
        for _ in range(count):
            work()
        synchronise(device)
        best = max(best, count / (time.perf_counter() - start))
    return best
