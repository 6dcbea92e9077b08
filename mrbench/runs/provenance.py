"""Where a result comes from: command, code, packages and hardware. Asks no framework, so it answers at once."""

import os
import platform
import shlex
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from mrbench.errors import UserError
from mrbench.runs import code
from mrbench.runs.files import write_json
from mrbench.runs.record import Run

PACKAGES = ("torch", "torchvision", "numpy", "pillow", "pycocotools", "hydra-core", "omegaconf", "submitit")


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def _packages() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _code() -> dict[str, Any]:
    """What runs, and what was submitted where that was something else."""
    found = code.describe()
    return {**found, "submitted": code.submitted_code()} if code.difference(found) else found


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _hardware() -> dict[str, Any]:
    gpus = _output("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
    return {
        "host": socket.gethostname(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": gpus.strip().splitlines() if gpus else [],
    }


def write(run: Run, found: dict[str, Any]) -> None:
    """provenance.json of this attempt. An earlier one's other code is kept in it, and the log says so."""
    try:
        before = run.provenance()
    except UserError:
        before = {}  # damaged; nothing of it is lost that is not written anew
    earlier = list(before.get("earlier_code") or [])
    then = before.get("code") or {}
    if then.get("source_sha256") not in (None, found["code"]["source_sha256"]):
        earlier.append(then)
        run.log(f"goes on with other code than before ({code.name(then)}): {code.name(found['code'])}")
    write_json(run.provenance_file, {**found, "earlier_code": earlier} if earlier else found)


def add(run: Run, **facts: Any) -> None:
    """More that this attempt has found out about itself."""
    write_json(run.provenance_file, {**run.provenance(), **facts})


def collect() -> dict[str, Any]:
    """Command, code version with its uncommitted change, packages, hardware (memory in bytes)."""
    return {
        "command": shlex.join(["mrbench", *sys.argv[1:]]),
        "code": _code(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": _packages(),
        "hardware": _hardware(),
    }
