"""Two runs of the same thing, number by number: what is equal, and how far apart the rest is."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mrbench.runs.metrics import TIMING
from mrbench.runs.record import Run

# What a result may hang on besides configuration and seed, as provenance.json names it.
SURROUNDINGS = (
    "code.version",
    "code.commit",
    "code.uncommitted_sha256",
    "code.source_sha256",
    "python",
    "packages",
    "device",
    "cuda",
    "hardware.cpu",
    "processes",
    "threads",
    "data_fingerprint",
    "weights_sha256",
    "proposals_sha256",
)


@dataclass(frozen=True)
class Pair:
    """A number of both runs; None where one has none."""

    name: str
    first: float | None
    second: float | None

    @property
    def equal(self) -> bool:
        """To the last bit; NaN equals NaN."""
        if self.first is None or self.second is None:
            return self.first is self.second
        return self.first == self.second or (math.isnan(self.first) and math.isnan(self.second))

    @property
    def difference(self) -> float | None:
        """Of the second from the first."""
        return None if self.first is None or self.second is None else self.second - self.first


def compare_evaluations(first: Run, second: Run) -> list[Pair]:
    """Every metric of the final evaluations."""
    a, b = ((run.evaluation() or {}).get("metrics", {}) for run in (first, second))
    return [Pair(name, a.get(name), b.get(name)) for name in dict.fromkeys([*a, *b])]


def compare_histories(first: Run, second: Run) -> dict[int, list[Pair]]:
    """{iteration: losses, learning rate and metrics that both runs logged there}, times left out."""
    a, b = _lines(first), _lines(second)
    found: dict[int, list[Pair]] = {}
    for kind, iteration in sorted(a.keys() & b.keys(), key=lambda key: key[1]):
        one, other = a[kind, iteration], b[kind, iteration]
        names = (name for name in dict.fromkeys([*one, *other]) if name not in TIMING)
        found.setdefault(iteration, []).extend(Pair(name, one.get(name), other.get(name)) for name in names)
    return found


def _lines(run: Run) -> dict[tuple[str, int], dict[str, Any]]:
    lines = ({**line} for line in run.metrics())
    return {(line.pop("kind"), line.pop("iteration")): line for line in lines}


def compare_surroundings(first: Run, second: Run) -> Iterator[tuple[str, Any, Any]]:
    """Name, first and second of everything that a result may hang on and that is not the same."""
    a, b = first.provenance(), second.provenance()
    for name in SURROUNDINGS:
        one, other = _at(a, name), _at(b, name)
        if isinstance(one, dict) and isinstance(other, dict):
            for key in dict.fromkeys([*one, *other]):
                if one.get(key) != other.get(key):
                    yield key, one.get(key), other.get(key)
        elif one != other:
            yield name, one, other


def _at(content: dict[str, Any], name: str) -> Any:
    for part in name.split("."):
        content = content.get(part) if isinstance(content, dict) else None  # type: ignore[assignment]
    return content
