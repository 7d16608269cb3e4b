"""Intervals of accuracies and of their drops, and the samples that a claim about them needs: pure functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from edgepack.documents import Interval

if TYPE_CHECKING:
    import numpy as np

ONE_SIDED_95 = 0.90
"""The upper end of a two-sided interval at 90 % is a one-sided bound at 95 %."""

DROP_ROUNDING = 1e-9
"""Accuracies are quotients of counts: 0.90 - 0.88 is 0.020000000000000018 in binary floating point."""

RESAMPLES = 1000
"""What B. Efron and R. Tibshirani (An Introduction to the Bootstrap, 1993, 13.3) want for percentiles of 5 %."""

FEWEST_RESAMPLES = 100
"""Fewer leave two drops outside of a 95 % interval, or none."""

# Who has more labelled samples than this needs no advice.
_MOST_SAMPLES = 1_000_000


def proportion_interval(hits: float, n: float, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a share (Wilson 1927, JASA 22:209; without continuity correction)."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    centre = (hits + z * z / 2) / (n + z * z)
    half = z * math.sqrt(hits * (n - hits) / n + z * z / 4) / (n + z * z)
    return Interval(max(0.0, centre - half), min(1.0, centre + half), confidence)


def paired_drop_interval(
    reference_hits: Sequence[bool] | np.ndarray[Any, Any],
    quantized_hits: Sequence[bool] | np.ndarray[Any, Any],
    confidence: float = 0.95,
) -> Interval:
    """The interval of ``share(reference) - share(quantized)`` over the same samples, both right or wrong per sample.

    Newcombe's hybrid score interval for paired proportions (R. G. Newcombe, Statistics in Medicine 17:2635, 1998,
    method 10): Wilson's bounds of both shares, joined with the correlation phi of the pairs. It keeps its coverage with
    few disagreements, where the Wald interval is too short. A one-sided bound at 95 % is a bound at ``confidence=0.9``.
    Raises ValueError where the lengths differ or there is no sample.
    """
    return table_drop_interval(*pair_table(reference_hits, quantized_hits), confidence=confidence)


def pair_table(
    reference_hits: Sequence[bool] | np.ndarray[Any, Any], quantized_hits: Sequence[bool] | np.ndarray[Any, Any]
) -> tuple[int, int, int, int]:
    """How many samples both have right, only the reference, only the quantized model, and neither.

    Raises ValueError where the lengths differ or there is no sample.
    """
    pairs = [(bool(a), bool(b)) for a, b in zip(reference_hits, quantized_hits, strict=True)]
    if not pairs:
        raise ValueError("no samples")
    both = sum(a and b for a, b in pairs)
    lost = sum(a and not b for a, b in pairs)
    won = sum(b and not a for a, b in pairs)
    return both, lost, won, len(pairs) - both - lost - won


def table_drop_interval(both: float, lost: float, won: float, neither: float, confidence: float = 0.95) -> Interval:
    """:func:`paired_drop_interval` of a table of counts; they may be fractions, to ask what more samples would give."""
    n = both + lost + won + neither
    p, q = (both + lost) / n, (both + won) / n
    one, two = proportion_interval(both + lost, n, confidence), proportion_interval(both + won, n, confidence)
    phi = _pair_correlation(both, lost, won, neither)
    below = _joined(p - one.low, two.high - q, phi)
    above = _joined(one.high - p, q - two.low, phi)
    return Interval(max(-1.0, p - q - below), min(1.0, p - q + above), confidence)


def _joined(a: float, b: float, phi: float) -> float:
    return math.sqrt(max(0.0, a * a - 2 * phi * a * b + b * b))


def _pair_correlation(both: float, lost: float, won: float, neither: float) -> float:
    """Newcombe's phi: corrected for continuity where positive, 0 where a margin of the table is empty."""
    margins = (both + lost) * (won + neither) * (both + won) * (lost + neither)
    if margins == 0:
        return 0.0
    cross = both * neither - lost * won
    if cross > 0:
        cross = max(cross - (both + lost + won + neither) / 2, 0.0)
    return cross / math.sqrt(margins)


def mcnemar_p(lost: int, won: int) -> float:
    """The probability of so uneven a split of the disagreements, or a more uneven one, were both models as good.

    McNemar's test in its exact, two-sided form: of ``lost + won`` samples that one model alone has right, each falls to
    either side with probability 1/2 (Q. McNemar, Psychometrika 12:153, 1947; binomial as in A. Agresti, Categorical
    Data Analysis, 3rd edition, 11.1). 1 where the models disagree nowhere.
    """
    n = lost + won
    tail = term = 1
    for k in range(min(lost, won)):
        term = term * (n - k) // (k + 1)
        tail += term
    return min(1.0, 2 * tail / (1 << n))


def bootstrap_drops(
    drop_over: Callable[[Any], float], groups: Sequence[Any], resamples: int = RESAMPLES
) -> tuple[float, ...]:
    """A drop in any metric over resamples of the paired samples, sorted; the same every time.

    ``drop_over(rows)`` computes the drop over an array of row numbers. Rows are drawn with replacement, the same for
    the reference and the quantized model, so that the pairs stay together; each of ``groups`` keeps its size.
    """
    import numpy as np

    # RandomState's stream is frozen over numpy's versions (NEP 19), that of its successor is not.
    draw = np.random.RandomState(0)
    members = [np.asarray(group) for group in groups]

    def resample() -> Any:
        return np.concatenate([rows[draw.randint(0, len(rows), len(rows))] for rows in members])

    return tuple(sorted(drop_over(resample()) for _ in range(resamples)))


def percentile_interval(drops: Sequence[float], confidence: float = 0.95) -> Interval:
    """The percentile bootstrap's interval (B. Efron, Annals of Statistics 7:1, 1979) from sorted resamples."""
    cut = int(len(drops) * (1 - confidence) / 2)
    return Interval(drops[cut], drops[len(drops) - 1 - cut], confidence)


def samples_to_settle(table: tuple[int, int, int, int], limit: float) -> int | None:
    """How many samples settle on which side of ``limit`` the drop lies, if the shares in ``table`` stay.

    Settled: the one-sided 95 % bound of the drop (:func:`table_drop_interval` of the table scaled to that many samples)
    lies on the same side as the drop itself. Found by doubling and halving, to 1 %. None where the drop is the limit,
    or where it takes more than a million.
    """
    n = sum(table)
    if n == 0 or math.isclose((table[1] - table[2]) / n, limit, abs_tol=1e-9):
        return None
    within = (table[1] - table[2]) / n < limit

    def enough(samples: int) -> bool:
        both, lost, won, neither = (count * samples / n for count in table)
        interval = table_drop_interval(both, lost, won, neither, ONE_SIDED_95)
        return interval.high <= limit if within else interval.low > limit

    high = 1
    while not enough(high):
        high *= 2
        if high > _MOST_SAMPLES:
            return None
    low = high // 2
    while high - low > max(1, low // 100):
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def samples_to_narrow(drop: float, interval: Interval, n: int, limit: float) -> int | None:
    """:func:`samples_to_settle` for what is no share, from its interval at :data:`ONE_SIDED_95` over n samples.

    The distance d from an estimate to its bound shrinks with the square root of the samples (the central limit
    theorem), so that ``d * sqrt(n / m) = |limit - drop|`` gives m. None where the drop is the limit, or m is more than
    a million.
    """
    room = abs(limit - drop)
    if room <= 1e-12:
        return None
    distance = interval.high - drop if drop < limit else drop - interval.low
    needed = math.ceil(n * (max(0.0, distance) / room) ** 2) or 1
    return needed if needed <= _MOST_SAMPLES else None
