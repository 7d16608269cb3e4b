"""The intervals of percentiles hold what they claim, on traces whose truth is known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from traces import TRACES

from edgepack.documents import Interval, LatencyIntervals
from edgepack.statistics import MIN_RUNS, latency_intervals, percentile, runs_to_settle
from edgepack.statistics.dependence import autocorrelation, dependence
from edgepack.statistics.distributions import at_most, regularized_beta

positive = st.floats(0.001, 1e6)


def held(name: str, n: int, p: int, trials: int, confidence: float = 0.95) -> tuple[int, int]:
    """(how many intervals of a trace held the true percentile, how many were given)."""
    drawn, quantile = TRACES[name]
    random = np.random.RandomState(20261124)
    truth = quantile(p / 100)
    found = [getattr(latency_intervals(drawn(random, n).tolist(), confidence), f"p{p}") for _ in range(trials)]
    given_ = [interval for interval in found if interval is not None]
    return sum(interval.low <= truth <= interval.high for interval in given_), len(given_)


@pytest.mark.parametrize("name", TRACES)
def test_an_interval_holds_the_true_percentile_as_often_as_it_claims(name: str) -> None:
    """A 95 % interval of p50 over 200 runs holds the truth in at least 92 % of 150 traces, neighbours alike or not."""
    hits, given_ = held(name, 200, 50, 150)
    assert hits >= 0.92 * given_
    assert given_ >= 0.9 * 150


@pytest.mark.parametrize(("name", "p", "n"), [("pareto", 99, 700), ("bimodal", 90, 150), ("AR(1) 0.5", 95, 800)])
def test_an_interval_of_a_tail_holds_as_often_as_it_claims(name: str, p: int, n: int) -> None:
    """So do those of p90, p95 and p99, over heavy tails and two modes."""
    hits, given_ = held(name, n, p, 60)
    assert hits >= 0.92 * given_
    assert given_ >= 50


def test_a_lower_confidence_gives_a_shorter_interval() -> None:
    """At 80 % an interval is shorter than at 95 %, lies within it, and still holds what it claims."""
    runs = TRACES["lognormal"][0](np.random.RandomState(1), 500).tolist()
    wide, narrow = latency_intervals(runs).p50, latency_intervals(runs, 0.8).p50
    assert wide is not None
    assert narrow is not None
    assert wide.low < narrow.low < narrow.high < wide.high
    hits, given_ = held("normal", 200, 50, 150, confidence=0.8)
    assert hits >= 0.77 * given_


@settings(max_examples=60, deadline=None)
@given(st.lists(positive, max_size=300))
def test_an_interval_holds_its_percentile_and_ends_at_measured_runs(runs: list[float]) -> None:
    """Whatever was measured, the reported percentile lies in its interval, whose ends are runs; too few give none."""
    intervals = latency_intervals(runs)
    for p, needed in MIN_RUNS.items():
        interval: Interval | None = getattr(intervals, f"p{p}")
        if len(runs) < needed:
            assert interval is None
        if interval is not None:
            assert interval.low <= percentile(runs, p) <= interval.high
            assert {interval.low, interval.high} <= set(runs)


def test_equal_runs_have_an_interval_of_no_width() -> None:
    """A clock too coarse to tell the runs apart is no dependence: every percentile is known."""
    assert dataclasses.astuple(latency_intervals([2.0] * 1000)) == ((2.0, 2.0, 0.95),) * 4


def test_runs_that_only_get_slower_have_no_interval() -> None:
    """A latency that grows throughout has no percentile to speak of, and says so for each."""
    slower = [10 + run / 100 for run in range(1000)]
    assert latency_intervals(slower) == LatencyIntervals(None, None, None, None)
    assert runs_to_settle(slower, 50, 12.0) is None


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_samples_that_are_no_times_have_no_interval(bad: float) -> None:
    """One sample that is no number, and nothing is claimed."""
    assert latency_intervals([1.0] * 700 + [bad]) == LatencyIntervals(None, None, None, None)
    assert runs_to_settle([1.0] * 700 + [bad], 50, 2.0) is None


def test_fifty_thousand_runs_take_no_time() -> None:
    """Resampled without drawing: all four intervals of the longest measurement at once, the same every time."""
    runs = TRACES["AR(1) 0.5"][0](np.random.RandomState(2), 50_000).tolist()
    intervals = latency_intervals(runs)
    assert intervals == latency_intervals(runs)
    assert intervals.p99 is not None
    assert intervals.p99.high - intervals.p99.low < 0.04


@pytest.mark.parametrize("limit", [9.0, 9.97, 10.02, 10.5])
def test_so_many_more_runs_do_settle_it(limit: float) -> None:
    """With twice as many more runs as were named, like those before, the limit lies outside of the interval."""
    drawn, random = TRACES["normal"][0], np.random.RandomState(3)
    runs = drawn(random, 200).tolist()
    more = runs_to_settle(runs, 50, limit)
    assert more is not None
    interval = latency_intervals(runs).p50
    assert interval is not None
    assert (more == 0) == (not interval.low <= limit < interval.high)
    as_before = np.concatenate([random.permutation(runs) for _ in range(2 + 2 * more // 200)])
    after = latency_intervals(as_before[: 200 + 2 * more].tolist()).p50
    assert after is not None
    assert not after.low <= limit < after.high


def test_too_few_runs_are_told_how_many_are_missing() -> None:
    """20 runs far below the limit lack the rest of the 130 that p95 needs."""
    runs = TRACES["normal"][0](np.random.RandomState(4), 20).tolist()
    assert runs_to_settle(runs, 95, 100.0) == pytest.approx(MIN_RUNS[95] - 20, abs=2)


def test_what_no_number_of_runs_settles() -> None:
    """No runs at all, or a percentile that is the limit itself: no number of runs would do."""
    assert runs_to_settle([], 50, 1.0) is None
    assert runs_to_settle([1.0, 2.0] * 5_000, 50, 1.0) is None


def test_the_autocorrelation_is_that_of_the_definition() -> None:
    """The transform gives the textbook sums; independent runs are worth themselves, alike ones are worth less."""
    series = np.random.RandomState(5).randn(300)
    centred = series - series.mean()
    expected = [float(centred[: 300 - lag] @ centred[lag:]) / float(centred @ centred) for lag in range(6)]
    assert autocorrelation(series, 5) == pytest.approx(expected)
    alike = dependence(TRACES["AR(1) 0.8"][0](np.random.RandomState(6), 5_000))
    alone = dependence(series)
    assert alike is not None
    assert alone is not None
    assert 6.5 < alike.inflation < 13  # (1 + 0.8) / (1 - 0.8) = 9
    assert alone.inflation < 1.3


@pytest.mark.parametrize(
    ("x", "a", "b", "value"),
    [(0.5, 2, 3, 0.6875), (0.1, 1, 1, 0.1), (0.0, 2, 2, 0.0), (1.0, 2, 2, 1.0), (0.9, 0.5, 0.5, 0.7951672353)],
)
def test_the_incomplete_beta_function_has_its_known_values(x: float, a: float, b: float, value: float) -> None:
    """Closed forms: a polynomial for whole a and b, the arcsine law for halves."""
    assert regularized_beta(x, a, b) == pytest.approx(value, abs=1e-9)


def test_the_binomial_is_that_of_whole_sums() -> None:
    """At most 9 of 10, at most none, all of them, fewer than none."""
    assert at_most(9, 10, 0.5) == pytest.approx(1 - 2**-10)
    assert at_most(0, 10, 0.1) == pytest.approx(0.9**10)
    assert (at_most(10, 10, 0.5), at_most(-1, 10, 0.5)) == (1.0, 0.0)
