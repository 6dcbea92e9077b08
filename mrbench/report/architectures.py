"""The generated part of docs/architectures.md: every axis of the model's configuration with the recipes that use its
values, and the published rows by network."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, fields, is_dataclass
from fnmatch import translate
from functools import cache
from typing import Any

from mrbench.config.recipes import Recipe
from mrbench.config.schema import ModelConfig
from mrbench.errors import UserError
from mrbench.report import published
from mrbench.report.axes import AXES

BEGIN = "<!-- from here on written by: mrbench recipes axes -o docs/architectures.md -->"
END = "<!-- up to here -->"


@dataclass(frozen=True)
class Axis:
    """A key below `model`, dotted, with the words for what it takes and what it has where nothing sets it."""

    key: str
    admits: str
    default: Any


@dataclass(frozen=True)
class Network:
    """The columns of a published row: what it is built of, in the field's short words."""

    body: str
    neck: str
    norm: str
    rpn: str
    pooler: str
    box_head: str
    mask_head: str
    keypoint_head: str


def axes() -> list[Axis]:
    """All keys of `model` but its name, which changes nothing in it, in the schema's order."""
    return [axis for axis in _axes(ModelConfig(), "") if axis.key != "name"]


def _axes(node: Any, prefix: str) -> Iterator[Axis]:
    for f in fields(node):
        value = getattr(node, f.name)
        if is_dataclass(value):
            yield from _axes(value, f"{prefix}{f.name}.")
        else:
            yield Axis(f"{prefix}{f.name}", _admits(f.metadata, value), value)


def _admits(metadata: Mapping[str, Any], default: Any) -> str:
    if choices := metadata.get("choices"):
        return ", ".join(_bold(choice, default) for choice in choices)
    if isinstance(default, bool):
        return ", ".join(_bold(choice, default) for choice in (True, False))
    return f"**{_plain(default)}**"


def _bold(value: Any, default: Any) -> str:
    return f"**{_plain(value)}**" if value == default else _plain(value)


def _plain(value: Any) -> str:
    """As an override has it."""
    if isinstance(value, list):
        return f"[{', '.join(map(_plain, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def value_at(model: ModelConfig, key: str) -> Any:
    """Of `box_head.convs` and the like."""
    found: Any = model
    for name in key.split("."):
        found = getattr(found, name)
    return found


def globs(wanted: Collection[str], names: Collection[str]) -> list[str]:
    """Few patterns with `*` that match, of `names`, those `wanted` and no other; a whole family but for a few is
    `family_*` (but `a*`, `b*`). In Markdown."""
    known, left, found = tuple(sorted(names)), set(wanted), []
    for family in sorted({f"{name.partition('_')[0]}_*" for name in left}):
        members = _matched(family, known)
        but = _cover(members - left, known)
        if but and 1 + len(but) < len(_cover(members & left, known)):
            found.append(f"`{family}` (but {', '.join(f'`{pattern}`' for pattern in but)})")
            left -= members
    return sorted([*found, *(f"`{pattern}`" for pattern in _cover(left, known))])


def _cover(wanted: Set[str], known: tuple[str, ...]) -> list[str]:
    """Greedily: always the pattern, of those that match none but `wanted`, that matches most of what is left."""
    fitting = {pattern: _matched(pattern, known) for name in wanted for pattern in _patterns(name)}
    fitting = {pattern: matched for pattern, matched in fitting.items() if matched <= wanted}
    found, left = [], set(wanted)
    while left:
        best = min(fitting, key=lambda pattern: (-len(fitting[pattern] & left), len(pattern), pattern))
        found.append(best if len(fitting[best]) > 1 else next(iter(fitting[best])))
        left -= fitting[best]
    return sorted(found)


@cache
def _matched(pattern: str, names: tuple[str, ...]) -> frozenset[str]:
    fits = re.compile(translate(pattern))
    return frozenset(name for name in names if fits.match(name))


def _patterns(name: str) -> Iterator[str]:
    """Its words in one or two runs, with `*` for the rest."""
    words = name.split("_")
    yield name
    for end in range(1, len(words)):
        head = "_".join(words[:end])
        yield f"{head}*" if end > 1 else f"{head}_*"
        for begin in range(end, len(words)):
            for stop in range(begin + 1, len(words) + 1):
                yield f"{head}*_{'_'.join(words[begin:stop])}" + ("*" if stop < len(words) else "")
    for begin in range(1, len(words)):
        for stop in range(begin + 1, len(words) + 1):
            yield f"*_{'_'.join(words[begin:stop])}*"


def users(axis: Axis, models: Mapping[str, ModelConfig]) -> str:
    """Which of the recipes' `models` have which value of an axis, the most common last."""
    by_value: dict[str, list[str]] = {}
    for name, model in models.items():
        by_value.setdefault(_plain(value_at(model, axis.key)), []).append(name)
    common = max(by_value, key=lambda value: len(by_value[value]))
    if len(by_value) == 1:
        return f"{common}: all"
    rare = sorted((value for value in by_value if value != common), key=lambda value: -len(by_value[value]))
    told = [f"{value}: {', '.join(globs(by_value[value], models))}" for value in rare]
    return "<br>".join([*told, f"{common}: the others"])


def network(model: ModelConfig) -> Network:
    """A model in the short words of the table of published rows."""
    masks, box = model.mask_head, model.box_head
    layers = f"{box.convs} conv, {box.fcs} fc" if box.convs else f"{box.fcs} fc"
    cascade = "cascade " if box.cascade else ""
    mask_layers = {"fcn": f"{masks.convs} conv", "mlp": f"{masks.fcs} fc", "res5": "res5"}[masks.kind]
    mask_words = [mask_layers, "softmax" * (masks.loss == "softmax"), "agnostic" * masks.class_agnostic]
    return Network(
        _body(model),
        _neck(model),
        model.norm if box.norm in ("none", model.norm) else f"{model.norm}, box head {box.norm}",
        model.rpn.mode if model.rpn.convs == 1 else f"{model.rpn.mode}, {model.rpn.convs} conv",
        f"{model.pooler.kind} {model.pooler.aggregate}" if model.pooler.kind != "roi_pool" else "roi_pool max",
        cascade + ("res5" if box.kind == "res5" else layers),
        " ".join(filter(None, mask_words)) if masks.enabled else "",
        f"{model.keypoint_head.convs} conv" if model.keypoint_head.enabled else "",
    )


def _body(model: ModelConfig) -> str:
    body = model.backbone
    if body.kind != "resnet":
        return {"regnet_x_4gf": "RegNetX-4GF", "regnet_y_4gf": "RegNetY-4GF"}[body.kind]
    name = f"R{body.depth}" if body.groups == 1 else f"X{body.depth}-{body.groups}x{body.width_per_group}d"
    return name + (f", {body.non_local} non-local" if body.non_local else "")


def _neck(model: ModelConfig) -> str:
    return "DC5" if model.neck.kind == "c5" and model.backbone.dilated_c5 else model.neck.kind.upper()


def rows_of_networks(recipes: Sequence[Recipe], models: Mapping[str, ModelConfig]) -> dict[Network, list[str]]:
    """The published rows of every network, in the order of results/published/accuracy.csv."""
    recipe_of = {result.row: recipe.name for recipe in recipes for result in recipe.published}
    found: dict[Network, list[str]] = {}
    for row in published.accuracy():
        if row in recipe_of:
            found.setdefault(network(models[recipe_of[row]]), []).append(row)
    return found


def generated(recipes: Sequence[Recipe], models: Mapping[str, ModelConfig]) -> str:
    """What stands between BEGIN and END; `models` are those of the recipes, by name."""
    sourced = {recipe.name: models[recipe.name] for recipe in recipes if recipe.field("Source")}
    lines = ["", "## Axes"]
    part = None
    for axis in axes():
        above, _, name = axis.key.rpartition(".")
        if above != part:
            part = above
            lines += ["", f"### `model.{part}`" if part else "### `model`", ""]
            lines += ["| key | values | what it is | recipes |", "|---|---|---|---|"]
        lines.append(f"| `{name}` | {axis.admits} | {AXES[axis.key]} | {users(axis, sourced)} |")
    lines += ["", "## Published rows", ""]
    lines.append("| body | neck | norm | RPN | pooling | box head | mask head | keypoints | rows |")
    lines.append("|---|---|---|---|---|---|---|---|---|")
    for found, rows in rows_of_networks(recipes, models).items():
        cells = [getattr(found, f.name) for f in fields(Network)]
        lines.append(f"| {' | '.join(cells)} | {', '.join(rows)} |")
    return "\n".join([*lines, "", ""])


def replaced(text: str, part: str) -> str:
    """`text` with `part` between its BEGIN and END. Raises UserError where it has not both."""
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise UserError("The file does not have the two lines that the tables go between", f"They are: {BEGIN} {END}")
    return f"{head}{BEGIN}\n{part}{END}{tail}"
