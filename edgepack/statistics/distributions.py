"""The binomial distribution and Student's t, without SciPy: both are the regularized incomplete beta function."""

from __future__ import annotations

import math
from collections.abc import Callable

_TINY = 1e-300
_PRECISION = 1e-12
_MOST_TERMS = 100_000


def regularized_beta(x: float, a: float, b: float) -> float:
    """I_x(a, b) for ``0 <= x <= 1`` and positive a and b, to about 1e-12.

    The continued fraction of the NIST Digital Library of Mathematical Functions, 8.17.22, by W. J. Lentz's method
    (Applied Optics 15:668, 1976), on the side of x where it converges fast.
    """
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):
        return 1 - regularized_beta(1 - x, b, a)
    log_front = a * math.log(x) + b * math.log1p(-x) + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    c, d = 1.0, 1 / _apart(1 - (a + b) * x / (a + 1))
    fraction = d
    for m in range(1, _MOST_TERMS):
        before = fraction
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / _apart(1 + term * d)
            c = _apart(1 + term / c)
            fraction *= c * d
        if abs(fraction - before) <= _PRECISION * abs(fraction):
            break
    return math.exp(log_front) * fraction / a


def _apart(value: float) -> float:
    """Away from zero, as Lentz's method asks for."""
    return value if abs(value) > _TINY else _TINY


def at_most(k: float, n: float, share: float) -> float:
    """The probability of at most k events in n trials, each with a chance of ``share`` (0..1).

    ``P(X <= k) = I_(1 - share)(n - k, k + 1)`` (DLMF 8.17.5), which holds between whole numbers as well: that is what
    an effective number of runs needs.
    """
    if k < 0:
        return 0.0
    return 1.0 if k >= n else regularized_beta(1 - share, n - k, k + 1)


def student_quantile(confidence: float, freedom: float) -> float:
    """The t of a two-sided interval: ``P(|T| <= t) = confidence``; degrees of freedom may be broken.

    Raises ValueError without any freedom, or with a confidence outside 0..1 (exclusive).
    """
    if freedom <= 0 or not 0 < confidence < 1:
        raise ValueError(f"no t of {freedom} degrees of freedom at a confidence of {confidence}")

    def inside(t: float) -> float:
        return 1 - regularized_beta(freedom / (freedom + t * t), freedom / 2, 0.5)  # Abramowitz & Stegun, 26.7.1

    high = 1.0
    while inside(high) < confidence:
        high *= 2
    return least(lambda t: inside(t) >= confidence, 0.0, high)


def least(holds: Callable[[float], bool], low: float, high: float) -> float:
    """Where a condition that holds at ``high`` and, once it holds, from there on, begins to; by halving, to 1e-9."""
    while high - low > 1e-9 * max(1.0, abs(high)):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
