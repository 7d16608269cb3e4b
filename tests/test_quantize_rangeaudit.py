"""What calibration samples do to activation ranges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgepack.quantize.rangeaudit import Ranges, audit_ranges, observe_ranges, stretch_factors, stretching_rows, widths

FLOAT = Path(__file__).parent / "data" / "tiny_spiky.float.tflite"
Array = np.ndarray[Any, Any]


def rows(count: int) -> Array:
    """Typical samples: uniform in 0..1."""
    return np.random.default_rng(9).uniform(0, 1, (count, 6)).astype(np.float32)


def audit(samples: Array, first_row: int = 0) -> dict[str, str]:
    """The findings' messages by code."""
    ranges = observe_ranges(FLOAT, lambda size: ({"x": row[None]} for row in samples))
    return {found.code: found.message for found in audit_ranges(ranges, "s.npz", first_row)}


def test_typical_samples_leave_nothing_to_say() -> None:
    """A hundred alike samples stretch no range, and half of them have seen all of it."""
    assert audit(rows(100)) == {}


def test_a_row_that_alone_stretches_a_range_is_named_by_its_number_in_the_file() -> None:
    """Row 37 of rows 100 and on, ten times as large as the others, is row 137, and by how much is said."""
    samples = rows(100)
    samples[37] *= 10
    found = audit(samples, first_row=100)
    assert set(found) == {"range-stretched"}
    assert "row 137 alone stretches" in found["range-stretched"]
    assert " times: " in found["range-stretched"]


def test_the_rows_that_stretch_are_those_that_are_named() -> None:
    """Counted within the set, for a candidate without them; of a run of several rows all, of good rows none."""
    highs = np.linspace(1, 1.1, 100)[:, None]
    highs[37] = 9
    assert stretching_rows(Ranges(("t",), -highs, highs)) == (37,)
    assert stretching_rows(Ranges(("t",), -highs, highs, 2)) == (74, 75)
    assert stretching_rows(Ranges(("t",), -highs, highs, 1, tuple(range(0, 300, 3)))) == (111,)
    assert stretching_rows(Ranges(("t",), -highs[:37], highs[:37])) == ()


def test_what_two_rows_show_is_no_outlier() -> None:
    """A range that two rows reach is stretched by neither alone."""
    samples = rows(100)
    samples[10] = samples[11] = samples[12] * 10
    assert "range-stretched" not in audit(samples)


def test_ranges_that_go_on_growing_ask_for_more_samples() -> None:
    """Of a set where each sample may be larger than all others, how wide ranges are with 25, 50 and 100 is said."""
    found = audit(rows(1) * 1.4 ** np.arange(100, dtype=np.float32)[:, None])
    assert set(found) == {"ranges-still-grow"}
    assert "with 25 samples" in found["ranges-still-grow"]
    assert "with 100 (" in found["ranges-still-grow"]


def test_too_few_samples_to_converge_are_told() -> None:
    """Twelve samples of very different size have not shown how far the model's values reach."""
    assert "ranges-still-grow" in audit(rows(1) * 1.4 ** np.arange(12, dtype=np.float32)[:, None])


@given(st.permutations(range(40)))
def test_the_order_of_the_samples_says_nothing(order: list[int]) -> None:
    """A set that is sorted by class or loudness has shown as much of its range as a shuffled one."""
    highs = np.geomspace(1, 100, 40)[:, None]
    assert np.allclose(widths(-highs[order], highs[order]), widths(-highs, highs))


def test_among_few_samples_one_has_to_stand_out_more_to_be_named() -> None:
    """Nearly half of random sets of 16 good rows have one that is wider than all others: that is no finding."""
    samples = rows(20)
    samples[7] *= 2
    assert "range-stretched" not in audit(samples)
    samples[7] *= 10
    assert "row 7 alone" in audit(samples)["range-stretched"]


def test_a_single_odd_row_does_not_ask_for_more_samples() -> None:
    """The odd row comes late and widens every range; it is the row that has to go, more samples would not help."""
    samples = rows(100)
    samples[90] *= 10
    assert set(audit(samples)) == {"range-stretched"}


def test_a_handful_of_samples_says_nothing() -> None:
    """Of five samples each one stretches something."""
    assert audit(rows(5) * np.arange(1, 6, dtype=np.float32)[:, None]) == {}


matrices = arrays.arrays(
    np.float64, st.tuples(st.integers(2, 12), st.integers(1, 4)), elements=st.floats(0, 100, width=16)
)


@given(matrices, matrices)
def test_the_factor_is_the_range_with_a_row_over_the_range_without_it(first: Array, second: Array) -> None:
    """By definition, row by row; a range that is nothing without the row is 1000 times wider at most."""
    shape = (min(len(first), len(second)), min(first.shape[1], second.shape[1]))
    lows, highs = -first[: shape[0], : shape[1]], second[: shape[0], : shape[1]]
    factors = stretch_factors(lows, highs)
    whole = highs.max(axis=0) - lows.min(axis=0)
    for row in range(len(lows)):
        low, high = np.delete(lows, row, 0), np.delete(highs, row, 0)
        without = high.max(axis=0) - low.min(axis=0)
        for tensor in range(shape[1]):
            if whole[tensor] == 0:
                assert factors[row, tensor] == 1
            else:
                assert np.isclose(factors[row, tensor], min(1000.0, whole[tensor] / max(without[tensor], 1e-12)))


@given(matrices)
def test_ranges_never_become_narrower_with_more_rows(highs: Array) -> None:
    """A quarter's range fits into half's, and that into the whole."""
    quarter, half, whole = widths(-highs, highs)
    assert (quarter <= half + 1e-9).all()
    assert (half <= whole + 1e-9).all()


def test_rows_of_a_pinned_batch_are_named_together() -> None:
    """Where the model takes four rows at once, nobody can tell which of them it was."""
    highs = np.ones((20, 1))
    highs[3] = 5
    (found,) = audit_ranges(Ranges(("a;b",), -highs, highs, rows_per_run=4), "s.npz")
    assert found.subject == "a"
    assert "rows 12 to 15" in found.message


def test_part_of_a_set_names_rows_by_their_number_and_says_nothing_of_growth() -> None:
    """Of every tenth row the wild one has its own number; whether all rows suffice 20 of them cannot tell."""
    highs = np.geomspace(1, 50, 20)[:, None]
    highs[3] = 500
    runs = tuple(range(0, 200, 10))
    (found,) = audit_ranges(Ranges(("a",), -highs, highs, runs=runs), "s.npz", 1000, 200)
    assert "row 1030 alone" in found.message


def test_many_rows_of_a_larger_set_may_still_grow() -> None:
    """With 120 of 240 rows looked at it is said that these are not all."""
    highs = 1.4 ** np.arange(120)[:, None]
    (found,) = audit_ranges(Ranges(("a",), -highs, highs, runs=tuple(range(0, 240, 2))), "s.npz", 0, 240)
    assert found.code == "ranges-still-grow"
    assert "looked at of the 240" in found.message
