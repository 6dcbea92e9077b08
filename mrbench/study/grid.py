"""Grids from the command line, in Hydra's sweep syntax: `model.norm=gn,bn seed=range(0,3)`."""

import hashlib
import itertools
import re
from collections.abc import Sequence

from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from mrbench.config.compose import parse
from mrbench.errors import UserError
from mrbench.study.seeds import parse_seeds
from mrbench.study.study import Arm, Study


def _values(override: Override) -> list[str]:
    """All values of a swept override, as overrides write them."""
    text = override.input_line
    if not override.is_discrete_sweep():
        raise UserError(f"'{text}' has no end of values", "Name them: choice(...), range(...) or a,b,c.")
    try:
        written = list(override.sweep_string_iterator())
    except HydraException as error:
        raise UserError(f"'{text}' cannot be listed here", "Name the values: a,b,c.") from error
    return [_as_people_write(v) for v in dict.fromkeys(written)]


def _as_people_write(value: str) -> str:
    """Hydra writes Python's True and 4e-05; arms' names have true and 4e-5."""
    if value in ("True", "False"):
        return value.lower()
    return re.sub(r"^([-+]?[\d.]+e[-+]?)0(\d)$", r"\1\2", value)


def grid_name(fixed: Sequence[str], keys: Sequence[str]) -> str:
    """A short name that depends on what is held fixed and what varies, not on the values: more values, or more
    seeds, extend the same study."""
    digest = hashlib.sha256("\n".join([*sorted(fixed), "", *keys]).encode()).hexdigest()[:6]
    words = [k.rsplit(".", 1)[-1].rsplit("/", 1)[-1] for k in keys] or ["seeds"]
    return f"{'-'.join(words)[:40]}-{digest}"


def grid_study(overrides: Sequence[str], name: str | None = None) -> Study:
    """The study that a grid asks for: one arm for each combination of what varies besides the seed.

    Arms stand in Hydra's order (the last override varies fastest) and the first is the baseline. An arm is called
    as it is overridden, `model.norm=gn`. Raises UserError for an override that cannot be read or enumerated.
    """
    fixed: list[str] = []
    swept: dict[str, list[str]] = {}
    seeds: list[int] = [0]
    for override in parse(overrides):
        text = override.input_line or ""
        key = override.get_key_element()
        if key in swept:
            raise UserError(f"'{key}' varies twice", "Write all its values in one override: key=a,b.")
        if key == "seed":
            values = _values(override) if override.is_sweep_override() else [override.get_value_string()]
            seeds = parse_seeds(values, text)
        elif override.is_sweep_override():
            swept[key] = _values(override)
        else:
            fixed.append(text)
    arms = []
    for combination in itertools.product(*swept.values()):
        parts = tuple(f"{k}={v}" for k, v in zip(swept, combination, strict=True))
        arms.append(Arm(",".join(parts) or "base", parts))
    return Study(
        name=name or grid_name(fixed, list(swept)),
        title=f"Grid over {', '.join(swept)}" if swept else "Seeds of one configuration",
        base=tuple(fixed),
        arms=tuple(arms),
        baseline=arms[0].name,
        seeds=tuple(seeds),
        source="the grid",
    )


def only_fixed(overrides: Sequence[str]) -> tuple[str, ...]:
    """Overrides that a study's runs all share. Raises UserError for one that varies, or sets the seed."""
    for override in parse(overrides):
        text = override.input_line
        if override.key_or_group == "seed":
            raise UserError(f"'{text}': the study has its own seeds", "Choose others with --seeds, as --seeds 0-4.")
        if override.is_sweep_override():
            raise UserError(
                f"'{text}' varies, and so do the study's arms", "Add an arm to the file, or give a grid without it."
            )
    return tuple(overrides)
