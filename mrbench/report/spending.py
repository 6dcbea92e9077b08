"""How strict each look at growing data must be, so that all looks together err no more often than one would.

Alpha spending (Lan & DeMets 1983, Discrete sequential boundaries for clinical trials, Biometrika 70) with their first
spending function on either side, 2 - 2 Phi(z / sqrt(t)): close to O'Brien and Fleming's boundaries, which take next
to nothing at early looks.
The boundaries come from the recursion of Armitage, McPherson & Rowe (1969) on a grid.
"""

from collections.abc import Sequence
from functools import lru_cache
from math import erfc, sqrt
from statistics import NormalDist

import numpy as np

_POINTS = 301  # of the grid; odd, for Simpson's rule


def spent(fraction: float, alpha: float) -> float:
    """How much of `alpha`, half of it on either side, may be used up when `fraction` of all data are there."""
    z = NormalDist().inv_cdf(1 - alpha / 4)
    return 2 * erfc(z / sqrt(2 * fraction))


@lru_cache(maxsize=256)
def levels(fractions: tuple[float, ...], alpha: float) -> tuple[float, ...]:
    """The two-sided p at or below which each look rejects; `fractions` of the data at each, rising to 1 at most.

    For sums of independent normal increments the chance that any look rejects a true null is `spent` at the last.
    Used with the p-values of t tests, which keeps the chance nearly (Jennison & Turnbull 2000, Group Sequential
    Methods with Applications to Clinical Trials).
    """
    if not fractions or any(b <= a for a, b in zip((0.0, *fractions), fractions, strict=False)) or fractions[-1] > 1:
        raise ValueError(f"fractions must rise from above 0 to 1, got {fractions}")
    found = []
    points, weights = np.zeros(1), np.ones(1)  # where the sum may be without having crossed, and with what weight
    before, used = 0.0, 0.0
    for fraction in fractions:
        step = sqrt(fraction - before)
        bound = _bound(points, weights, step, spent(fraction, alpha) - used)
        found.append(erfc(bound / sqrt(2 * fraction)))
        grid = np.linspace(-bound, bound, _POINTS)
        density = np.exp(-0.5 * ((grid[:, None] - points) / step) ** 2) @ weights / (step * sqrt(2 * np.pi))
        points, weights = grid, density * _simpson(_POINTS) * (grid[1] - grid[0])
        before, used = fraction, spent(fraction, alpha)
    return tuple(found)


def _bound(points: np.ndarray, weights: np.ndarray, step: float, chance: float) -> float:
    """The b with a chance of `chance` that the next sum lies beyond -b or b."""
    low, high = 0.0, 12.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if _beyond(points, weights, step, middle) > chance else (low, middle)
    return high


def _beyond(points: Sequence[float] | np.ndarray, weights: np.ndarray, step: float, bound: float) -> float:
    tails = [
        0.5 * erfc((bound - u) / (step * sqrt(2))) + 0.5 * erfc((bound + u) / (step * sqrt(2)))
        for u in map(float, points)
    ]
    return float(np.dot(tails, weights))


def _simpson(points: int) -> np.ndarray:
    found = np.ones(points)
    found[1:-1:2], found[2:-1:2] = 4, 2
    return found / 3
