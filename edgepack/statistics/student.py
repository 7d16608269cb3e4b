"""Student's t distribution for whole degrees of freedom, without SciPy."""

from __future__ import annotations

import math


def student_quantile(confidence: float, freedom: int) -> float:
    """The t of a two-sided interval: ``P(|T| <= t) = confidence``; by halving, to 1e-9.

    Raises ValueError without a degree of freedom, or with a confidence outside 0..1 (exclusive).
    """
    if freedom < 1 or not 0 < confidence < 1:
        raise ValueError(f"no t of {freedom} degrees of freedom at a confidence of {confidence}")
    low, high = 0.0, 1.0
    while student_share(high, freedom) < confidence:
        low, high = high, 2 * high
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if student_share(middle, freedom) < confidence else (low, middle)
    return high


def student_share(t: float, freedom: int) -> float:
    """``P(|T| <= t)``: the finite sums of Abramowitz & Stegun, 26.7.3 (odd degrees of freedom) and 26.7.4."""
    angle = math.atan(t / math.sqrt(freedom))
    sine, square = math.sin(angle), math.cos(angle) ** 2
    odd = freedom % 2
    term = total = math.cos(angle) if odd else 1.0
    for k in range(3 if odd else 2, freedom - 1, 2):
        term *= square * (k - 1) / k
        total += term
    if not odd:
        return sine * total
    return 2 / math.pi * (angle + (sine * total if freedom > 1 else 0.0))
