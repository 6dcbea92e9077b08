"""Recipe files as a person reads them: what each is, where its numbers come from, and what it changes.

A file begins with comments: one line that says what it is, then fields, then the commands that run it. A field may go
on in lines that are indented.

    # Mask R-CNN R50-FPN, 1x schedule
    # Published: zoo/r50_fpn_1x: box 38.6, mask 35.2
    # Source: Detectron2 model zoo, configs/COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml
    # Parameters: 44,343,216 (44,120,816 trainable) with 80 classes
    #   mrbench train recipe=mask_rcnn_r50_fpn_1x data.root=FOLDER
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from mrbench.config.compose import groups
from mrbench.config.paths import conf_dir
from mrbench.config.schema import RunConfig
from mrbench.config.suggest import did_you_mean
from mrbench.errors import UserError

_FIELD = re.compile(r"([A-Z][a-z]+): (.*)")
_RESULT = re.compile(r"(?P<row>\S+): (?P<numbers>.+)")
_PARAMETERS = re.compile(r"([\d,]+) \(([\d,]+) trainable\) with (\d+) class(?:es)?")


@dataclass(frozen=True)
class PublishedResult:
    """A row of results/published/accuracy.csv, and its AP in percent: `box/AP`, `mask/AP`, `keypoint/AP`."""

    row: str
    metrics: dict[str, float]


@dataclass(frozen=True)
class ParameterCount:
    """Of the network with as many `classes`; weights and shifts of frozen batch norms are no parameters."""

    total: int
    trainable: int
    classes: int


@dataclass(frozen=True)
class Change:
    """A key of the configuration, dotted, with its value in the parent and in the recipe."""

    key: str
    old: Any
    new: Any


@dataclass(frozen=True)
class Recipe:
    """A file of conf/recipe. A field that it does not have is empty."""

    name: str
    text: str

    @cached_property
    def _comments(self) -> list[str]:
        lines = [line[1:] for line in self.text.splitlines() if line.startswith("#")]
        return [line for line in lines if not line.strip().startswith("@package")]

    @cached_property
    def _fields(self) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        for line in self._comments:
            if match := _FIELD.fullmatch(line.strip()):
                found.append((match[1], match[2]))
            elif line.startswith("  ") and found and not line.strip().startswith("mrbench "):
                found[-1] = (found[-1][0], f"{found[-1][1]} {line.strip()}")
        return found

    def field(self, key: str) -> str:
        """The first field of that name, as `Source`."""
        return next((text for name, text in self._fields if name == key), "")

    @property
    def summary(self) -> str:
        return next((line.strip() for line in self._comments), "")

    @property
    def family(self) -> str:
        """Whose recipe it is: the source up to its first comma; our own where there is none."""
        return self.field("Source").partition(",")[0] or "mrbench's own"

    @cached_property
    def published(self) -> list[PublishedResult]:
        """All published results of this training. Raises ValueError where one cannot be read."""
        found = []
        for text in (text for name, text in self._fields if name == "Published"):
            match = _RESULT.fullmatch(text)
            if not match:
                raise ValueError(f"recipe {self.name}: 'Published: {text}' is not 'ROW: box 1.0, mask 1.0'")
            numbers = (number.split() for number in match["numbers"].split(", "))
            found.append(PublishedResult(match["row"], {f"{kind}/AP": float(value) for kind, value in numbers}))
        return found

    @property
    def metrics(self) -> dict[str, float]:
        """Published AP of every kind: of the first result that has it."""
        return {key: value for result in reversed(self.published) for key, value in result.metrics.items()}

    @property
    def parameters(self) -> ParameterCount | None:
        match = _PARAMETERS.fullmatch(self.field("Parameters"))
        return ParameterCount(*(int(number.replace(",", "")) for number in match.groups())) if match else None

    @property
    def commands(self) -> list[str]:
        return [line.strip() for line in self._comments if line.strip().startswith("mrbench ")]

    @cached_property
    def parent(self) -> str | None:
        """The recipe that this one differs from; None where it is composed of groups alone."""
        defaults = (yaml.safe_load(self.text) or {}).get("defaults", [])
        return next((entry for entry in defaults if isinstance(entry, str) and entry != "_self_"), None)


def recipes(config_dir: Path | None = None) -> list[Recipe]:
    """All recipes, by name; one of `config_dir` wins over ours of the same name."""
    found = []
    for name in sorted(groups(config_dir).get("recipe", [])):
        tops = [top for top in (config_dir, conf_dir()) if top and (top / "recipe" / f"{name}.yaml").is_file()]
        found.append(Recipe(name, (tops[0] / "recipe" / f"{name}.yaml").read_text(encoding="utf-8")))
    return found


def find_recipe(name: str, config_dir: Path | None = None) -> Recipe:
    """Raises UserError with the nearest names."""
    known = {r.name: r for r in recipes(config_dir)}
    if name not in known:
        raise UserError(f"There is no recipe '{name}'", did_you_mean(name, known, "mrbench recipes list shows them."))
    return known[name]


def changes(old: RunConfig, new: RunConfig) -> list[Change]:
    """Every key whose values differ, in the schema's order."""
    before, after = dict(_leaves(old, "")), dict(_leaves(new, ""))
    return [Change(key, before[key], after[key]) for key in after if before[key] != after[key]]


def _leaves(node: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for f in fields(node):
        value = getattr(node, f.name)
        if is_dataclass(value):
            yield from _leaves(value, f"{prefix}{f.name}.")
        else:
            yield f"{prefix}{f.name}", value
