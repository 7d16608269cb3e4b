"""Statistics: percentiles, intervals, ratios, and what it takes to settle a question. Pure functions of plain values.

``distributions`` (binomial, Student's t), ``percentiles`` (LoadGen's early stopping), ``dependence`` (of neighbouring
runs), ``intervals`` (of percentiles), ``traces`` (warm-up, outliers), ``paired`` (two releases in turns), ``shares``
(accuracies and their drops).
"""

from edgepack.statistics.intervals import effective_runs, latency_intervals, runs_to_settle
from edgepack.statistics.paired import RatioEstimate, paired_ratio
from edgepack.statistics.percentiles import MIN_RUNS, latency_summary, least_runs, percentile
from edgepack.statistics.shares import (
    DROP_ROUNDING,
    FEWEST_RESAMPLES,
    ONE_SIDED_95,
    RESAMPLES,
    bootstrap_drops,
    mcnemar_p,
    pair_table,
    paired_drop_interval,
    percentile_interval,
    proportion_interval,
    samples_to_narrow,
    samples_to_settle,
    table_drop_interval,
)
from edgepack.statistics.traces import find_outliers, warmup_runs

__all__ = [
    "DROP_ROUNDING",
    "FEWEST_RESAMPLES",
    "MIN_RUNS",
    "ONE_SIDED_95",
    "RESAMPLES",
    "RatioEstimate",
    "bootstrap_drops",
    "effective_runs",
    "find_outliers",
    "latency_intervals",
    "latency_summary",
    "least_runs",
    "mcnemar_p",
    "pair_table",
    "paired_drop_interval",
    "paired_ratio",
    "percentile",
    "percentile_interval",
    "proportion_interval",
    "runs_to_settle",
    "samples_to_narrow",
    "samples_to_settle",
    "table_drop_interval",
    "warmup_runs",
]
