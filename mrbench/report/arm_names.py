"""What arms are called that were made of runs by hand: by the settings that tell each from the others."""

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath

_LEFT_OUT = re.compile(r" \(\+\d+\)( #\d+)?$")
Key = tuple[tuple[str, str], ...]


def abbreviated(name: str) -> bool:
    """Whether it ends in `(+1)`: `of_groups` left out settings that tell the arm from others."""
    return _LEFT_OUT.search(name) is not None


def of_values(key: Key) -> str:
    return " ".join(f"{name.rpartition('.')[2]}={value}" for name, value in key)


def of_groups(groups: Sequence[Key]) -> list[str]:
    """`norm=gn lr=0.02 (+1)`: what tells each group from the others, paths by as little of their end as does that, and
    how many settings more."""
    if len(groups) == 1:
        return ["these runs"]
    common = set.intersection(*(set(group) for group in groups))
    own = [sorted((item for item in group if item not in common), key=_depth) for group in groups]
    short = _short_values(own)
    last = _short_keys(own)
    parts = [list(dict.fromkeys(f"{last[k]}={short[k, v]}" if v else k for k, v in group)) for group in own]
    names = [" ".join(part) for part in parts]
    for shown in (2, 3, 4):
        names = [" ".join(p[:shown]) + (f" (+{len(p) - shown})" if len(p) > shown else "") for p in parts]
        if len(set(names)) == len(names):
            break
    return [name if names.count(name) == 1 else f"{name} #{i + 1}" for i, name in enumerate(names)]


def _depth(item: tuple[str, str]) -> tuple[int, str]:
    return item[0].count("."), item[0]


def _short_keys(groups: Sequence[Sequence[tuple[str, str]]]) -> dict[str, str]:
    """The last word of a key, or two where another key of other values ends in the same."""
    columns: dict[str, list[str | None]] = {}
    for place, group in enumerate(groups):
        for key, value in group:
            columns.setdefault(key, [None] * len(groups))[place] = value
    found = {}
    for key, values in columns.items():
        last = key.rpartition(".")[2]
        alone = all(other == values for name, other in columns.items() if name.rpartition(".")[2] == last)
        found[key] = last if alone else ".".join(key.split(".")[-2:])
    return found


def _short_values(groups: Sequence[Sequence[tuple[str, str]]]) -> Mapping[tuple[str, str], str]:
    """Values as they are, but of paths the shortest end that no other path of the same key has."""
    values: dict[str, list[str]] = {}
    for group in groups:
        for key, value in group:
            values.setdefault(key, []).append(value)
    found = {}
    for key, all_of_key in values.items():
        for value in all_of_key:
            parts = PurePath(value).parts if "/" in value else (value,)
            others = {PurePath(other).parts for other in all_of_key if other != value}
            ends = (length for length in range(1, len(parts)) if parts[-length:] not in {o[-length:] for o in others})
            length = next(ends, len(parts))
            found[key, value] = "/".join(parts[-length:]) if length < len(parts) else value
    return found
