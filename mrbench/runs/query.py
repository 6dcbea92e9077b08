"""What a person asks of runs: `model.norm=gn 'box/AP>30' seed=0..4`."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from mrbench.config.schema import RunConfig
from mrbench.config.suggest import did_you_mean, did_you_mean_of_own
from mrbench.errors import UserError
from mrbench.runs.listing import DAMAGED, FIELDS, MISSING, Entry, parse_scalar
from mrbench.runs.record import STATES
from mrbench.runs.state import INTERRUPTED

_CONDITION = re.compile(r"([A-Za-z_][\w./]*)\s*(!=|<=|>=|=|<|>)(.*)", re.DOTALL)
HOW = "Write KEY=VALUE, KEY=A,B, KEY=LOW..HIGH, KEY!=VALUE, KEY<VALUE, <=, > or >=."


@dataclass(frozen=True)
class Condition:
    """A name of `Entry.value`, an operator, and the values of which one must fit."""

    name: str
    operator: str
    values: tuple[str, ...]

    def holds(self, entry: Entry) -> bool:
        if self.name in ("study", "arm") and len(entry.places) > 1:
            found = [getattr(place, self.name) for place in entry.places]
            return any(self._fits(value) for value in found) if self.operator != "!=" else all(map(self._fits, found))
        return self._fits(entry.value(self.name))

    def _fits(self, value: Any) -> bool:
        value = None if value is MISSING else value
        same = _begins if self.name == "run" else _same
        if self.operator == "!=":
            return not any(same(value, wanted) for wanted in self.values)
        if self.operator == "=":
            return any(same(value, wanted) for wanted in self.values)
        return _compare(value, self.operator, self.values[0])


def is_condition(text: str) -> bool:
    return _CONDITION.fullmatch(text) is not None


def parse_condition(text: str) -> Condition:
    """Raises UserError where it cannot be read."""
    found = _CONDITION.fullmatch(text)
    if found is None:
        raise UserError(f"Cannot read the filter '{text}'", HOW)
    name, operator, value = found[1], found[2], found[3].strip()
    if not value:
        raise UserError(f"The filter '{text}' has no value", HOW)
    if operator in ("=", "!="):
        whole = value.startswith(("[", "{"))  # a list is one value
        return Condition(name, operator, (value,) if whole else tuple(v.strip() for v in value.split(",")))
    if _number(value) is None and name not in ("started", "updated", "ended", "when"):
        raise UserError(f"'{text}': {value} is not a number", HOW)
    return Condition(name, operator, (value,))


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _same(value: Any, wanted: str) -> bool:
    low, dots, high = wanted.partition("..")
    if dots and _number(low) is not None and _number(high) is not None:
        number = _number(value)
        return number is not None and float(low) <= number <= float(high)
    parsed = parse_scalar(wanted)
    if isinstance(value, str):
        return value in (wanted, parsed) or ("*" in wanted and fnmatchcase(value, wanted))
    return (type(value) is type(parsed) and value == parsed) or _number(value) == _number(parsed) is not None


def _begins(run_id: str, wanted: str) -> bool:
    """A run is meant by a beginning of its name or of its hash, as everywhere."""
    named = run_id.startswith(wanted) or run_id.rpartition("-")[2].startswith(wanted)
    return named or ("*" in wanted and fnmatchcase(run_id, wanted))


def _compare(value: Any, operator: str, wanted: str) -> bool:
    left: Any = _number(value)
    right: Any = _number(wanted)
    if right is None:  # a time in ISO 8601 sorts as text
        left, right = value, wanted
    if left is None or left is MISSING:
        return False
    return {"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[operator]


def select(entries: Iterable[Entry], conditions: Sequence[Condition]) -> list[Entry]:
    """Those for which all hold; the conditions that need no further file are asked first."""
    order = sorted(conditions, key=lambda c: 0 if c.name in FIELDS else 2 if "/" in c.name else 1)
    return [entry for entry in entries if all(condition.holds(entry) for condition in order)]


def check_names(names: Iterable[str], entries: Sequence[Entry]) -> None:
    """Raises UserError for a name that is no field, no key of this version, and in no run: with the nearest one."""
    for name in names:
        if name in FIELDS:
            continue
        if "/" in name:
            known = list(dict.fromkeys(metric for entry in entries for metric in entry.metrics))
            if known and name not in known:
                raise UserError(f"No run has the metric '{name}'", did_you_mean(name, known))
            continue
        from mrbench.config.compose import keys

        known = keys()
        if name not in known and all(entry.value(name) is MISSING for entry in entries):
            raise UserError(
                f"'{name}' is no key of the configuration and no column",
                did_you_mean(name, [*known, *FIELDS], f"Columns: {', '.join(FIELDS)}, metrics as box/AP."),
            )


def check_values(conditions: Iterable[Condition], entries: Sequence[Entry]) -> None:
    """Raises UserError for a value that no run can have where all that there can be are known: states, the choices of
    a key, studies and arms; with the nearest one."""
    for condition in conditions:
        if condition.operator not in ("=", "!="):
            continue
        known = _known(condition.name, entries)
        for wanted in condition.values if known else ():
            if any(_same(value, wanted) for value in known):
                continue
            if any(replace(condition, operator="=", values=(wanted,)).holds(entry) for entry in entries):
                continue  # another version's
            words = [str(value) for value in known if value is not None]
            what = f"No run has {condition.name}={wanted}"
            own = condition.name in ("study", "arm")
            raise UserError(what, (did_you_mean_of_own if own else did_you_mean)(wanted, words))


def _known(name: str, entries: Sequence[Entry]) -> list[Any]:
    """All values that a column or key may have; none where there are too many to know, or no run to ask."""
    if name == "state":
        return [*STATES, INTERRUPTED, DAMAGED]
    if name in ("study", "arm"):
        found = sorted({getattr(place, name) for entry in entries for place in entry.places})
        return [*found, None] if found else []
    node: Any = RunConfig
    *path, last = name.split(".")
    for part in path:
        section = getattr(node(), part, None)
        if not is_dataclass(section):
            return []
        node = type(section)
    own = next((f for f in fields(node) if f.name == last), None)
    return list(own.metadata.get("choices", ())) if own else []


def sort(entries: Sequence[Entry], by: Sequence[str]) -> list[Entry]:
    """By these names, the first one first; "-box/AP" from the highest. What has no value comes last."""
    found = list(entries)
    for name in reversed(by):
        falling = name.startswith("-")
        key = name.lstrip("-+")
        values = {id(entry): entry.value(key) for entry in found}
        there = [e for e in found if values[id(e)] not in (None, MISSING)]
        lacking = [e for e in found if values[id(e)] in (None, MISSING)]

        def order(entry: Entry, values: dict[int, Any] = values) -> tuple[bool, float, str]:
            number = _number(values[id(entry)])
            return (number is None, number or 0.0, "" if number is not None else str(values[id(entry)]))

        found = [*sorted(there, key=order, reverse=falling), *lacking]
    return found
