"""`--where model.norm=gn,bn`: which runs a report is of."""

from collections.abc import Sequence
from dataclasses import dataclass

from mrbench.errors import UserError
from mrbench.report.run_record import RunRecord, show


@dataclass(frozen=True)
class Rule:
    """`model.norm=gn,bn`: a key of the configuration, and the values that are wanted."""

    key: str
    values: tuple[str, ...]

    def holds(self, run: RunRecord) -> bool:
        return self.key in run.config and any(_same(show(run.setting(self.key)), value) for value in self.values)


def parse_rules(texts: Sequence[str]) -> tuple[Rule, ...]:
    """Raises UserError where a rule is not key=value."""
    rules = []
    for text in texts:
        key, equals, values = text.partition("=")
        if not (key.strip() and equals and values.strip()):
            raise UserError(f"--where {text}: not a rule", "Write key=value, or key=value,value: model.norm=gn,bn.")
        rules.append(Rule(key.strip(), tuple(value.strip() for value in values.split(","))))
    return tuple(rules)


def _same(one: str, other: str) -> bool:
    """Also 1e-4 and 0.0001."""
    try:
        return one == other or float(one) == float(other)
    except ValueError:
        return False


def told(rules: Sequence[Rule]) -> str:
    return " and ".join(f"{rule.key}={','.join(rule.values)}" for rule in rules)


def values_there(rules: Sequence[Rule], runs: Sequence[RunRecord]) -> str:
    """The values that there are, of each rule's key."""
    parts = []
    for rule in rules:
        values = sorted({show(run.setting(rule.key)) for run in runs if rule.key in run.config})
        shown = ", ".join(values[:8]) + (" ..." if len(values) > 8 else "")
        parts.append(f"There are {rule.key}={shown}.")
    return " ".join(parts)
