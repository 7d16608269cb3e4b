"""How much slower one release is than another that ran in turns with it, in the same minutes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgepack.statistics.distributions import student_quantile
from edgepack.statistics.percentiles import MIN_RUNS
from edgepack.statistics.shares import RESAMPLES

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

RATIO_CONFIDENCE = 0.99
"""LoadGen's own confidence. At 0.95 one check in twenty would call a release different from itself."""

MIN_QUADS = 4
"""Fewer leave Student's t less than three degrees of freedom: an interval that says nothing."""


@dataclass(frozen=True, slots=True)
class RatioEstimate:
    """Latency of the candidate over that of the current release (1.05 = 5 % slower), with its interval.

    ``statistic`` names what was divided, ``pairs`` how many pairs of blocks the interval rests on.
    """

    estimate: float
    low: float
    high: float
    confidence: float
    statistic: str
    pairs: int


def paired_ratio(
    pairs: Sequence[tuple[Sequence[float], Sequence[float]]],
    statistic: str = "p50",
    confidence: float = RATIO_CONFIDENCE,
) -> RatioEstimate | None:
    """The ratio candidate / current of a percentile ("p50", "p90", "p95", "p99") or of the "mean", with its interval.

    Each pair is (the candidate's runs, the current release's runs) of two neighbouring blocks, in any one unit of
    time. The pairs stand in the order of execution, and the blocks ran A B, B A, A B, B A: two pairs are one quad
    (A B B A), in which a steady drift touches both releases alike. Each pair's runs are divided by the pair's own level
    (the geometric mean of both medians), which takes away the drift from pair to pair; the statistic is then that of
    all of one release's runs together. The interval is Student's t around the logarithm of the ratio, its standard
    error found by resampling whole quads (a cluster bootstrap: A. C. Davison, D. V. Hinkley, Bootstrap Methods, 1997,
    3.8), so that runs which resemble their neighbours are not counted as independent. Deterministic.

    None where the question cannot be answered: fewer than :data:`MIN_QUADS` quads, fewer runs of either release than
    the percentile needs (:data:`MIN_RUNS`), an empty block, a time that is not positive. A last pair without its mirror
    image is left out. Raises ValueError for a statistic that is none of these.
    """
    import numpy as np

    take = _statistic(statistic)
    count = len(pairs) // 2
    levelled = [level for pair in pairs[: 2 * count] if (level := _levelled(*pair)) is not None]
    if count < MIN_QUADS or len(levelled) < 2 * count:
        return None
    sides = [_Side([level[side] for level in levelled]) for side in (0, 1)]
    needed = MIN_RUNS[int(statistic[1:])] if statistic != "mean" else 1
    if min(len(side.values) for side in sides) < needed:
        return None

    def log_ratio(times: Array) -> float:
        above, below = (take(side.values, times[side.quads]) for side in sides)
        return math.log(above / below)

    estimate = log_ratio(np.ones(count, dtype=np.int64))
    draw = np.random.RandomState(0)  # a stream that is frozen over numpy's versions (NEP 19)
    drawn = [log_ratio(np.bincount(draw.randint(0, count, count), minlength=count)) for _ in range(RESAMPLES)]
    # Resampling n quads gives the variance with n in its denominator; Student's t asks for n - 1.
    error = float(np.std(drawn)) * math.sqrt(count / (count - 1))
    half = student_quantile(confidence, count - 1) * error
    low, high = math.exp(estimate - half), math.exp(estimate + half)
    return RatioEstimate(math.exp(estimate), low, high, confidence, statistic, 2 * count)


class _Side:
    """All of one release's runs, sorted, and the number of the quad that each comes from; two blocks are a quad."""

    def __init__(self, blocks: Sequence[Array]) -> None:
        import numpy as np

        values = np.concatenate(blocks)
        order = np.argsort(values, kind="stable")
        self.values: Array = values[order]
        self.quads: Array = np.repeat(np.arange(len(blocks)) // 2, [len(block) for block in blocks])[order]


def _levelled(candidate: Sequence[float], current: Sequence[float]) -> tuple[Array, Array] | None:
    """A pair's runs of both releases over its level; None where it has none."""
    import numpy as np

    one, two = (np.asarray(block, dtype=np.float64) for block in (candidate, current))
    if not all(block.size and np.all(np.isfinite(block)) and np.all(block > 0) for block in (one, two)):
        return None
    level = math.sqrt(float(np.median(one)) * float(np.median(two)))
    return one / level, two / level


def _statistic(name: str) -> Callable[[Array, Array], float]:
    """The statistic of sorted values, each of which counts so many times."""
    import numpy as np

    if name == "mean":
        return lambda values, times: float(np.dot(values, times) / np.sum(times))
    if name not in {f"p{p}" for p in MIN_RUNS}:
        raise ValueError(f"no statistic {name!r}: mean, {', '.join(f'p{p}' for p in MIN_RUNS)}")
    share = int(name[1:])

    def of_percentile(values: Array, times: Array) -> float:
        reached = np.cumsum(times)
        return float(values[np.searchsorted(reached, int(reached[-1]) * share // 100, side="right")])

    return of_percentile
