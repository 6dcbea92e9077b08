"""This machine's devices, counted without a framework, and their division into slots for runs."""

import fcntl
import math
import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from mrbench.config.schema import RunConfig
from mrbench.errors import UserError


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; none where there is no driver."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        names = [n.strip() for n in chosen.split(",")]
        # CUDA takes the names up to the first that is none, so "-1" and "" hide all
        end = next((i for i, n in enumerate(names) if n in ("", "-1")), len(names))
        return names[:end]
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
            capture_output=True, text=True, timeout=20, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip().isdigit()]


def cores() -> int:
    """The cores that this process may use: its affinity, and a container's quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            count = min(count, max(1, round(int(quota) / int(period))))
    return count


@dataclass(frozen=True)
class Slot:
    """A place for a run: a GPU, or a share of the cores where `gpu` is None."""

    name: str
    gpu: str | None = None

    def lock_file(self, root: Path) -> Path:
        return root / "slots" / f"{socket.gethostname()}-{self.name.replace('/', '_')}.lock"


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
    gpus = visible_gpus() if gpus is None else gpus
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
        places = [Slot(f"gpu-{g}{f'.{k}' if k else ''}", g) for k in range(sharing) for g in gpus]
    else:
        parallel = parallel or max(1, cpu_cores // devices)
        places = [Slot(f"cpu-{k}") for k in range(parallel)]
    return Slots(tuple(places), parallel, max(1, cpu_cores // (parallel * devices)))


@contextmanager
def hold(files: Sequence[Path]) -> Iterator[None]:
    """Holds slots for this process, waiting for a process that has them; dropped by the system when it dies.

    So a job that outlives its sweep still has its device, and a second sweep waits for it.
    """
    with ExitStack() as stack:
        for path in sorted(files):
            with suppress(OSError):  # a file system without locks: the pool's own count has to do
                path.parent.mkdir(parents=True, exist_ok=True)
                file = stack.enter_context(path.open("a"))
                fcntl.flock(file, fcntl.LOCK_EX)
        yield
