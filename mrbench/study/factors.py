"""Factors of an ablation file: arms for every combination of their levels, less the excluded ones."""

import itertools
from typing import Any

from mrbench.config.suggest import did_you_mean
from mrbench.errors import UserError
from mrbench.study import checked
from mrbench.study.study import SCALES, Arm

LEVEL_KEYS = ("overrides", "note", *SCALES)


def combinations(factors: checked.Mapping, exclude: Any) -> list[Arm]:
    """One arm for each combination, the last factor varying fastest. Its name are its levels', with commas.

    A factor is a key with a list of values (a level is called as it overrides, `model.norm=gn`), or any name with
    named levels, each a list of overrides or what an arm is: overrides, a note, and what it needs at one scale only.
    Raises UserError.
    """
    if not factors:
        if exclude:
            raise UserError("exclude has nothing to exclude from: there are no factors")
        return []
    levels = {str(name): _levels(str(name), given) for name, given in factors.items()}
    excluded = _exclusions(exclude, levels)
    arms = []
    for combination in itertools.product(*(found.items() for found in levels.values())):
        chosen = {name: level for name, (level, _) in zip(levels, combination, strict=True)}
        if not any(rule.items() <= chosen.items() for rule in excluded):
            arms.append(joined([arm for _, arm in combination]))
    return arms


def joined(arms: list[Arm]) -> Arm:
    """All of them in one: what each overrides, in their order."""
    return Arm(
        name=",".join(arm.name for arm in arms),
        overrides=tuple(text for arm in arms for text in arm.overrides),
        published=next((arm.published for arm in arms if arm.published), None),
        note="; ".join(arm.note for arm in arms if arm.note),
        at_scales={
            scale: found
            for scale in SCALES
            if (found := tuple(text for arm in arms for text in arm.at_scales.get(scale, ())))
        },
    )


def override_value(value: Any) -> str:
    """A YAML value as Hydra's grammar writes it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(override_value, value))}]"
    return str(value)


def arm_of(name: str, value: Any, where: str, keys: tuple[str, ...]) -> Arm:
    """An arm, or a level of a factor: overrides alone, or a mapping with `keys`. `published` is not looked up."""
    if value is None or isinstance(value, str | list):
        return Arm(name, checked.overrides(value, where))
    found = checked.mapping(value, where, keys)
    return Arm(
        name,
        checked.overrides(found.get("overrides"), where),
        found.get("published"),
        checked.text(found, "note"),
        {s: checked.overrides(found[s], f"{where}, {s}") for s in SCALES if s in found},
    )


def _levels(name: str, given: Any) -> dict[str, Arm]:
    """Level as `exclude` names it -> what it is."""
    if isinstance(given, list) and given:
        values = [override_value(value) for value in given]
        return {value: Arm(f"{name}={value}", (f"{name}={value}",)) for value in values}
    if isinstance(given, checked.Mapping) and given:
        return {
            str(level): arm_of(
                str(level), value, f"factors: {name}: {level}{checked.line_of(given, level)}", LEVEL_KEYS
            )
            for level, value in given.items()
        }
    raise UserError(f"factors: {name} needs a list of values, or levels by name")


def _exclusions(exclude: Any, levels: dict[str, dict[str, Arm]]) -> list[dict[str, str]]:
    if exclude is not None and not isinstance(exclude, list):
        raise UserError("exclude is not a list", "Write [{model.norm: bn, optimizer.lr: 0.02}].")
    rules = []
    for item in exclude or []:
        found = checked.mapping(item, "exclude", tuple(levels))
        rule = {str(key): override_value(value) for key, value in found.items()}
        for key, value in rule.items():
            if value not in levels[key]:
                raise UserError(
                    f"exclude: {key}={value} is not among its factor's values{checked.line_of(found, key)}",
                    did_you_mean(value, levels[key]),
                )
        if rule:
            rules.append(rule)
    return rules
