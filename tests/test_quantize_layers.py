"""Per-layer error on real models in the real runtime: the layer that int8 destroys has a name."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.documents import LayerError
from edgepack.quantize.layers import NO_NOISE_DB, Layers, first_bad_layer, measure_layers, sqnr_db

DATA = Path(__file__).parent / "data"
FLOAT = DATA / "tiny_spiky.float.tflite"
ROWS = np.random.default_rng(9).uniform(0, 1, (32, 6)).astype(np.float32)


def batches(size: int) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
    """The rows, a few at a time."""
    return ({"x": ROWS[first : first + size]} for first in range(0, len(ROWS), size))


def measure(kind: str, **options: int) -> Layers:
    """The spiky model against one quantized from it."""
    return measure_layers(FLOAT, DATA / f"tiny_spiky.{kind}.tflite", batches, **options)


@pytest.mark.parametrize("kind", ["int8", "int8-float", "int16x8", "float16"])
def test_every_layer_of_every_scheme_is_found_in_the_float_model(kind: str) -> None:
    """Casts, float borders and renumbered names hide no layer; layers come in the order of execution."""
    found = measure(kind)
    assert found.left_out == 0
    assert [layer.operator for layer in found.layers] == ["INPUT", *["FULLY_CONNECTED"] * 3]
    assert [name for layer in found.layers for name in ("calm", "spiky") if name in layer.tensor] == ["calm", "spiky"]
    assert [layer.elements for layer in found.layers] == [32 * 6, 32 * 8, 32 * 8, 32 * 4]


def test_the_layer_that_int8_destroys_is_named() -> None:
    """The layer behind a range that one outlier takes is the first bad one; in float16 none is, nor is any noisier."""
    int8, float16 = measure("int8"), measure("float16")
    last = int8.layers[-1]
    assert int8.first_bad == last.tensor
    assert last.sqnr_db == pytest.approx(0, abs=0.1)
    assert last.input_sqnr_db == int8.layers[-2].sqnr_db > 25
    assert float16.first_bad is None
    assert all(fine.sqnr_db > coarse.sqnr_db for fine, coarse in zip(float16.layers, int8.layers, strict=True))


def test_the_noise_of_the_input_is_that_of_its_int8_steps() -> None:
    """255 steps over a range of 1 give uniform noise of a twelfth of a step's square, which the input's ratio shows."""
    expected = 10 * math.log10(float(np.square(ROWS, dtype=np.float64).mean()) / (1 / 255**2 / 12))
    assert measure("int8").layers[0].sqnr_db == pytest.approx(expected, abs=1.0)


def test_a_model_against_itself_has_no_noise() -> None:
    """Equal tensors are 200 dB apart from their noise, a finite number, and nothing is bad."""
    found = measure_layers(FLOAT, FLOAT, batches)
    assert {layer.sqnr_db for layer in found.layers} == {NO_NOISE_DB}
    assert found.first_bad is None


def test_the_worst_layers_come_with_histograms() -> None:
    """As many as asked for; each counts every number once, and the destroyed layer's values have fallen together."""
    found = measure("int8", worst=2)
    with_histogram = [layer for layer in found.layers if layer.histogram]
    assert len(with_histogram) == 2
    for layer in with_histogram:
        assert layer.histogram is not None
        assert sum(layer.histogram.reference) == sum(layer.histogram.quantized) == layer.elements
        assert layer.histogram.low <= layer.low <= layer.high <= layer.histogram.high
    destroyed = with_histogram[-1].histogram
    assert destroyed is not None
    assert np.count_nonzero(destroyed.quantized) < 5 < 20 < np.count_nonzero(destroyed.reference)


def test_models_that_have_nothing_in_common_are_left_out_and_counted() -> None:
    """Another model's layers are no layers of this one."""
    rows = np.random.default_rng(1).uniform(0, 1, (4, 1, 8, 8, 1)).astype(np.float32)
    other = DATA / "tiny_int8.tflite"
    found = measure_layers(FLOAT, other, lambda size: ({"x": ROWS[:1], "image": row} for row in rows))
    assert (found.layers, found.left_out, found.first_bad) == ((), 5, None)


@given(st.floats(1e-30, 1e30), st.floats(1e-30, 1e30))
def test_ten_times_the_noise_is_ten_decibels_less(signal: float, noise: float) -> None:
    """The ratio is 10 log10 of the powers' quotient, within 200 dB."""
    ratio = sqnr_db(signal, noise)
    assert -NO_NOISE_DB <= ratio <= NO_NOISE_DB
    if abs(ratio) < 180:
        assert sqnr_db(signal, noise * 10) == pytest.approx(ratio - 10)
    assert sqnr_db(0.0, 0.0) == sqnr_db(signal, 0.0) == NO_NOISE_DB
    assert sqnr_db(0.0, noise) == -NO_NOISE_DB


def layer(tensor: str, ratio: float, of_inputs: float | None) -> LayerError:
    """A layer with this ratio."""
    return LayerError(tensor, "CONV_2D", ratio, of_inputs, 1, 0.0, 1.0)


@pytest.mark.parametrize(
    ("layers", "bad"),
    [
        ([("a", 30, None), ("b", 9, 30), ("c", 8, 9)], "b"),
        ([("a", 30, None), ("b", 21, 49), ("c", 17, 21)], None),
        ([("a", 30, None), ("b", 17, 30)], "b"),
        ([("a", 19, 200)], "a"),
        ([], None),
    ],
)
def test_the_first_bad_layer_is_below_10_db_or_falls_by_two_bits_to_below_20(
    layers: list[tuple[str, float, float | None]], bad: str | None
) -> None:
    """A slow decline is none, and what follows a bad layer inherits its noise."""
    assert first_bad_layer([layer(*one) for one in layers]) == bad
