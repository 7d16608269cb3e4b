"""What a check set stores of its inputs: as few bytes as say all that device and host compute of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.hostruntime import dequantize, quantize
from edgepack.quantize.checkset import as_stored
from edgepack.tflite import read_model

TINY = Path(__file__).parent / "data" / "tiny_int8.tflite"
IMAGES = np.random.default_rng(0).uniform(-2, 2, (9, 8, 8, 1)).astype(np.float32)


@given(
    dtype=st.sampled_from(["int8", "uint8", "int16"]),
    scale=st.floats(2.0**-60, 2.0**60, width=32),
    share=st.floats(0, 1),
    values=st.lists(st.floats(-1e9, 1e9, width=32), min_size=1, max_size=20),
)
def test_integers_made_numbers_become_the_same_integers(
    dtype: str, scale: float, share: float, values: list[float]
) -> None:
    """Whatever scale and zero point a model has: the device computes from a stored input what it did from numbers."""
    limits = np.iinfo(dtype)
    detail = {"dtype": dtype, "quantization": (scale, round(limits.min + share * (limits.max - limits.min)))}
    stored = quantize(np.array(values, np.float32) * np.float32(scale), detail)
    assert np.array_equal(quantize(dequantize(stored, detail), detail), stored)
    every = np.arange(limits.min, limits.max + 1).astype(dtype)
    assert np.array_equal(quantize(dequantize(every, detail), detail), every)


def test_an_integer_input_is_stored_as_its_integers() -> None:
    """A quarter of the bytes in int8, with scale and zero point beside; all other arrays stay as they are."""
    [(_, tensor)] = read_model(TINY).named_inputs
    labels = np.arange(9)
    stored = as_stored({"input/image": IMAGES, "labels": labels}, read_model(TINY))
    assert set(stored) == {"raw/image", "quantization/image", "labels"}
    assert stored["raw/image"].nbytes * 4 == IMAGES.nbytes
    detail = {"dtype": "int8", "quantization": tuple(stored["quantization/image"].tolist())}
    assert detail["quantization"] == (tensor.scales[0], tensor.zero_points[0])
    assert np.array_equal(stored["raw/image"], quantize(IMAGES, detail))
    assert stored["labels"] is labels


@pytest.mark.parametrize(
    ("values", "model"),
    [
        (np.where(IMAGES > 1.9, np.float32("nan"), IMAGES), "tiny_int8"),
        (IMAGES.astype(np.float64), "tiny_int8"),
        ((IMAGES * 50).astype(np.int8), "tiny_int8"),
        (IMAGES, "digits.float"),
    ],
    ids=["nan", "float64", "integers of one's own", "float model"],
)
def test_what_integers_cannot_say_is_stored_as_it_is(values: np.ndarray, model: str) -> None:  # type: ignore[type-arg]
    """NaN, other types, and inputs that the model takes as floats: the check set keeps the numbers."""
    described = read_model(TINY.with_name(f"{model}.tflite"))
    [(name, _)] = described.named_inputs
    stored = as_stored({f"input/{name}": values}, described)
    assert list(stored) == [f"input/{name}"]
    assert stored[f"input/{name}"] is values
