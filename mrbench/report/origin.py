"""Where a study's runs come from: settings that tell its arms apart, and software and hardware that should not."""

from dataclasses import dataclass
from typing import Any

from mrbench.report.collect import NOT_SCIENCE, Arm, RunRecord, Study
from mrbench.report.table import Cell, Column, Row, Table
from mrbench.report.words import listed

RUNTIME = ("device", "devices", "threads")  # they change rounding, so a comparison should not mix them
HARMLESS = ("host",)  # told, but no cause for a warning


@dataclass(frozen=True)
class Fact:
    """One item of the environment: each value that was met, with the runs that had it."""

    name: str
    values: dict[str, tuple[RunRecord, ...]]

    @property
    def mixed(self) -> bool:
        return len(self.values) > 1


def _config(arm: Arm) -> dict[str, Any]:
    """The scientific part of the arm's configuration, as its first readable run has it."""
    config = next((run.config for run in arm.runs if run.config), {})
    return {key: value for key, value in config.items() if key.split(".")[0] not in NOT_SCIENCE}


def _show(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def settings(study: Study) -> Table:
    """One row for every setting in which an arm differs from the baseline."""
    columns = (
        Column("arm", ("arm",)),
        Column("setting", ("setting",)),
        Column(study.baseline, ("baseline",)),
        Column("this arm", ("value",)),
    )
    reference = _config(study.arm(study.baseline))
    rows = []
    for arm in study.arms:
        own = _config(arm)
        if not own or not reference or arm.name == study.baseline:
            continue
        for key in sorted(set(own) | set(reference)):
            first, second = (_show(found[key]) if key in found else "–" for found in (reference, own))
            if first != second:
                rows.append(Row(tuple(Cell(text, (text,)) for text in (arm.name, key, first, second))))
    return Table("settings", "Settings", columns, tuple(rows))


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
        **{f"runtime.{key}": _show(run.config.get(f"runtime.{key}")) for key in RUNTIME if run.config},
    }
    return {name: value for name, value in facts.items() if value}


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def environment(study: Study) -> Table:
    """The facts as a table; a mixed one says which arms had which value."""
    columns = (Column("what", ("what",)), Column("value", ("value",)))
    rows = []
    for fact in facts(study):
        text = _values(fact) if fact.mixed else next(iter(fact.values))
        mark = "too-few-seeds" if fact.mixed else ""
        rows.append(Row((Cell(fact.name, (fact.name,)), Cell(text, (text,))), mark=mark))
    return Table("environment", "Environment", columns, tuple(rows))


def _values(fact: Fact) -> str:
    """`2.12.0 (bn); 2.11.0 (gn and roi_pool)`: the rarest value first, the commonest without a long list of arms."""
    parts = []
    for value, runs in sorted(fact.values.items(), key=lambda item: len(item[1])):
        arms = list(dict.fromkeys(run.arm for run in runs))
        parts.append(f"{value} ({listed(arms) if len(arms) <= 3 else f'{len(arms)} other arms'})")
    return "; ".join(parts)


def warnings(study: Study) -> list[str]:
    """What was not the same for all runs and may move results or speed; empty where all is well."""
    lines = [f"{fact.name}: {_values(fact)}" for fact in facts(study) if fact.mixed and fact.name not in HARMLESS]
    images = {run.images for run in study.runs if run.images is not None}
    if len(images) > 1:
        lines.append(f"images evaluated: {', '.join(str(count) for count in sorted(images))}")
    return lines
