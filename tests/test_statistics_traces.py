"""Where a trace's warm-up ends, and which of its runs lie far out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from traces import TRACES

from edgepack.statistics import find_outliers, warmup_runs


@pytest.mark.parametrize("name", TRACES)
def test_a_warm_device_has_no_warm_up(name: str) -> None:
    """Of 100 traces of a settled device, whatever its noise, at least 90 say that at most two batches were warm-up."""
    random = np.random.RandomState(1)
    found = [warmup_runs(TRACES[name][0](random, 400).tolist()) for _ in range(100)]
    assert sum(runs is not None and runs <= 10 for runs in found) >= 90


@pytest.mark.parametrize("cold", [1.2, 2.0, 0.8])
@pytest.mark.parametrize("runs", [5, 40, 120])
def test_a_cold_start_is_found(cold: float, runs: int) -> None:
    """Runs at another level, slower or faster, are all found as warm-up, and no more than two batches besides."""
    trace = TRACES["normal"][0](np.random.RandomState(2), 400)
    trace[:runs] *= cold
    found = warmup_runs(trace.tolist())
    assert found is not None
    assert runs <= found <= runs + 10


def test_a_warm_up_that_fades_is_found_where_it_no_longer_shows() -> None:
    """Of a 30 % start that fades with 50 runs, what is left after the warm-up is less than 5 %."""
    trace = TRACES["normal"][0](np.random.RandomState(3), 1000) * (1 + 0.3 * np.exp(-np.arange(1000) / 50))
    found = warmup_runs(trace.tolist())
    assert found is not None
    assert 0.3 * np.exp(-found / 50) < 0.05


@pytest.mark.parametrize(
    "trace",
    [
        [10 * 1.001**run for run in range(400)],
        [10.0] * 300 + [12.0] * 100,
        [12.0] * 250 + [10.0] * 150,
        [1.0] * 39,
        [],
        [1.0] * 100 + [float("nan")] * 100,
    ],
    ids=["grows", "late step", "warm too late", "39 runs", "nothing", "nan"],
)
def test_what_never_settles_has_no_end_of_warm_up(trace: list[float]) -> None:
    """A latency that keeps growing, changes late, or is too short to tell: None, which is not 0."""
    assert warmup_runs(trace) is None


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.001, 1e6), max_size=200))
def test_warm_up_is_bounded(trace: list[float]) -> None:
    """Never more than half of the runs, always whole batches."""
    found = warmup_runs(trace)
    assert found is None or (0 <= found <= len(trace) // 2 and found % 5 == 0)


def test_outliers_are_counted_and_the_fences_told() -> None:
    """Of 500 steady runs with three stalls and one that is too fast to be true, four are named."""
    trace = TRACES["normal"][0](np.random.RandomState(4), 500)
    trace[[10, 200, 499]] = [30.0, 55.0, 20.0]
    trace[300] = 2.0
    found = find_outliers(trace.tolist())
    assert found is not None
    assert (found.above, found.below) == (3, 1)
    assert 8 < found.low_ms < 10 < found.high_ms < 12


def test_a_clock_tick_is_no_outlier() -> None:
    """Runs that are equal but for a tick of a coarse clock have no outlier; three runs have no fences."""
    found = find_outliers([2.0] * 400 + [2.01] * 3)
    assert found is not None
    assert (found.above, found.below) == (0, 0)
    assert find_outliers([1.0, 2.0, 3.0]) is None
