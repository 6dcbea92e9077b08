"""Where a study's runs come from: settings that tell its arms apart, and software and hardware that should not."""

from typing import Any

from mrbench.report.collect import Arm, Study
from mrbench.report.conditions import Fact, facts
from mrbench.report.run_record import show
from mrbench.report.table import Cell, Column, Row, Table
from mrbench.report.words import listed

HARMLESS = ("host",)  # told, but no cause for a warning
FINGERPRINT = "data.fingerprint"


def science(arm: Arm) -> dict[str, Any]:
    """The scientific part of the arm's configuration, as its first readable run has it, and of a data set without a
    name of its own the annotations' fingerprint, once a run has been started."""
    config, found = next(((run.config, run.science) for run in arm.runs if run.config), ({}, {}))
    known = (run.provenance["data_fingerprint"] for run in arm.runs if run.provenance.get("data_fingerprint"))
    if config.get("data.name") is None and (fingerprint := next(known, None)):
        return {**found, FINGERPRINT: fingerprint}
    return found


def settings(study: Study) -> Table:
    """One row for every setting in which an arm differs from the baseline."""
    columns = (
        Column("arm", ("arm",)),
        Column("setting", ("setting",)),
        Column(study.baseline, ("baseline",)),
        Column("this arm", ("value",)),
    )
    reference = science(study.arm(study.baseline))
    rows = []
    for arm in study.arms:
        own = science(arm)
        if not own or not reference or arm.name == study.baseline:
            continue
        unknown = {FINGERPRINT} - (own.keys() & reference.keys())  # of an arm that was not begun, or a named data set
        for key in sorted((own.keys() | reference.keys()) - unknown):
            first, second = (show(found[key]) if key in found else "–" for found in (reference, own))
            if first != second:
                rows.append(Row(tuple(Cell(text, (text,)) for text in (arm.name, key, first, second))))
    return Table("settings", "Settings", columns, tuple(rows))


def environment(study: Study) -> Table:
    """The facts as a table; a mixed one says which arms had which value."""
    columns = (Column("what", ("what",)), Column("value", ("value",)))
    rows = []
    for fact in facts(study):
        text = _values(fact) if fact.mixed else next(iter(fact.values))
        mark = "mixed" if fact.mixed else ""
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
