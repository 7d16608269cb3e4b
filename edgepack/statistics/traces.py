"""What a trace of runs shows besides its percentiles: where its warm-up ends, and which runs lie far out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from edgepack.documents import Outliers

WARMUP_BATCH = 5
"""As in MSER-5 (K. P. White, Simulation 69:323, 1997): one slow run does not look like a change of level."""

WARMUP_AGREEMENT = math.log(1.03)
"""Levels that are nearer than 3 % are one: the loader's own rule while it warms up."""

LEAST_BATCHES = 8
"""Fewer leave no half to be warm in and no half to compare it with."""

FAR_FENCE = 3.0
LEAST_SPREAD = 0.01


def warmup_runs(samples: Sequence[float]) -> int | None:
    """How many runs at the start are warm-up; None where the trace never settles, or is too short to tell (40 runs).

    The rule, in any unit of time: take the logarithm of the median of each batch of five runs. The level is the median
    of the last half of these, the spread 1.4826 times the median distance from it (the normal-consistent MAD). The
    level is steady where the medians of the third and the fourth quarter differ by at most 3 %, or by at most the
    spread where that is more. The warm-up ends before the first batch that lies within 3 % of the level (or within
    three spreads of it, where that is more) and so does one of the next two; it must be in the first half.
    """
    if not all(sample > 0 and math.isfinite(sample) for sample in samples):
        return None
    starts = range(0, len(samples) - WARMUP_BATCH + 1, WARMUP_BATCH)
    batches = [math.log(median(samples[start : start + WARMUP_BATCH])) for start in starts]
    half = len(batches) // 2
    if len(batches) < LEAST_BATCHES:
        return None
    last = batches[half:]
    level = median(last)
    spread = 1.4826 * median(abs(batch - level) for batch in last)
    quarter = len(last) // 2
    if abs(median(last[:quarter]) - median(last[quarter:])) > max(WARMUP_AGREEMENT, spread):
        return None
    reach = max(WARMUP_AGREEMENT, 3 * spread)
    near = [abs(batch - level) <= reach for batch in batches]
    settled = next((i for i in range(half) if near[i] and (near[i + 1] or near[i + 2])), None)
    return None if settled is None else settled * WARMUP_BATCH


def find_outliers(samples_ms: Sequence[float]) -> Outliers | None:
    """The runs beyond Tukey's far fences, counted; they stay in every figure. None with fewer than four runs.

    Three interquartile ranges outside of the quartiles (J. W. Tukey, Exploratory Data Analysis, 1977, 2D), of the
    logarithms, because latencies are skewed. The range is at least 1 %, so that a steady device's next clock tick is
    none. Times that are not positive and finite are not looked at.
    """
    logs = sorted(math.log(sample) for sample in samples_ms if sample > 0 and math.isfinite(sample))
    if len(logs) < 4:
        return None
    first, third = logs[len(logs) // 4], logs[len(logs) * 3 // 4]
    reach = FAR_FENCE * max(third - first, LEAST_SPREAD)
    low, high = first - reach, third + reach
    above, below = sum(value > high for value in logs), sum(value < low for value in logs)
    return Outliers(above, below, round(math.exp(low), 6), round(math.exp(high), 6))
