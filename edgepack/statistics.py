"""Percentiles of latencies, accuracy and its intervals: pure functions, without numpy until an array comes in."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from statistics import NormalDist, fmean
from typing import TYPE_CHECKING, Any

from edgepack.documents import Interval, LatencyMs

if TYPE_CHECKING:
    import numpy as np

MIN_RUNS = {50: 11, 90: 64, 95: 130, 99: 662}
"""Runs that a percentile needs before it may be claimed: MLPerf LoadGen's early stopping.

The smallest n at which at most one run above the percentile would be seen with a probability of at most 1 %
(https://github.com/mlcommons/inference_policies/blob/master/inference_rules.adoc, "Early Stopping").
"""

_BOOTSTRAP_RESAMPLES = 1000


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


def top1_hits(outputs: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Which rows are right: the largest of ``outputs`` [N, classes] lies at the label; booleans [N].

    ``labels`` are class numbers [N] or one-hot rows [N, classes]. Raises ValueError where the shapes do not fit.
    """
    scores = outputs.reshape(len(outputs), -1)
    truth = labels.reshape(len(labels), -1)
    truth = truth.argmax(axis=1) if truth.shape[1] > 1 else truth[:, 0]
    if len(scores) != len(truth):
        raise ValueError(f"{len(scores)} outputs, {len(truth)} labels")
    if scores.shape[1] < 2:
        raise ValueError("top1 needs an output with one score per class")
    hits: np.ndarray[Any, Any] = scores.argmax(axis=1) == truth
    return hits


def top1(outputs: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> float:
    """The share of rows whose largest output lies at the label, 0..1; shapes as :func:`top1_hits`."""
    return float(top1_hits(outputs, labels).mean())


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


def bootstrap_drop_interval(
    drop_over: Callable[[Sequence[int]], float],
    n: int,
    confidence: float = 0.95,
    resamples: int = _BOOTSTRAP_RESAMPLES,
) -> Interval:
    """The interval of a drop in any metric over n paired samples: the percentile bootstrap (Efron 1979), seeded.

    ``drop_over(rows)`` computes the drop over those row numbers; rows are drawn with replacement, the same for the
    reference and the quantized model, so that the pairs stay together.
    """
    # Resampling wants speed and the same answer every time, not secrecy.
    draw = random.Random(0)  # noqa: S311
    drops = sorted(drop_over(draw.choices(range(n), k=n)) for _ in range(resamples))
    cut = int(resamples * (1 - confidence) / 2)
    return Interval(drops[cut], drops[resamples - 1 - cut], confidence)
