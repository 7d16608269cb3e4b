"""The intervals of latency percentiles, and how many more runs would settle on which side of a limit one lies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from edgepack.documents import Interval, LatencyIntervals
from edgepack.statistics.dependence import dependence
from edgepack.statistics.distributions import at_most, least, student_quantile
from edgepack.statistics.percentiles import MIN_RUNS

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_MOST_RUNS = 10_000_000


def latency_intervals(samples_ms: Sequence[float], confidence: float = 0.95) -> LatencyIntervals:
    """The interval of each percentile, in milliseconds, from runs in the order in which they were made.

    An interval goes from one measured run to another: the ranks between which the percentile of independent runs from
    any distribution lies with that confidence (binomial: H. A. David, H. N. Nagaraja, Order Statistics, 3rd edition,
    7.1). Where runs resemble their neighbours, the ranks are those of as many independent runs as they are worth
    (:func:`effective_runs`), moved to the same shares of all runs (R. S. Woodruff, JASA 47:635, 1952). Deterministic.

    None where no interval holds: fewer runs than the percentile needs (:data:`MIN_RUNS`), too few effective ones for
    the interval to end at both sides, a dependence that never fades (a trend), or samples that are no times.
    """
    import numpy as np

    runs = np.asarray(samples_ms, dtype=np.float64)
    if not np.all(np.isfinite(runs)):
        return LatencyIntervals(None, None, None, None)
    return LatencyIntervals(*(_interval(runs, p, confidence) for p in MIN_RUNS))


def effective_runs(samples_ms: Sequence[float] | Array, p: int, confidence: float = 0.95) -> float | None:
    """How many independent runs these are worth for their p-th percentile; None where dependence never fades.

    What matters to a percentile is the share of runs below it. Its variance is that of a block bootstrap
    (:func:`~edgepack.statistics.dependence.dependence`), taken of the runs that lie above the percentile and of the
    runs' ranks, whichever depend more. The number shrinks once more because that variance is itself an estimate:
    by the square of z / t (E. L. Korn, B. I. Graubard, Survey Methodology 24:193, 1998).
    """
    import numpy as np

    runs = np.asarray(samples_ms, dtype=np.float64)
    ordered = np.sort(runs)
    ranks = np.searchsorted(ordered, runs, "left") + np.searchsorted(ordered, runs, "right")
    found = [dependence(series) for series in (ranks, runs <= ordered[len(runs) * p // 100])]
    worst = max((one.inflation, -one.freedom) for one in found if one) if all(found) else None
    if worst is None:
        return None
    inflation, freedom = worst[0], -worst[1]
    doubt = 1.0
    if math.isfinite(freedom):
        doubt = student_quantile(confidence, freedom) / NormalDist().inv_cdf(0.5 + confidence / 2)
    return len(runs) / (inflation * doubt * doubt)


def runs_to_settle(samples_ms: Sequence[float], p: int, limit_ms: float, confidence: float = 0.95) -> int | None:
    """How many more runs settle on which side of ``limit_ms`` the p-th percentile lies, if the runs go on as they did.

    Settled: the limit lies outside of the interval of :func:`latency_intervals`. 0 where it does already. Found by
    doubling and halving, to 1 %. None where it cannot be told: no runs, dependence that never fades, a percentile at
    the limit itself, or more than ten million runs.
    """
    import numpy as np

    n = len(samples_ms)
    worth = effective_runs(samples_ms, p, confidence) if n and np.all(np.isfinite(samples_ms)) else None
    if worth is None:
        return None
    below = sum(sample <= limit_ms for sample in samples_ms) / n

    def settled(runs: float) -> bool:
        shares = _shares(p, runs * worth / n, confidence) if runs >= MIN_RUNS[p] else None
        return shares is not None and (below < shares[0] or below > shares[1])

    high = n
    while not settled(high):
        high *= 2
        if high > _MOST_RUNS:
            return None
    low = high // 2 if high > n else n
    while high - low > max(1, low // 100):
        middle = (low + high) // 2
        low, high = (low, middle) if settled(middle) else (middle, high)
    return high - n


def _interval(runs: Array, p: int, confidence: float) -> Interval | None:
    import numpy as np

    n = len(runs)
    worth = effective_runs(runs, p, confidence) if n >= MIN_RUNS[p] else None
    shares = _shares(p, worth, confidence) if worth is not None else None
    if shares is None:
        return None
    ordered = np.sort(runs)
    low, high = math.floor(shares[0] * n), min(n - 1, math.ceil(shares[1] * n))
    return Interval(float(ordered[low]), float(ordered[high]), confidence)


def _shares(p: int, runs: float, confidence: float) -> tuple[float, float] | None:
    """Between which shares of so many independent runs the percentile lies; None where there is no run beyond it."""
    risk, share = (1 - confidence) / 2, p / 100
    if runs < 2 or at_most(0, runs, share) > risk or at_most(runs - 1, runs, share) < 1 - risk:
        return None
    low = least(lambda k: at_most(k, runs, share) > risk, 0, runs - 1)
    high = least(lambda k: at_most(k, runs, share) >= 1 - risk, 0, runs - 1)
    return (low - 1e-6) / runs, (high - 1e-6) / runs
