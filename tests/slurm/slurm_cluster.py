"""A throw-away Slurm cluster for tests: how they start it, use it and disturb it."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from mrbench.runs.record import Run, list_runs

HERE = Path(__file__).parent
PATIENCE = 400.0
COMMANDS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "ip", "nsenter", "unshare")
ACCOUNTING = ("mariadbd", "slurmdbd", "sacctmgr")


def why_not() -> str | None:
    """What this machine lacks for a cluster."""
    if os.name != "posix" or os.geteuid() != 0:
        return "a Slurm cluster for tests needs root"
    missing = [name for name in (*COMMANDS, *ACCOUNTING) if shutil.which(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)}; tests/slurm/cluster-up --install installs what is missing"
    if subprocess.run(["unshare", "--net", "--uts", "--mount", "true"], capture_output=True).returncode:
        return "this system gives no network namespaces"
    return None


@dataclass
class Done:
    """A command's end. `out` holds both its streams."""

    code: int
    out: str


@dataclass
class Cluster:
    """A running cluster, and how the tests use it."""

    state: Path
    settings: dict[str, str] = field(default_factory=dict)

    def up(self) -> None:
        subprocess.run(
            [str(HERE / "cluster-up"), str(self.state)], env={**os.environ, **self.settings}, check=True, timeout=300
        )

    def down(self) -> None:
        subprocess.run([str(HERE / "cluster-down"), "--purge", str(self.state)], check=True, timeout=300)

    def environment(self, job: str = "slow") -> dict[str, str]:
        return {
            **os.environ,
            "SLURM_CONF": str(self.state / "etc" / "slurm.conf"),
            "PYTHONPATH": str(HERE),
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "COLUMNS": "200",
            "JOB": job,
        }

    def call(self, *command: str) -> Done:
        done = subprocess.run(
            command,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
        )
        return Done(done.returncode, done.stdout)

    def sweep(self, root: Path, *arguments: str, job: str = "slow") -> Done:
        """`mrbench sweep --on slurm`, waited for."""
        process = self.begin(root, *arguments, job=job)
        out, _ = process.communicate(timeout=PATIENCE)
        return Done(process.returncode, out)

    def begin(self, root: Path, *arguments: str, job: str = "slow") -> "subprocess.Popen[str]":
        """The same, not waited for."""
        return subprocess.Popen(
            [sys.executable, str(HERE / "driver.py"), *arguments, "--on", "slurm", "--root", str(root)],
            env=self.environment(job),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def status(self, root: Path, study: str) -> Done:
        command = [sys.executable, str(HERE / "driver.py"), study, "--status", "--root", str(root)]
        return self.call(*command)

    def kill_node(self, name: str) -> None:
        """All its processes at once, as when its power is gone."""
        (space,) = [path.name for path in Path("/run/netns").glob(f"*-{name}") if self._is_ours(path.name)]
        for _ in range(5):
            found = subprocess.run(["ip", "netns", "pids", space], capture_output=True, text=True, check=True)
            if not found.stdout.split():
                return
            for pid in found.stdout.split():
                subprocess.run(["kill", "-KILL", pid], capture_output=True)
            time.sleep(0.2)

    def _is_ours(self, space: str) -> bool:
        found = subprocess.run(["cksum"], input=str(self.state).encode(), capture_output=True, check=True)
        return space.startswith(f"mrs{int(found.stdout.split()[0]) % 1048576:05x}-")


def until(holds: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"never happened: {what}"
        time.sleep(0.2)


def states(root: Path) -> list[str]:
    return sorted(run.status().state for run in list_runs(root))


def only_run(root: Path) -> Run:
    (run,) = list_runs(root)
    return run


def iterations(run: Run) -> list[int]:
    path = run.folder / "iterations.txt"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def diary(run: Run) -> list[tuple[str, float, str]]:
    """(event, time, node) of what paced.slow did."""
    path = run.folder / "diary.txt"
    lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
    return [(event, float(moment), node) for event, moment, node in lines]


class Together:
    """Scenarios that mostly wait for Slurm, begun side by side the first time that one of them is asked for."""

    def __init__(self) -> None:
        self._scenarios: dict[str, tuple[Callable[[Cluster, Path], object], Cluster, Path]] = {}
        self._futures: dict[str, Future[object]] = {}

    def add(self, scenario: Callable[[Cluster, Path], object], cluster: Cluster, root: Path) -> None:
        self._scenarios[scenario.__name__] = (scenario, cluster, root)

    def root(self, name: str) -> Path:
        return self._scenarios[name][2]

    def result(self, name: str) -> object:
        """Of a scenario. Raises what it raised."""
        if not self._futures:
            pool = ThreadPoolExecutor(len(self._scenarios))
            for key, (scenario, *arguments) in self._scenarios.items():
                self._futures[key] = pool.submit(scenario, *arguments)
        return self._futures[name].result(timeout=2 * PATIENCE)
