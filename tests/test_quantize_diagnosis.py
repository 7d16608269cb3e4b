"""Where int8 costs accuracy, ``quantize`` says why without being asked."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from edgepack.building import quantize
from edgepack.documents import Accuracy, LayerError, QuantizeDocument
from edgepack.quantize.diagnosis import bad_layers, is_wanted
from edgepack.quantize.layers import Layers, layers_from_json, layers_to_json

ACCURACY = Accuracy("top1", 0.9, 0.85, 0.05, 100, None)


def outlier_run(small_models: Path, folder: Path) -> QuantizeDocument:
    """The classifier in int8, with one wild sample among its 20 calibration rows."""
    with np.load(small_models / "images.npz") as images:
        samples, labels = images["x"].copy(), images["y"]
    samples[13] *= 2000
    np.savez(folder / "wild.npz", x=samples, y=labels)
    return quantize(
        small_models / "keras3.keras",
        target="generic-cpu",
        output=folder / "out.tflite",
        calibration=f"{folder}/wild.npz#0:20",
        evaluation=f"{folder}/wild.npz#20:120",
    )


def test_a_drop_beyond_the_budget_names_the_sample_and_the_layer(small_models: Path, tmp_path: Path) -> None:
    """One sample 2,000 times too large ruins int8: its row, the first spoiled layer and all layers' errors are told."""
    document = outlier_run(small_models, tmp_path)
    assert document.accuracy is not None
    assert document.accuracy.drop is not None
    assert document.accuracy.drop > 0.3
    findings = {found.code: found for found in document.conformance.findings}
    assert "wild.npz: row 13 alone stretches" in findings["range-stretched"].message
    assert findings["bad-layer"].severity == "note"
    assert document.first_bad_layer in [layer.tensor for layer in document.layers]
    assert document.layers[0].operator == "INPUT"
    assert document.layers_left_out == 0


def test_a_model_that_keeps_its_accuracy_is_looked_into_on_demand_only(small_models: Path, tmp_path: Path) -> None:
    """Without ``diagnose`` no layers; with it they come, and come again from the cache without TensorFlow."""

    def run(diagnosed: bool) -> QuantizeDocument:
        samples = small_models / "images.npz"
        return quantize(
            small_models / "keras3.keras",
            target="generic-cpu",
            output=tmp_path / "out.tflite",
            calibration=f"{samples}#0:20",
            evaluation=f"{samples}#20:120",
            max_drop=0.5,
            diagnose=diagnosed,
        )

    assert run(diagnosed=False).layers == ()
    first = run(diagnosed=True)
    assert first.layers
    assert first.first_bad_layer is None
    again = run(diagnosed=True)
    assert again.cached
    assert again.layers == first.layers


@pytest.mark.parametrize(
    ("asked", "accuracy", "max_drop", "wanted"),
    [
        (True, None, None, True),
        (False, ACCURACY, 0.02, True),
        (False, ACCURACY, 0.05, False),
        (False, ACCURACY, None, False),
        (False, None, 0.02, False),
        (False, dataclasses.replace(ACCURACY, drop=None), 0.02, False),
    ],
)
def test_the_reason_is_looked_for_where_somebody_asked_or_the_budget_is_missed(
    asked: bool, accuracy: Accuracy | None, max_drop: float | None, wanted: bool
) -> None:
    """A drop that keeps to the budget, and one without a budget, cost no time."""
    assert is_wanted(asked, accuracy, max_drop) is wanted


def test_good_layers_are_no_finding_and_survive_json() -> None:
    """Layers above the limits are told, not noted; what is kept as JSON comes back equal."""
    layers = Layers((LayerError("a;b", "CONV_2D", 31.5, 40.0, 12, -1.0, 2.0),), 3)
    assert bad_layers(layers) == ()
    assert layers_from_json(json.loads(json.dumps(layers_to_json(layers)))) == layers
