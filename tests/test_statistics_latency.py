from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.statistics import MIN_RUNS, latency_summary, percentile

latencies = st.lists(st.floats(0.001, 1e6), min_size=1, max_size=300)


@given(latencies, st.integers(0, 99))
def test_percentile_is_a_measured_value_with_enough_samples_on_each_side(samples: list[float], p: int) -> None:
    """A percentile is one of the measured values, and p percent of the samples are not above it."""
    value = percentile(samples, p)
    assert value in samples
    assert sum(sample <= value for sample in samples) >= len(samples) * p / 100


def test_percentile_follows_loadgen() -> None:
    """Of 100 samples p90 is the 91st, as LoadGen takes it."""
    assert percentile([float(n) for n in range(100, 0, -1)], 90) == 91.0


@pytest.mark.parametrize(("p", "runs"), MIN_RUNS.items())
def test_minimum_runs_are_those_of_early_stopping(p: int, runs: int) -> None:
    """The table of minimum runs is what LoadGen's binomial rule gives: one run above the percentile, 1 % risk."""

    def risk(n: int) -> float:
        share = p / 100
        return math.fsum(math.comb(n, k) * (1 - share) ** k * share ** (n - k) for k in (0, 1))

    assert risk(runs) <= 0.01 < risk(runs - 1)


@pytest.mark.parametrize(("p", "runs"), MIN_RUNS.items())
def test_too_few_runs_claim_nothing(p: int, runs: int) -> None:
    """One run fewer than a percentile needs, and it is null."""
    enough, short = latency_summary([1.0] * runs), latency_summary([1.0] * (runs - 1))
    assert getattr(enough, f"p{p}") == 1.0
    assert getattr(short, f"p{p}") is None


def test_no_runs_give_an_empty_summary() -> None:
    """Without a run every figure is null and n is 0."""
    summary = latency_summary([])
    assert (summary.n, summary.mean, summary.min, summary.p50) == (0, None, None, None)


def test_percentile_of_nothing_is_an_error() -> None:
    """There is no percentile of no samples."""
    with pytest.raises(ValueError, match="0 samples"):
        percentile([], 50)
