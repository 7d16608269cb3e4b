"""Models trained in 16-bit floats, in which no TFLite runtime computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_quantize_conformance import target

import edgepack
from edgepack.errors import MisfitError
from edgepack.target import Scheme

FLOATS = target(scheme=Scheme.FLOAT32, io="float32")


@pytest.mark.parametrize("name", ["narrow.keras", "narrow2.h5"])
def test_a_keras_file_under_mixed_float16_is_built_again_in_float32(
    small_models: Path, tmp_path: Path, name: str
) -> None:
    """It converts in float32 and int8, models within it included, and a note says what was done."""
    check = f"{small_models / 'images.npz'}#20:120"
    for wanted, tolerance in ((FLOATS, 1e-4), (target(), 0.1)):
        document = edgepack.quantize(
            small_models / name,
            target=wanted,
            output=tmp_path / "out.tflite",
            calibration=None if wanted is FLOATS else f"{small_models / 'images.npz'}#0:20",
            check_set=check,
        )
        notes = {found.code: found for found in document.conformance.findings}
        assert "mixed_float16" in notes["rebuilt-in-float32"].message
        with np.load(tmp_path / "out.check.npz") as outputs:
            assert np.abs(outputs["float/scores"] - outputs["quantized/scores"]).max() < tolerance


def test_the_weights_are_those_that_were_trained(small_models: Path, tmp_path: Path) -> None:
    """What is built again answers as the model under its own policy, to 16 bits' precision."""
    check = f"{small_models / 'images.npz'}#20:120"
    edgepack.quantize(small_models / "narrow.keras", target=FLOATS, output=tmp_path / "out.tflite", check_set=check)
    with np.load(small_models / "narrow.npz") as trained, np.load(tmp_path / "out.check.npz") as outputs:
        assert np.abs(trained["scores"] - outputs["quantized/scores"]).max() < 0.01


def test_a_saved_model_under_mixed_float16_is_refused_with_the_true_reason(small_models: Path, tmp_path: Path) -> None:
    """Not the operators are at fault: their 16-bit floats are, and the hint names the ways out."""
    with pytest.raises(MisfitError, match="16-bit floats") as refusal:
        edgepack.quantize(small_models / "narrow", target=FLOATS, output=tmp_path / "out.tflite")
    assert "mixed_float16" in refusal.value.message
    assert ".keras" in refusal.value.hint
    assert not list(tmp_path.iterdir())
