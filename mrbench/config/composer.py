"""Configurations that share their groups: Hydra composes the groups once, and each one's values are put in."""

import re
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mrbench.config.compose import compose_by_hydra, compose_node, finished, groups, parse
from mrbench.config.schema import RunConfig
from mrbench.errors import UserError

_LINK = re.compile(r"\$\{([a-z_]\w*(?:\.\w+)*)\}")  # a reference to another key, as ${model.norm}
# key=1, key=-0.5, key=4e-5: what Hydra's grammar reads as an int or a float
_SIMPLE = re.compile(
    r"([A-Za-z_]\w*(?:\.\w+)*)=(?:(?P<whole>-?(?:0|[1-9]\d*))|(?P<float>-?(?:0|[1-9]\d*)(?:\.\d+|e-?\d+)))"
)
_SCALARS = (bool, int, float, str, type(None))


def compose(overrides: Sequence[str] = (), config_dir: Path | None = None) -> RunConfig:
    """The configuration that `overrides` ask for, on top of conf/config.yaml, with its schedule fitted to its batch.

    `config_dir` is a folder with groups of the user's own, which add to those of conf/ (and win over them).
    Raises UserError for an unknown key or choice, a value of the wrong type, or one out of range.
    """
    return (_shared() if config_dir is None else Composer(config_dir)).compose(overrides)


class _NeedsHydra(Exception):
    """What was asked for is beyond the short way."""


@dataclass(frozen=True)
class _Template:
    """What a choice of groups composes to: `config` with its references followed, and `links`, key -> the key that it
    refers to."""

    config: RunConfig
    links: dict[str, str]


class Composer:
    """Composes as `compose_by_hydra` does, with the same results and the same errors.

    Overrides that set values (key=value) cost some microseconds each; a choice of groups (`recipe=...`, `model=...`)
    that was not asked for before costs one composition by Hydra, and so does an override that sets more than a value.
    """

    def __init__(self, config_dir: Path | None = None) -> None:
        self.config_dir = config_dir
        self._groups = frozenset(groups(config_dir))
        self._read: dict[str, tuple[str, Any]] = {}
        self._converted: dict[tuple[str, type, Any], Any] = {}
        self._templates: dict[tuple[str, ...], _Template] = {}
        self._scratch = OmegaConf.structured(RunConfig)

    def compose(self, overrides: Sequence[str]) -> RunConfig:
        """Raises UserError as `compose` does."""
        try:
            config = self._put_together(overrides)
        except (_NeedsHydra, UserError, HydraException, OmegaConfBaseException):
            return compose_by_hydra(overrides, self.config_dir)
        return finished(config)

    def _put_together(self, overrides: Sequence[str]) -> RunConfig:
        chosen: dict[str, str] = {}  # of a group chosen twice, the later choice holds
        given: dict[str, Any] = {}
        for text in overrides:
            key, value = self._reading(text)
            if key in self._groups:
                chosen[key] = text
            else:
                given[key] = value
        template = self._template(tuple(sorted(chosen.values())))
        config: RunConfig = _copy(template.config)
        links = {key: target for key, target in template.links.items() if key not in given}
        for key, value in given.items():
            if link := isinstance(value, str) and _LINK.fullmatch(value):
                links[key] = link[1]
            else:
                _set(config, key, self._convert(key, value))
        for key in links:
            _set(config, key, self._follow(config, links, key, depth=0))
        return config

    def _reading(self, text: str) -> tuple[str, Any]:
        """Key and value of an override that chooses a group or sets one value."""
        if text not in self._read:
            simple = _SIMPLE.fullmatch(text)  # Hydra's parser takes a millisecond, which ten thousand seeds would feel
            if simple:
                whole = simple["whole"]
                self._read[text] = (simple[1], int(whole) if whole else float(simple["float"]))
            else:
                self._read[text] = self._parsed(text)
            key, value = self._read[text]
            if key not in self._groups and (key not in _leaves() or not _is_plain(value)):
                del self._read[text]
                raise _NeedsHydra
        return self._read[text]

    def _parsed(self, text: str) -> tuple[str, Any]:
        (override,) = parse([text])
        adds = override.is_add() or override.is_force_add() or override.is_delete()
        if adds or override.is_sweep_override() or override.package is not None:
            raise _NeedsHydra
        value = override.value()
        if override.key_or_group in self._groups and isinstance(value, dict):
            raise _NeedsHydra
        return override.key_or_group, value

    def _template(self, chosen: tuple[str, ...]) -> _Template:
        if chosen not in self._templates:
            node = compose_node(chosen, self.config_dir)
            links: dict[str, str] = {}
            _find_links(node, "", links)
            config = OmegaConf.to_object(node)
            assert isinstance(config, RunConfig)
            self._templates[chosen] = _Template(config, links)
        return self._templates[chosen]

    def _convert(self, key: str, value: Any) -> Any:
        """The value as the key's type has it: 1 becomes 1.0 where a float is wanted. Raises as OmegaConf does."""
        if isinstance(value, list):
            return list(self._by_schema(key, value))
        known = (key, type(value), value)
        if known not in self._converted:
            self._converted[known] = self._by_schema(key, value)
        return self._converted[known]

    def _by_schema(self, key: str, value: Any) -> Any:
        OmegaConf.update(self._scratch, key, value, merge=True)
        found = OmegaConf.select(self._scratch, key)
        return OmegaConf.to_object(found) if isinstance(found, ListConfig) else found

    def _follow(self, config: RunConfig, links: dict[str, str], key: str, depth: int) -> Any:
        target = links[key]
        if target not in _leaves() or depth > len(links):
            raise _NeedsHydra
        value = self._follow(config, links, target, depth + 1) if target in links else _get(config, target)
        if isinstance(value, list):
            raise _NeedsHydra
        return self._convert(key, value)


def _is_plain(value: Any) -> bool:
    """A value, a list of them, or a reference; not text with a reference in it."""
    if isinstance(value, list):
        return all(isinstance(v, _SCALARS) and "$" not in str(v) for v in value)
    if isinstance(value, str):
        return "$" not in value or bool(_LINK.fullmatch(value))
    return isinstance(value, _SCALARS)


@cache
def _shared() -> Composer:
    return Composer()


@cache
def _leaves() -> frozenset[str]:
    """The keys that hold values, dotted."""
    found: list[str] = []

    def walk(node: Any, prefix: str) -> None:
        for f in fields(node):
            value = getattr(node, f.name)
            if is_dataclass(value):
                walk(value, f"{prefix}{f.name}.")
            else:
                found.append(f"{prefix}{f.name}")

    walk(RunConfig(), "")
    return frozenset(found)


def _find_links(node: DictConfig, prefix: str, links: dict[str, str]) -> None:
    for name in map(str, node):
        key, child = f"{prefix}{name}", node._get_node(name)
        raw = child._value()  # type: ignore[union-attr]
        if isinstance(raw, str) and "$" in raw:
            link = _LINK.fullmatch(raw)
            if not link or isinstance(child, DictConfig | ListConfig):
                raise _NeedsHydra
            links[key] = link[1]
        elif isinstance(child, DictConfig) and key not in _leaves():
            _find_links(child, f"{key}.", links)
        elif isinstance(child, DictConfig | ListConfig) and "$" in str(OmegaConf.to_container(child, resolve=False)):
            raise _NeedsHydra


def _copy(node: Any) -> Any:
    """Of a configuration: nothing in it is shared with the original."""
    new = object.__new__(type(node))
    into = new.__dict__
    for name, value in node.__dict__.items():
        kind = type(value)
        if kind in _SCALARS:
            into[name] = value
        elif kind is list and all(type(item) in _SCALARS for item in value):
            into[name] = value.copy()
        else:
            into[name] = deepcopy(value) if kind in (list, dict) else _copy(value)
    return new


def _get(config: RunConfig, key: str) -> Any:
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name)
    return value


def _set(config: RunConfig, key: str, value: Any) -> None:
    path, _, name = key.rpartition(".")
    setattr(_get(config, path) if path else config, name, value)
