"""Under which conditions a study's runs were made: code, packages, hardware, and what of it was not the same."""

from dataclasses import dataclass
from typing import Any

from mrbench.report.collect import Study
from mrbench.report.run_record import RunRecord, show

RUNTIME = ("device", "devices", "threads")  # they change rounding, so a comparison should not mix them


@dataclass(frozen=True)
class Fact:
    """One item of the environment: each value that was met, with the runs that had it."""

    name: str
    values: dict[str, tuple[RunRecord, ...]]

    @property
    def mixed(self) -> bool:
        return len(self.values) > 1


def facts(study: Study) -> list[Fact]:
    """Code, packages, hardware and the runtime's settings, over all runs that recorded them."""
    found: dict[str, dict[str, list[RunRecord]]] = {}
    for run in study.runs:
        for name, value in _environment(run).items():
            found.setdefault(name, {}).setdefault(value, []).append(run)
    return [Fact(name, {value: tuple(runs) for value, runs in values.items()}) for name, values in found.items()]


def _environment(run: RunRecord) -> dict[str, str]:
    record = run.provenance
    if not record:
        return {}
    code, hardware, packages = (_dict(record.get(part)) for part in ("code", "hardware", "packages"))
    commit = str(code.get("commit") or "")[:12]
    change = code.get("uncommitted_sha256")
    memory = hardware.get("memory")
    gpus = hardware.get("gpus") or []
    facts = {
        "mrbench": " ".join(filter(None, [str(code.get("version") or ""), commit])),
        "uncommitted change": str(change)[:12] if change else "none",
        "python": str(record.get("python") or ""),
        **{str(name): str(version) for name, version in packages.items()},
        "platform": str(record.get("platform") or ""),
        "CPU": str(hardware.get("cpu") or ""),
        "cores": str(hardware.get("cores") or ""),
        "memory": f"{memory / 2**30:.0f} GiB" if isinstance(memory, int | float) else "",
        "GPUs": "; ".join(map(str, gpus)) if gpus else "none",
        "host": str(hardware.get("host") or ""),
        **{f"runtime.{key}": show(run.config.get(f"runtime.{key}")) for key in RUNTIME if run.config},
    }
    return {name: value for name, value in facts.items() if value}


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
