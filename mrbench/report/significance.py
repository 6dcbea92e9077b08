"""Tests that need no model of the study, and the correction of p-values for how many are read at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

from mrbench.evaluation.student import two_sided_p

EXACT_UP_TO = 14  # pairs: 16,384 patterns of signs; beyond, as many are drawn
SEED = 20170320


@dataclass(frozen=True)
class Permutation:
    """`p` of a paired permutation test, and the smallest that so many pairs can give."""

    p: float
    least: float


def welch(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Two-sided p of equal means, each group with its own variance (Welch 1947, Biometrika 34).

    None where a group has fewer than two values, or none of them varies.
    """
    if len(first) < 2 or len(second) < 2:
        return None
    parts = [float(np.var(group, ddof=1)) / len(group) for group in (first, second)]
    if sum(parts) == 0:
        return None
    df = sum(parts) ** 2 / sum(v * v / (len(g) - 1) for v, g in zip(parts, (first, second), strict=True))
    return two_sided_p(float(np.mean(first) - np.mean(second)) / sqrt(sum(parts)), df)


def sign_flips(differences: Sequence[float]) -> Permutation | None:
    """Two-sided p of the mean of paired differences when each may as well have had the other sign (Fisher 1935).

    Every pattern of signs is tried for up to `EXACT_UP_TO` pairs, and the smallest p is then 2^(1 - pairs): 0.25 for
    three, 0.0625 for five, below 0.05 from six on. None for fewer than two pairs.
    """
    n = len(differences)
    if n < 2:
        return None
    values = np.asarray(differences, dtype=float)
    exact = n <= EXACT_UP_TO
    if exact:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    else:
        signs = np.random.default_rng(SEED).choice([-1, 1], (2**EXACT_UP_TO, n))
    sums = np.abs(signs @ values)
    as_far = int((sums >= abs(values.sum()) - 1e-9 * np.abs(values).sum()).sum())
    if exact:
        return Permutation(as_far / len(sums), 2.0 ** (1 - n))
    return Permutation((as_far + 1) / (len(sums) + 1), 1 / (len(sums) + 1))  # the data are one of the patterns


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values adjusted so that, among true nulls, one at or below a falls with a chance of at most a.

    Holm (1979), A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6.
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, p_values[place] * (len(p_values) - rank)))
        adjusted[place] = highest
    return adjusted
