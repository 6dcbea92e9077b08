"""This machine's devices, counted without a framework, and their division into slots for runs."""

import math
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from mrbench.config.schema import RunConfig
from mrbench.cores import cores
from mrbench.errors import UserError


def visible_gpus(there: "Sequence[Gpu] | None" = None) -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; none where there is no driver."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        names = [n.strip() for n in chosen.split(",")]
        # CUDA takes the names up to the first that is none, so "-1" and "" hide all
        end = next((i for i, n in enumerate(names) if n in ("", "-1")), len(names))
        return names[:end]
    return [gpu.index for gpu in (query_gpus() if there is None else there)]


@dataclass(frozen=True)
class Gpu:
    """A GPU as its driver sees it; memory in bytes, None where the driver does not say."""

    index: str
    uuid: str
    total: int | None
    free: int | None

    def is_called(self, name: str) -> bool:
        """Whether CUDA_VISIBLE_DEVICES means it by `name`: its index, or a beginning of its UUID."""
        return name == self.index or (name.startswith("GPU-") and self.uuid.startswith(name))


def query_gpus() -> list[Gpu]:
    """All GPUs that the driver shows; none where there is no `nvidia-smi`."""
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=index,uuid,memory.total,memory.free", "--format=csv,noheader,nounits"],
            capture_output=True, text=True, timeout=20, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return []
    found = []
    for line in done.stdout.splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) == 4 and parts[0].isdigit():
            total, free = (int(part) * 2**20 if part.isdigit() else None for part in parts[2:])
            found.append(Gpu(parts[0], parts[1], total, free))
    return found


@dataclass(frozen=True)
class Slot:
    """A place for a run: a GPU or a share of one, or a share of the cores where `gpu` is None.

    `device` is the same for all shares of a device, however CUDA_VISIBLE_DEVICES names it. `shared`: other runs may
    have other shares at the same time.
    """

    device: str = "cpu"
    share: int = 0
    shared: bool = True
    gpu: str | None = None

    @property
    def name(self) -> str:
        if self.gpu is None:
            return f"cpu-{self.share}"
        return f"gpu-{self.gpu}{f'.{self.share}' if self.share else ''}"


@dataclass(frozen=True)
class Slots:
    """A machine's places, how many runs they take at once, and the CPU threads of each process of a run."""

    places: tuple[Slot, ...]
    parallel: int
    threads: int

    @property
    def on_gpus(self) -> bool:
        return self.places[0].gpu is not None

    def needed(self, config: RunConfig) -> int:
        """A run takes one GPU for each of its processes, but one share of the cores for all of them."""
        return config.runtime.devices if self.on_gpus else 1


def divide(
    configs: Sequence[RunConfig],
    parallel: int | None = None,
    gpus: Sequence[str] | None = None,
    cpu_cores: int | None = None,
) -> Slots:
    """The slots for runs of `configs`: one run a GPU (or as many GPUs as a run has processes), or one a core.

    `parallel` sets how many runs there are at once; more than there are GPUs share them evenly. Raises UserError
    where a run wants more GPUs than there are.
    """
    there = query_gpus() if gpus is None else []
    gpus = visible_gpus(there) if gpus is None else gpus
    cpu_cores = cores() if cpu_cores is None else cpu_cores
    devices = max((c.runtime.devices for c in configs), default=1)
    parallel = parallel or next((c.launcher.parallel for c in configs if c.launcher.parallel), None)
    if gpus and not all(c.runtime.device == "cpu" for c in configs):
        if devices > len(gpus):
            raise UserError(
                f"runtime.devices={devices}, but this machine has {len(gpus)} GPU{'s' * (len(gpus) > 1)} to use",
                f"Set runtime.devices={len(gpus)}, and runtime.accumulate to keep the batch in memory.",
            )
        parallel = parallel or len(gpus) // devices
        sharing = max(1, math.ceil(parallel * devices / len(gpus)))
        places = [
            Slot(f"gpu-{next((t.uuid for t in there if t.is_called(g)), g)}", share, sharing > 1, g)
            for share in range(sharing)
            for g in gpus
        ]
    else:
        parallel = parallel or max(1, cpu_cores // devices)
        places = [Slot(share=share) for share in range(parallel)]
    return Slots(tuple(places), parallel, max(1, cpu_cores // (parallel * devices)))


def short_of_memory(slots: Sequence[Slot], gib: float | None) -> dict[str, str]:
    """device -> a word on it, for those of `slots` that have not `gib` GiB of memory free.

    None asks for half of a GPU's memory where a run has it to itself, because less says that another program is at
    work on it, and for nothing where runs share it. What the driver does not say is not asked for.
    """
    there = query_gpus() if any(slot.gpu for slot in slots) else []
    short = {}
    for slot in slots:
        gpu = next((g for g in there if slot.gpu and g.is_called(slot.gpu)), None)
        if gpu is None or gpu.free is None or gpu.total is None:
            continue
        wanted = gib * 2**30 if gib is not None else 0 if slot.shared else gpu.total / 2
        if gpu.free < wanted:
            free, needs = gpu.free / 2**30, wanted / 2**30
            short[slot.device] = f"GPU {slot.gpu} has {free:.1f} GiB free; a run waits for {needs:.1f} GiB there"
    return short
