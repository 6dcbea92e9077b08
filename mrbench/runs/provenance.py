"""Where a result comes from: command, code, packages and hardware. Asks no framework, so it answers at once."""

import hashlib
import os
import platform
import shlex
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from mrbench import __version__

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
    """The commit of the clone that this package runs from, and what differs from it; nothing for a wheel."""
    top = str(Path(__file__).resolve().parents[2])
    if _output("git", "-C", top, "ls-files", "--error-unmatch", "mrbench/__init__.py") is None:
        return {"version": __version__}
    commit = (_output("git", "-C", top, "rev-parse", "HEAD") or "").strip() or None
    change = _output("git", "-C", top, "diff", "HEAD", "--", "mrbench", "conf") or ""
    return {
        "version": __version__,
        "commit": commit,
        "uncommitted_change": change or None,
        "uncommitted_sha256": hashlib.sha256(change.encode()).hexdigest() if change else None,
    }


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
