from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.statistics import MIN_RUNS, latency_summary, least_runs, percentile

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


def test_minimum_runs_are_those_that_loadgen_publishes() -> None:
    """64 runs for p90 and 662 for p99 are LoadGen's own floors; with no run above a p99, 459 (its server scenario).

    Published in mlcommons/endpoints, pull request 417, from loadgen/early_stopping.cc of mlcommons/inference.
    """
    assert MIN_RUNS == {50: 11, 90: 64, 95: 130, 99: 662}
    assert least_runs(99, over=0) == 459


@pytest.mark.parametrize("over", [0, 1, 2, 10])
@pytest.mark.parametrize("p", MIN_RUNS)
def test_least_runs_are_the_fewest_that_prove_a_percentile(p: int, over: int) -> None:
    """By exact binomial sums: so many runs leave less than 1 % of risk, one run fewer leaves more."""

    def risk(n: int) -> Fraction:
        share = Fraction(p, 100)
        return sum((math.comb(n, k) * (1 - share) ** k * share ** (n - k) for k in range(over + 1)), Fraction(0))

    runs = least_runs(p, over)
    assert risk(runs) < Fraction(1, 100) <= risk(runs - 1)


@pytest.mark.parametrize(("p", "over"), [(0, 1), (100, 1), (50, -1)])
def test_no_runs_prove_what_is_no_percentile(p: int, over: int) -> None:
    """A percentile outside of 1 to 99, or fewer than no runs above it, is an error."""
    with pytest.raises(ValueError, match="no percentile"):
        least_runs(p, over)


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
