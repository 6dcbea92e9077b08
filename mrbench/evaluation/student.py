"""Student's t distribution: the two functions that intervals need, so that SciPy is no dependency.

The tail is a regularised incomplete beta function, by its continued fraction (Press et al., Numerical Recipes,
section 6.4); the quantile is found by bisection on it. Degrees of freedom may be fractions (Welch, Satterthwaite).
"""

from functools import lru_cache
from math import exp, inf, lgamma, log, log1p

_TINY = 1e-300


def _continued_fraction(a: float, b: float, x: float) -> float:
    """Lentz's evaluation of the continued fraction of the incomplete beta function."""
    c, d = 1.0, 1.0 - (a + b) * x / (a + 1.0)
    d = 1.0 / (d if abs(d) > _TINY else _TINY)
    value = d
    for m in range(1, 500):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 + numerator * d
            c = 1.0 + numerator / c
            d = 1.0 / (d if abs(d) > _TINY else _TINY)
            c = c if abs(c) > _TINY else _TINY
            value *= c * d
        if abs(c * d - 1.0) < 1e-15:
            break
    return value


def _incomplete_beta(a: float, b: float, x: float) -> float:
    if x <= 0.0:
        return 0.0
    if x >= 1.0:
        return 1.0
    front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x))
    if x < (a + 1.0) / (a + b + 2.0):
        return front * _continued_fraction(a, b, x) / a
    return 1.0 - front * _continued_fraction(b, a, 1.0 - x) / b


def two_sided_p(t: float, df: float) -> float:
    """Probability that |T| with `df` degrees of freedom is at least |t|."""
    if df <= 0:
        raise ValueError(f"degrees of freedom must be positive, got {df}")
    if abs(t) == inf:
        return 0.0
    return _incomplete_beta(df / 2.0, 0.5, df / (df + t * t))


@lru_cache(maxsize=4096)
def critical(df: float, confidence: float = 0.95) -> float:
    """The t with `two_sided_p(t, df) == 1 - confidence`: half-width of an interval in standard errors."""
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    low, high = 0.0, 1.0
    while two_sided_p(high, df) > 1.0 - confidence:
        low, high = high, 2.0 * high
    while high - low > 1e-12 * high:
        middle = 0.5 * (low + high)
        if middle in (low, high):
            break
        low, high = (middle, high) if two_sided_p(middle, df) > 1.0 - confidence else (low, middle)
    return 0.5 * (low + high)
