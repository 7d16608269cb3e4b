from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.statistics import bootstrap_drop_interval, paired_drop_interval, proportion_interval, top1, top1_hits

pairs = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=200)


def test_top1_counts_the_largest_score() -> None:
    """top1 is the share of rows whose largest score lies at the label, as number or one-hot."""
    outputs = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]], np.float32)
    assert top1(outputs, np.array([1, 0, 0])) == pytest.approx(2 / 3)
    assert top1_hits(outputs, np.eye(2)[[1, 0, 0]]).tolist() == [True, True, False]


@pytest.mark.parametrize(("outputs", "labels"), [((3, 4), (2,)), ((3, 1), (3,))])
def test_top1_refuses_what_it_cannot_count(outputs: tuple[int, ...], labels: tuple[int, ...]) -> None:
    """Differing lengths, or a single score per row, are refused instead of counted as something."""
    with pytest.raises(ValueError, match=r"labels|score per class"):
        top1_hits(np.zeros(outputs), np.zeros(labels))


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

    def drop_over(rows: object) -> float:
        return float(reference[rows].mean() - quantized[rows].mean())  # type: ignore[index]

    interval, exact = bootstrap_drop_interval(drop_over, 400), paired_drop_interval(reference, quantized)
    assert interval == bootstrap_drop_interval(drop_over, 400)
    assert interval.low == pytest.approx(exact.low, abs=0.01)
    assert interval.high == pytest.approx(exact.high, abs=0.01)
