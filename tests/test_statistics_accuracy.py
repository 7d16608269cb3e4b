from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import binomtest

from edgepack.documents import Interval
from edgepack.statistics import (
    bootstrap_drops,
    mcnemar_p,
    paired_drop_interval,
    percentile_interval,
    proportion_interval,
    samples_to_narrow,
    samples_to_settle,
    table_drop_interval,
)

pairs = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=200)


def test_paired_interval_matches_the_paper() -> None:
    """36 both right, 12 lost, 2 won: Newcombe's method 10 gives 0.0569 to 0.3404 for the drop of 0.2."""
    interval = paired_drop_interval([True] * 48 + [False] * 2, [True] * 36 + [False] * 12 + [True] * 2)
    assert (interval.low, interval.high) == (pytest.approx(0.0569, abs=1e-4), pytest.approx(0.3404, abs=1e-4))


@given(pairs)
def test_paired_interval_holds_the_drop(rows: list[tuple[bool, bool]]) -> None:
    """The interval holds the measured drop, and swapping the models mirrors it."""
    reference, quantized = zip(*rows, strict=True)
    drop = (sum(reference) - sum(quantized)) / len(rows)
    interval, mirrored = paired_drop_interval(reference, quantized), paired_drop_interval(quantized, reference)
    assert -1 <= interval.low <= drop + 1e-9
    assert drop - 1e-9 <= interval.high <= 1
    assert mirrored.low == pytest.approx(-interval.high)
    assert mirrored.high == pytest.approx(-interval.low)


@given(pairs)
def test_more_confidence_is_a_wider_interval(rows: list[tuple[bool, bool]]) -> None:
    """A 95 % interval is never shorter than a 90 % one."""
    reference, quantized = zip(*rows, strict=True)
    wide, narrow = (paired_drop_interval(reference, quantized, confidence) for confidence in (0.95, 0.9))
    assert wide.low <= narrow.low + 1e-12
    assert narrow.high <= wide.high + 1e-12


def test_paired_interval_covers_the_truth() -> None:
    """Of 400 simulated evaluations with a true drop of 3 points, about 95 % of the intervals hold it."""
    draw = np.random.default_rng(7)
    held = 0
    for _ in range(400):
        kind = draw.choice(4, size=300, p=[0.85, 0.05, 0.02, 0.08])
        interval = paired_drop_interval(np.isin(kind, (0, 1)), np.isin(kind, (0, 2)))
        held += interval.low <= 0.03 <= interval.high
    assert held >= 0.92 * 400


def test_an_interval_of_nothing_is_an_error() -> None:
    """No samples, no interval."""
    with pytest.raises(ValueError, match="no samples"):
        paired_drop_interval([], [])


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_share_interval_holds_the_share(counted: tuple[int, int]) -> None:
    """A share's interval lies in 0..1 and holds the share."""
    hits, n = counted
    interval = proportion_interval(hits, n)
    assert 0 <= interval.low <= hits / n + 1e-9
    assert hits / n - 1e-9 <= interval.high <= 1


def test_bootstrap_is_repeatable_and_near_the_exact_interval() -> None:
    """For top1 the bootstrap agrees with the closed form within a point, and gives the same bounds again."""
    draw = np.random.default_rng(3)
    reference = draw.random(400) < 0.9
    quantized = np.where(draw.random(400) < 0.95, reference, ~reference)

    def drop_over(rows: Any) -> float:
        return float(reference[rows].mean() - quantized[rows].mean())

    drops = bootstrap_drops(drop_over, [range(400)])
    assert drops == bootstrap_drops(drop_over, [range(400)])
    interval, exact = percentile_interval(drops), paired_drop_interval(reference, quantized)
    assert interval.low == pytest.approx(exact.low, abs=0.01)
    assert interval.high == pytest.approx(exact.high, abs=0.01)


def test_resamples_keep_the_size_of_each_group() -> None:
    """Three rows of one class and two of the other stay three and two, so that a rare class is in every resample."""
    seen = []
    bootstrap_drops(lambda rows: float(seen.append(sorted(rows // 10)) or 0), [[1, 2, 3], [10, 11]], 50)  # type: ignore[func-returns-value]
    assert seen == [[0, 0, 0, 1, 1]] * 50


def test_mcnemar_matches_the_tables() -> None:
    """10 lost and 2 won is p = 0.0386 (twice the binomial tail 79/4096); as many lost as won says nothing."""
    assert mcnemar_p(10, 2) == pytest.approx(158 / 4096)
    assert mcnemar_p(0, 0) == mcnemar_p(7, 7) == 1.0
    assert mcnemar_p(6000, 4000) < 1e-80


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_the_exact_binomial_test(lost: int, won: int) -> None:
    """It is the two-sided binomial test of scipy, whichever model is named first."""
    expected = binomtest(lost, lost + won).pvalue if lost + won else 1.0
    assert mcnemar_p(lost, won) == pytest.approx(expected)
    assert mcnemar_p(lost, won) == mcnemar_p(won, lost)


tables = st.tuples(*[st.integers(0, 60)] * 4).filter(any)


@given(tables, st.floats(0.0, 0.2))
def test_so_many_samples_settle_the_budget(table: tuple[int, int, int, int], limit: float) -> None:
    """With the number that is named, and the same shares, the bound is on the drop's side; with half it is not."""
    needed = samples_to_settle(table, limit)
    n, drop = sum(table), (table[1] - table[2]) / sum(table)
    assume(needed is not None)
    assert needed is not None

    def settled(samples: float) -> bool:
        both, lost, won, neither = (count * samples / n for count in table)
        interval = table_drop_interval(both, lost, won, neither, 0.9)
        return interval.high <= limit if drop < limit else interval.low > limit

    assert settled(needed)
    assert needed == 1 or not settled(needed / 2 - 1 if needed > 3 else needed - 1)


def test_no_number_of_samples_settles_a_drop_that_is_the_limit() -> None:
    """Where the drop itself is the limit, more samples are not promised to help."""
    assert samples_to_settle((88, 6, 4, 2), 0.02) is None
    assert samples_to_settle((100, 0, 0, 0), 0.0) is None
    assert samples_to_settle((100, 0, 0, 0), 0.0001) is not None
    assert samples_to_narrow(0.5, Interval(0.4, 0.6, 0.9), 10, 0.5) is None


def test_a_drop_beyond_the_budget_is_settled_too() -> None:
    """40 lost of 100 is far more than 2 points: a handful of samples says so, and fewer than were taken."""
    needed = samples_to_settle((60, 40, 0, 0), 0.02)
    assert needed is not None
    assert needed < 100


def test_a_bound_twice_as_far_as_the_limit_needs_four_times_the_samples() -> None:
    """For other metrics the distance to the bound shrinks with the square root of the samples."""
    assert samples_to_narrow(0.01, Interval(-0.01, 0.03, 0.9), 100, 0.02) == 400
    assert samples_to_narrow(0.05, Interval(-0.01, 0.11, 0.9), 100, 0.02) == 400
    assert samples_to_narrow(0.0, Interval(0.0, 0.0, 0.9), 100, 0.02) == 1
    assert samples_to_narrow(0.0, Interval(-1.0, 1.0, 0.9), 100, 0.0001) is None
