"""Which command sweeps a study again, and whether it is a shipped study at full scale with nothing of it changed."""

import itertools
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from mrbench.config.paths import ablations_dir
from mrbench.errors import UserError

HARMLESS = ("data.root=", "runtime.", "launcher.", "launcher=", "seed=")  # overrides that leave the science alone


def sweep_command(
    name: str, scale: str | None, base: Sequence[str], arms: Mapping[str, Sequence[str]], seeds: Sequence[int]
) -> str:
    """`mrbench sweep norm --scale small --seeds 0,1,2`, or the grid; empty where the record is neither.

    `base` and `arms` (each one's overrides) are those of the study's record.
    """
    numbers = ",".join(map(str, seeds))
    extra = added(name, scale, base, arms)
    if extra is not None:
        options = ["--scale", scale] if scale else []
        return shlex.join(["mrbench", "sweep", _file(name, scale), *options, "--seeds", numbers or "0", *extra])
    swept = _grid(list(arms.values()))
    if swept is None:
        return ""
    return shlex.join(["mrbench", "sweep", *base, *swept, f"seed={numbers or 0}", "--name", name])


def added(
    name: str, scale: str | None, base: Sequence[str], arms: Mapping[str, Sequence[str]]
) -> tuple[str, ...] | None:
    """The overrides that the command line added to a study of ablations/; None where it is not one, or another by
    now."""
    try:
        text = (ablations_dir() / f"{_file(name, scale)}.yaml").read_text(encoding="utf-8")
        content = yaml.safe_load(text)
        own = [*(content.get("base") or ()), *((content.get("scales") or {}).get(scale) or {}).get("base", ())]
        named = content.get("arms") or {}
        same = all(_overrides(named[arm]) == list(found) for arm, found in arms.items() if arm in named)
    except (OSError, yaml.YAMLError, AttributeError, TypeError):
        return None
    known = bool(content.get("factors")) or set(arms) <= set(named)
    if not known or not same or list(base[: len(own)]) != own or bool(scale) != bool(content.get("scales")):
        return None
    return tuple(base[len(own) :])


def harmless(overrides: Sequence[str]) -> bool:
    return all(override.lstrip("+").startswith(HARMLESS) for override in overrides)


def is_published_recipe(
    overrides: Sequence[str], row_id: str | None, scale: str | None, extra: tuple[str, ...] | None
) -> bool:
    """Whether an arm is the training that its row published: a study's arm at full scale to which the command line
    added nothing of weight (`extra`, see `added`), or a recipe whose file names the row."""
    if row_id is None or scale == "small":
        return False
    if scale == "full":
        return extra is not None and harmless(extra)
    recipe = [override.removeprefix("recipe=") for override in overrides if override.startswith("recipe=")]
    others = [override for override in overrides if not override.startswith("recipe=")]
    if len(recipe) != 1 or not harmless(others):
        return False
    from mrbench.config.recipes import find_recipe  # Hydra is slow to import, and few arms need it

    try:
        return row_id in {result.row for result in find_recipe(recipe[0]).published}
    except (UserError, ValueError):
        return False


def _file(name: str, scale: str | None) -> str:
    return name.removesuffix(f"-{scale}") if scale else name


def _overrides(arm: object) -> list[str]:
    value: Any = arm.get("overrides") if isinstance(arm, dict) else arm
    return [value] if isinstance(value, str) else list(value or ())


def _grid(arms: Sequence[Sequence[str]]) -> list[str] | None:
    """`[model.norm=gn,bn]` where the arms are all combinations of these values."""
    keys = [tuple(override.partition("=")[0] for override in arm) for arm in arms]
    if not keys or any(own != keys[0] for own in keys):
        return None
    chosen = [tuple(override.partition("=")[2] for override in arm) for arm in arms]
    values = [list(dict.fromkeys(column)) for column in zip(*chosen, strict=True)]
    if sorted(itertools.product(*values)) != sorted(chosen):
        return None
    return [f"{key}={','.join(own)}" for key, own in zip(keys[0], values, strict=True)]
