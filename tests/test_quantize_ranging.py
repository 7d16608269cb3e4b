from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.quantize.conversion import RANGE_METHODS
from edgepack.quantize.ranging import measure_ranges, mse_range, percentile_range

_REACH = st.tuples(st.floats(-100, 0), st.floats(0.1, 100))
_COUNTS = st.lists(st.integers(0, 1000), min_size=8, max_size=64).map(np.array)


@given(_COUNTS, _REACH)
def test_a_chosen_range_lies_within_what_was_seen(counts: np.ndarray, reach: tuple[float, float]) -> None:
    """Clipping gives up ends; it never invents a range beyond the samples."""
    for choose in (percentile_range, mse_range):
        low, high = choose(counts, reach)
        assert reach[0] - 1e-6 <= low <= high <= reach[1] + 1e-6


@given(_COUNTS, _REACH)
def test_a_percentile_leaves_one_value_in_ten_thousand_outside(counts: np.ndarray, reach: tuple[float, float]) -> None:
    """What lies beyond either end is at most the tail that is told."""
    low, high = percentile_range(counts, reach)
    edges = np.linspace(*reach, len(counts) + 1)
    below, above = counts[edges[1:] <= low + 1e-9].sum(), counts[edges[:-1] >= high - 1e-9].sum()
    assert max(below, above) <= 1e-4 * counts.sum() + 1e-6


def test_a_wild_value_is_cut_by_average_and_percentile_alone() -> None:
    """One wild value in a hundred thousand stretches the range a hundredfold only where nothing may be clipped."""
    batches = normal_batches()
    batches[7]["t"][0] = 500.0
    high = {method: measure_ranges(lambda: iter(batches), method)["t"][1] for method in RANGE_METHODS}
    assert high["minmax"] == pytest.approx(500)
    assert all(3 < high[method] < 10 for method in ("average", "percentile"))


def test_the_range_with_the_smallest_error_has_it() -> None:
    """In 8 bits "mse" is nearer to the values than the full range is, by what numpy computes."""
    batches = normal_batches()
    for batch in batches:
        batch["t"][:2] *= 4
    values = np.concatenate([batch["t"] for batch in batches])

    def error(method: str) -> float:
        low, high = measure_ranges(lambda: iter(batches), method)["t"]
        step = (high - low) / 255
        return float(np.mean((np.clip(np.rint((values - low) / step), 0, 255) * step + low - values) ** 2))

    assert error("mse") < 0.9 * error("minmax")


def normal_batches() -> list[dict[str, np.ndarray]]:
    """A hundred batches of a thousand normal numbers."""
    draw = np.random.default_rng(3)
    return [{"t": draw.normal(0, 1, 1000).astype(np.float32)} for _ in range(100)]


@pytest.mark.parametrize("method", RANGE_METHODS)
def test_constants_and_infinities_have_a_range(method: str) -> None:
    """A tensor that never changes and one with an infinity in it do not stop the measuring."""
    batches = [{"flat": np.zeros(4, np.float32), "wild": np.array([1.0, np.inf, np.nan, -2.0], np.float32)}]
    ranges = measure_ranges(lambda: iter(batches), method)
    assert ranges["flat"] == (0, 0)
    assert all(np.isfinite(ranges["wild"]))
