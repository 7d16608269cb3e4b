"""Percentiles of latencies, and how many runs one needs before it may be claimed (MLPerf LoadGen's early stopping)."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from edgepack.documents import LatencyMs

MIN_RUNS = {50: 11, 90: 64, 95: 130, 99: 662}
"""Runs that a percentile needs before it may be claimed: MLPerf LoadGen's early stopping.

The smallest n at which at most one run above the percentile would be seen with a probability of at most 1 %
(https://github.com/mlcommons/inference_policies/blob/master/inference_rules.adoc, "Early Stopping").
"""


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
