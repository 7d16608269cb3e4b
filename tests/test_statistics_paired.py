"""Two releases that ran in turns: what their ratio says, on traces whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from traces import Pairs, in_turns

from edgepack.statistics import MIN_RUNS, paired_ratio
from edgepack.statistics.distributions import student_quantile


def test_identical_releases_are_not_called_slower_while_the_device_warms_up() -> None:
    """Of 100 pairs of identical releases under 12 % drift and 2 % noise at most 2 are called slower, none by 5 %."""
    random = np.random.RandomState(1)
    estimates = [paired_ratio(in_turns(random, 1.0)) for _ in range(100)]
    assert sum(e.low > 1 for e in estimates if e is not None) <= 2
    assert all(e is not None and e.estimate < 1.05 for e in estimates)


@pytest.mark.parametrize("statistic", ["p50", "p90", "mean"])
def test_a_slowdown_of_six_percent_is_found(statistic: str) -> None:
    """A release that is 6 % slower is told from the current one, under the same drift, in at least 29 of 30 tries."""
    random = np.random.RandomState(2)
    estimates = [paired_ratio(in_turns(random, 1.06), statistic) for _ in range(30)]
    assert sum(e is not None and e.low > 1 for e in estimates) >= 29


def test_runs_one_release_after_the_other_would_blame_the_drift() -> None:
    """The reason for turns: the same runs measured one release after the other show identical releases as different."""
    flat = in_turns(np.random.RandomState(3), 1.0)
    runs = np.array([block for pair in flat for block in pair]).reshape(4, 6, 20)
    later, sooner = np.median(runs[2:]), np.median(runs[:2])
    assert later / sooner > 1.05


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31 - 1), st.floats(0.2, 5), st.sampled_from(["p50", "p90", "mean"]))
def test_the_ratio_turns_round_with_the_releases(seed: int, slowdown: float, statistic: str) -> None:
    """Whichever release is called the candidate, it is the same finding: the ratio and its interval are inverted."""
    pairs = in_turns(np.random.RandomState(seed), slowdown, quads=4, runs=17)
    one = paired_ratio(pairs, statistic)
    other = paired_ratio([(b, a) for a, b in pairs], statistic)
    assert one is not None
    assert other is not None
    assert one.estimate == pytest.approx(1 / other.estimate)
    assert (one.low, one.high) == (pytest.approx(1 / other.high), pytest.approx(1 / other.low))
    assert one.low <= one.estimate <= one.high


def test_the_same_runs_give_the_same_interval() -> None:
    """The interval is recomputed to the last bit from the same runs, whatever their unit of time."""
    pairs = in_turns(np.random.RandomState(4), 1.0)
    assert paired_ratio(pairs) == paired_ratio(pairs)
    in_ns = [([x * 2.0**20 for x in a], [x * 2.0**20 for x in b]) for a, b in pairs]
    assert paired_ratio(in_ns) == paired_ratio(pairs)


@pytest.mark.parametrize(
    "pairs",
    [
        [],
        [([1.0] * 99, [1.0] * 99)] * 7,
        [([1.0] * (MIN_RUNS[95] // 8 - 1), [1.0] * 99)] * 8,
        [([1.0] * 99, [1.0] * 99)] * 7 + [([], [1.0])],
        [([1.0] * 99, [1.0] * 99)] * 7 + [([1.0], [float("nan")])],
        [([1.0] * 99, [1.0] * 99)] * 7 + [([0.0], [1.0])],
    ],
    ids=["nothing", "3 quads", "too few runs", "empty block", "nan", "no time"],
)
def test_what_cannot_be_answered_has_no_ratio(pairs: Pairs) -> None:
    """Too few quads, too few runs for the percentile, or times that are none: no ratio, rather than a guess."""
    assert paired_ratio(pairs, "p95") is None


def test_an_unknown_statistic_is_an_error() -> None:
    """A statistic that is none is refused by its name."""
    with pytest.raises(ValueError, match="'p42'"):
        paired_ratio([([1.0], [1.0])] * 8, "p42")


@pytest.mark.parametrize(
    ("confidence", "freedom", "t"),
    [(0.95, 1, 12.7062), (0.95, 2, 4.3027), (0.99, 3, 5.8409), (0.95, 10, 2.2281), (0.99, 25, 2.7874)],
)
def test_students_t_is_that_of_the_tables(confidence: float, freedom: int, t: float) -> None:
    """The quantiles agree with the printed tables (NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.2)."""
    assert student_quantile(confidence, freedom) == pytest.approx(t, abs=5e-5)


@pytest.mark.parametrize(("confidence", "freedom"), [(0.95, 0), (1.0, 3), (0.0, 3)])
def test_no_t_without_a_degree_of_freedom(confidence: float, freedom: int) -> None:
    """There is no interval of one observation, nor at certainty."""
    with pytest.raises(ValueError, match="degrees of freedom"):
        student_quantile(confidence, freedom)
