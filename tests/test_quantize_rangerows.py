"""Which calibration rows are run to see what they do to ranges."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgepack.quantize.rangerows import FEWEST_ROWS, MOST_ROWS, outermost_rows, runs_to_look_at, work_of
from edgepack.tflite import TfliteModel, read_model

SMALL = read_model(Path(__file__).parent / "data" / "tiny_spiky.float.tflite")


def heavy(model: TfliteModel) -> TfliteModel:
    """The model again with layers a million times as wide."""
    wide = tuple(dataclasses.replace(one, shape=(*one.shape[:-1], 10**9)) for one in model.tensors)
    return dataclasses.replace(model, tensors=wide)


@given(st.integers(1, 3000), st.lists(st.integers(0, 2999), max_size=30), st.booleans())
def test_rows_keep_to_the_bounds_and_reach_over_the_whole_set(rows: int, outermost: list[int], large: bool) -> None:
    """Never more than 500, or 16 of a model that takes seconds; ascending, each once, from all parts of the set."""
    inside = [row for row in outermost if row < rows]
    most = FEWEST_ROWS if large else MOST_ROWS
    runs = runs_to_look_at(heavy(SMALL) if large else SMALL, rows, inside)
    if rows <= most:
        assert runs == ()
        return
    assert len(runs) == most
    assert sorted(set(runs)) == list(runs)
    assert runs[-1] < rows
    assert set(list(dict.fromkeys(inside))[: most // 2]) <= set(runs)
    assert min(runs) <= rows // 4
    assert max(runs) >= rows // 2


def test_the_rows_that_reach_furthest_are_among_them() -> None:
    """The least and the largest value of each input, wherever in ten thousand rows they are."""
    lows, highs = np.zeros((10_000, 2)), np.ones((10_000, 2))
    lows[7421, 1], highs[9999, 0] = -5, 40
    outermost = outermost_rows(lows, highs)
    assert {7421, 9999} <= set(outermost)
    assert {7421, 9999} <= set(runs_to_look_at(SMALL, 10_000, outermost))


def test_the_work_of_a_model_is_what_it_multiplies() -> None:
    """A dense layer costs its weights; more is counted for what every number costs to look at."""
    dense = sum(int(np.prod(one.shape)) for one in SMALL.tensors if one.constant and len(one.shape) == 2)
    assert dense <= work_of(SMALL) < dense * 20
