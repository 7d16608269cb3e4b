"""Statistics: percentiles, intervals, ratios, and what it takes to settle a question. Pure functions of plain values.

Each module imports the ones above it at most: ``percentiles`` (LoadGen's early stopping), ``shares`` (accuracies and
their drops), ``student`` (Student's t), ``paired`` (two releases in turns).
"""

from edgepack.statistics.paired import RatioEstimate, paired_ratio
from edgepack.statistics.percentiles import MIN_RUNS, latency_summary, percentile
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

__all__ = [
    "DROP_ROUNDING",
    "FEWEST_RESAMPLES",
    "MIN_RUNS",
    "ONE_SIDED_95",
    "RESAMPLES",
    "RatioEstimate",
    "bootstrap_drops",
    "latency_summary",
    "mcnemar_p",
    "pair_table",
    "paired_drop_interval",
    "paired_ratio",
    "percentile",
    "percentile_interval",
    "proportion_interval",
    "samples_to_narrow",
    "samples_to_settle",
    "table_drop_interval",
]
