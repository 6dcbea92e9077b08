"""Student's t distribution, its power, and F's tail: what intervals need, so that SciPy is no dependency.

The tail is a regularised incomplete beta function, by its continued fraction (Press et al., Numerical Recipes,
section 6.4); the quantile is found by bisection on it. Degrees of freedom may be fractions (Welch, Satterthwaite).
"""

from functools import lru_cache
from math import erfc, exp, inf, lgamma, log, log1p, sqrt

_TINY = 1e-300
_STEPS = 400  # of Simpson's rule in `power`: ten digits from 1 to 1,000 degrees of freedom


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


def f_tail(f: float, df_above: float, df_below: float) -> float:
    """Probability that Fisher's F is at least `f`: a ratio of two variances with those degrees of freedom."""
    if df_above <= 0 or df_below <= 0:
        raise ValueError(f"degrees of freedom must be positive, got {df_above} and {df_below}")
    if f <= 0.0:
        return 1.0
    return _incomplete_beta(df_below / 2.0, df_above / 2.0, df_below / (df_below + df_above * f))


def power(effect: float, df: float, alpha: float = 0.05) -> float:
    """Chance that a two-sided t test at `alpha` calls a true difference of `effect` standard errors.

    The tails of the noncentral t beyond the critical value: the normal's tails given the estimated standard error s
    (in units of the true one), averaged over s, where df s^2 is chi-squared (Johnson, Kotz & Balakrishnan,
    Continuous Univariate Distributions 2, chapter 31). Simpson's rule over u = log s, in which the density is
    smooth and close to normal with standard deviation 1 / sqrt(2 df).
    """
    bound = critical(df, 1.0 - alpha)
    constant = log(2.0) + 0.5 * df * log(0.5 * df) - lgamma(0.5 * df)
    low, high = -12.0 / sqrt(df) - 12.0 / df, 7.0 / sqrt(df)
    step = (high - low) / _STEPS
    total = 0.0
    for i in range(_STEPS + 1):
        u = low + i * step
        density = exp(constant + df * u - 0.5 * df * exp(2.0 * u))
        cut = bound * exp(u)
        tails = 0.5 * erfc((cut - effect) / sqrt(2.0)) + 0.5 * erfc((cut + effect) / sqrt(2.0))
        total += density * tails * (1 if i in (0, _STEPS) else 4 if i % 2 else 2)
    return min(1.0, total * step / 3.0)
