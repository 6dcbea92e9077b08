"""YAML that is checked as it is read: every mapping knows the lines of its keys, and mistakes are told with them."""

from collections.abc import Hashable, Iterator
from typing import Any

import yaml

from mrbench.config.suggest import did_you_mean
from mrbench.errors import UserError

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's, where there is one, is ten times as fast


class Mapping(dict[Any, Any]):
    """A mapping of the file; `lines` are those of its keys, counted from 1."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[Any, int] = {}


class Loader(_Base):
    """YAML's safe loader, for which a key that comes twice is an error instead of the last one winning."""

    def mapping(self, node: Any) -> Iterator[Mapping]:
        made = Mapping()
        yield made
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if isinstance(key, Hashable) and key in made.lines:
                raise UserError(f"'{key}' stands twice (line {line})", "Give each its own name, or remove one.")
            made.lines[key] = line
        made.update(self.construct_mapping(node))


Loader.add_constructor("tag:yaml.org,2002:map", Loader.mapping)


def line_of(found: Any, key: Any) -> str:
    """` (line 7)` where `key` is one of a file's mapping; else nothing."""
    line = getattr(found, "lines", {}).get(key)
    return f" (line {line})" if line else ""


def mapping(value: Any, where: str, known: tuple[str, ...] | None = None) -> Mapping:
    """`value` where it is a mapping, and has no other keys than `known`. Raises UserError."""
    if value is None:
        return Mapping()
    if not isinstance(value, Mapping):
        raise UserError(f"{where} is not a mapping of names to values")
    for key in value:
        if known is not None and key not in known:
            raise UserError(f"unknown key '{key}' in {where}{line_of(value, key)}", did_you_mean(str(key), known))
    return value


def text(found: Mapping, key: str) -> str:
    """The text under `key` on one line; empty where there is none. Raises UserError."""
    value = found.get(key)
    if value is not None and not isinstance(value, str):
        raise UserError(f"{key} is not a text{line_of(found, key)}")
    return " ".join((value or "").split())


def overrides(value: Any, where: str) -> tuple[str, ...]:
    """A list of overrides, or one of them alone. Raises UserError."""
    items = [] if value is None else value if isinstance(value, list) else [value]
    for item in items:
        if not isinstance(item, str) or "=" not in item:
            raise UserError(f"{where}: '{item}' is not an override", "Write a list of key=value, as [model.norm=bn].")
    return tuple(items)
