"""Numeric settings that a study varies (epochs, image size, the range of scale jitter), for charts along them."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from mrbench.report.collect import Study
from mrbench.report.origin import science
from mrbench.report.run_record import show

LEAST_VALUES = 3  # along a line; two are a difference, which has a chart


@dataclass(frozen=True)
class Series:
    """Arms that differ in the factor, and in nothing else that is not tied to it: (value, arm) by rising value."""

    label: str
    points: tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class Factor:
    """`ranges`: its values are pairs of numbers, and stand on the chart as their ratio."""

    key: str
    ranges: bool
    series: tuple[Series, ...]

    @property
    def title(self) -> str:
        return f"{self.key}, largest over smallest" if self.ranges else self.key


def factors(study: Study) -> list[Factor]:
    """The numeric settings along which there is a line of three arms or more. Of several that change together (the
    iterations and the warm-up) the one that the arms name stands for all."""
    configs = {arm.name: config for arm in study.arms if (config := science(arm))}
    every = sorted(set().union(*configs.values())) if configs else []
    varying = [key for key in every if len({show(config.get(key)) for config in configs.values()}) > 1]
    named = {item.partition("=")[0] for arm in study.arms for item in arm.overrides}
    found: dict[tuple[tuple[str, ...], ...], Factor] = {}
    for key in sorted(varying, key=lambda key: (key not in named, _ranges(key, configs), key)):
        values = {arm: value for arm, config in configs.items() if (value := number(config.get(key))) is not None}
        if len(values) < len(configs):
            continue
        series = _series(key, values, configs, varying)
        if max((len(line.points) for line in series), default=0) >= LEAST_VALUES:
            same = tuple(sorted(min(_arms(line), _arms(line)[::-1]) for line in series))
            found.setdefault(same, Factor(key, _ranges(key, configs), series))
    return list(found.values())


def number(value: Any) -> float | None:
    """The value on an axis: a number as it is, a pair of positive numbers by their ratio, nothing else."""
    if isinstance(value, list) and len(value) == 2 and all(number(item) is not None for item in value):
        return value[1] / value[0] if value[0] > 0 and value[1] >= value[0] else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _ranges(key: str, configs: Mapping[str, Mapping[str, Any]]) -> bool:
    return any(isinstance(config.get(key), list) for config in configs.values())


def _arms(line: Series) -> tuple[str, ...]:
    return tuple(arm for _, arm in line.points)


def _series(
    key: str, values: Mapping[str, float], configs: Mapping[str, Mapping[str, Any]], varying: list[str]
) -> tuple[Series, ...]:
    others = [other for other in varying if other != key and not _tied(other, key, configs)]
    groups: dict[tuple[str, ...], dict[float, str]] = {}
    for arm, value in values.items():
        groups.setdefault(tuple(show(configs[arm].get(other)) for other in others), {}).setdefault(value, arm)
    lines = {rest: sorted(points.items()) for rest, points in groups.items() if len(points) > 1}
    told = [i for i in range(len(others)) if len({rest[i] for rest in lines}) > 1]
    told = [i for place, i in enumerate(told) if not any(_same(i, j, list(lines)) for j in told[:place])]
    return tuple(
        Series(" ".join(f"{others[i].rpartition('.')[2]}={rest[i]}" for i in told), tuple(points))
        for rest, points in lines.items()
    )


def _same(one: int, other: int, rests: list[tuple[str, ...]]) -> bool:
    """Whether two settings tell the same lines apart."""
    pairs = {(rest[one], rest[other]) for rest in rests}
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def _tied(other: str, key: str, configs: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether `other` follows from `key` in all arms, and is of its section or a number: a schedule's warm-up follows
    its length. A norm that changes whenever the length does is another question, and parts the lines."""
    if other.partition(".")[0] != key.partition(".")[0] and any(
        number(config.get(other)) is None for config in configs.values()
    ):
        return False
    pairs = sorted({(show(config.get(key)), show(config.get(other))) for config in configs.values()})
    return all(one[0] != next_[0] for one, next_ in pairwise(pairs))
