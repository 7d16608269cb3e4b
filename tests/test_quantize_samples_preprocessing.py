"""The [samples] table: read strictly, told completely, the same value from TOML, Python and JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edgepack.errors import InputError
from edgepack.quantize.preprocessing import Preprocessing, preprocessing_from

FULL = {
    "range": [0, 1],
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "size": [96, 128],
    "resize": "crop",
    "interpolation": "bicubic",
    "colors": "bgr",
    "classes": ["yes", "no"],
    "label": "class",
    "inputs": {"accel": ["ax", "ay"]},
}


def test_every_key_arrives() -> None:
    """And survives the way to another process."""
    value = preprocessing_from(FULL)
    assert value == Preprocessing(
        (0.0, 1.0), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), (96, 128), "crop", "bicubic", "bgr",
        ("yes", "no"), "class", (("accel", ("ax", "ay")),),
    )  # fmt: skip
    assert preprocessing_from(json.loads(json.dumps(value.to_json()))) == value
    assert preprocessing_from(value.to_json()) == value
    assert preprocessing_from({}) == Preprocessing()
    assert Preprocessing().to_json() == {}


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"rnage": [0, 1]}, "did you mean range?"),
        ({"range": [1, 0]}, "must rise"),
        ({"range": [0]}, "must be an array of 2 numbers, not of 1"),
        ({"range": [0, "1"]}, "each number must be a number"),
        ({"range": [0, float("nan")]}, "must be finite"),
        ({"range": [0, 1], "std": [0]}, "samples.std: each number must be at least"),
        ({"mean": [0.5]}, "needs samples.range"),
        ({"range": [0, 1], "mean": [0.5, 0.5]}, "one number for each"),
        ({"range": [0, 1], "mean": [0.5, 0.5, 0.5], "colors": "gray"}, "each of the 1 colours"),
        ({"size": [96.5, 96]}, "must be an integer"),
        ({"size": 96}, "must be an array of 2 numbers"),
        ({"colors": "rbg"}, "did you mean rgb?"),
        ({"classes": ["a", "b", "a"]}, "'a' stands there twice"),
        ({"inputs": {"x": "a"}}, "must be an array of strings"),
    ],
)
def test_each_fault_is_told(table: dict[str, Any], told: str) -> None:
    """Unknown keys with the nearest, values with what they have to be."""
    with pytest.raises(InputError) as refusal:
        preprocessing_from(table)
    assert refusal.value.code == "bad-project"
    assert told in refusal.value.message
