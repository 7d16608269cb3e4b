"""Percentiles of latencies, and how many runs one needs before it may be claimed (MLPerf LoadGen's early stopping)."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from edgepack.documents import LatencyMs
from edgepack.statistics.distributions import at_most

EARLY_STOPPING_RISK = 0.01
"""LoadGen's confidence is 0.99, its tolerance 0 (mlcommons/inference, loadgen/results.cc, ``EarlyStopping``)."""


def least_runs(p: int, over: int = 1) -> int:
    """The fewest runs that prove a p-th percentile when ``over`` of them lie above it.

    LoadGen's early stopping (mlcommons/inference, loadgen/early_stopping.cc, ``MinPassingQueriesFinder``): the smallest
    n at which, were the true share of runs above it ``1 - p / 100``, so few or fewer would be seen with a probability
    of less than 1 %. LoadGen counts the runs that are not above (h) and those that are (t) apart; n is h + t.
    Its single-stream estimate wants ``t = 1``. Raises ValueError with p outside 1..99 or ``over`` below 0.
    """
    if not 0 < p < 100 or over < 0:
        raise ValueError(f"no percentile {p} with {over} runs above it")

    def proven(n: int) -> bool:
        return at_most(over, n, 1 - p / 100) < EARLY_STOPPING_RISK

    low, high = over, over + 1
    while not proven(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if proven(middle) else (middle, high)
    return high


MIN_RUNS = {p: least_runs(p) for p in (50, 90, 95, 99)}
"""Runs that a percentile needs before it may be claimed, by :func:`least_runs`: 11, 64, 130 and 662."""


def percentile(samples_ms: Sequence[float], p: int) -> float:
    """The p-th percentile in milliseconds as LoadGen takes it: the element floor(n * p / 100) of the sorted samples.

    Raises ValueError without samples or with p outside 0..99.
    """
    if not samples_ms or not 0 <= p < 100:
        raise ValueError(f"no percentile {p} of {len(samples_ms)} samples")
    return sorted(samples_ms)[len(samples_ms) * p // 100]


def latency_summary(samples_ms: Sequence[float]) -> LatencyMs:
    """Percentiles, mean and minimum in milliseconds; a percentile with fewer than :data:`MIN_RUNS` runs is None."""
    n = len(samples_ms)
    claimed = {p: percentile(samples_ms, p) if n >= runs else None for p, runs in MIN_RUNS.items()}
    return LatencyMs(
        p50=claimed[50],
        p90=claimed[90],
        p95=claimed[95],
        p99=claimed[99],
        mean=fmean(samples_ms) if n else None,
        min=min(samples_ms, default=None),
        n=n,
    )
