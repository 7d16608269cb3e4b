"""Models beyond the plain ones: signatures, loops, conditions, recurrent layers, open sizes, detectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_quantize_conformance import target

import edgepack
from edgepack.documents import QuantizeDocument
from edgepack.errors import InputError, MisfitError
from edgepack.hostruntime import HostModel
from edgepack.target import Scheme
from edgepack.tflite import read_model


def quantize(model: Path, samples: str, output: Path, scheme: Scheme = Scheme.INT8, **options: Any) -> QuantizeDocument:
    """For a CPU with ai-edge-litert, on the samples that lie beside the model."""
    border = "int8" if scheme == Scheme.INT8 else "float32"
    return edgepack.quantize(
        model,
        target=target("ai-edge-litert", scheme=scheme, io=border),
        output=output,
        calibration=model.parent / samples,
        **options,
    )


def test_a_signature_is_chosen_by_name(small_models: Path, tmp_path: Path) -> None:
    """Without a name the error lists them; a wrong one gets the nearest; a Keras file has none to choose from."""
    model = small_models / "signatures"
    with pytest.raises(InputError, match="loop, branch") as refusal:
        quantize(model, "vectors.npz", tmp_path / "out.tflite")
    assert "--signature" in str(refusal.value.hint)
    with pytest.raises(InputError, match="Did you mean 'branch'"):
        quantize(model, "vectors.npz", tmp_path / "out.tflite", signature="brunch")
    with pytest.raises(InputError, match="only a SavedModel has signatures"):
        quantize(small_models / "keras3.keras", "images.npz", tmp_path / "out.tflite", signature="loop")
    quantize(model, "vectors.npz", tmp_path / "out.tflite", signature="loop")
    assert [name for name, _ in read_model(tmp_path / "out.tflite").named_inputs] == ["v"]


@pytest.mark.parametrize("signature", ["loop", "branch"])
@pytest.mark.parametrize("scheme", [Scheme.FLOAT32, Scheme.FLOAT16, Scheme.INT8])
def test_loops_and_conditions_answer_as_the_source(
    small_models: Path, tmp_path: Path, signature: str, scheme: Scheme
) -> None:
    """tf.while_loop and tf.cond run on the runtime, row by row as TensorFlow computes them."""
    quantize(small_models / "signatures", "vectors.npz", tmp_path / "out.tflite", scheme, signature=signature)
    weights = 0.3 * np.random.default_rng(3).standard_normal((16, 16))
    rows = np.load(small_models / "vectors.npz")["v"][:10]
    model = HostModel(tmp_path / "out.tflite")
    for row in rows:
        expected = row
        if signature == "loop":
            for _ in range(5):
                expected = np.tanh(expected @ weights)
        else:
            expected = row @ weights if row.sum() > 0 else -row
        found = model.run({"v": row[None]})["out"][0]
        # Eight bits over five rounds of a loop, or over the range of its outputs.
        assert np.abs(found - expected).max() < (0.2 if scheme == Scheme.INT8 else 0.01)


@pytest.mark.parametrize("name", ["gru", "gru_unrolled"])
@pytest.mark.parametrize("scheme", [Scheme.FLOAT32, Scheme.DYNAMIC, Scheme.FLOAT16, Scheme.INT8])
def test_recurrent_layers_answer_as_the_source(small_models: Path, tmp_path: Path, name: str, scheme: Scheme) -> None:
    """A GRU is a loop, or many layers with unroll=True: either converts to every scheme, or is refused by name."""
    samples = f"{small_models / 'gru.npz'}#20:30"
    options = {"check_set": samples}
    try:
        quantize(small_models / f"{name}.keras", "gru.npz#0:20", tmp_path / "out.tflite", scheme, **options)
    except MisfitError as refusal:
        assert (scheme, refusal.code) == (Scheme.DYNAMIC, "conformance")  # noqa: PT017 (weights too small to pay)
        return
    with np.load(tmp_path / "out.check.npz") as check:
        assert np.abs(check["float/scores"] - check["quantized/scores"]).max() < 0.1


def test_a_loop_is_refused_where_nothing_may_stay_in_float(small_models: Path, tmp_path: Path) -> None:
    """An integer-only target cannot have a loop, and the error names its operator; nothing is left behind."""
    strict = target("ai-edge-litert", float_fallback=False)
    with pytest.raises(MisfitError, match="WHILE"):
        edgepack.quantize(
            small_models / "gru.keras",
            target=strict,
            output=tmp_path / "out.tflite",
            calibration=small_models / "gru.npz",
        )
    assert not list(tmp_path.iterdir())


def test_open_sizes_are_pinned(small_models: Path, tmp_path: Path) -> None:
    """The model that was made has the stated sizes; samples of other sizes are refused before the conversion."""
    model = small_models / "open.keras"
    quantize(model, "photos.npz", tmp_path / "out.tflite", input_shapes=["photo=1,12,14,3"])
    assert read_model(tmp_path / "out.tflite").inputs[0].shape_signature == (1, 12, 14, 3)
    with pytest.raises(InputError, match=r"takes \[N, 12, 15, 3\]"):
        quantize(model, "photos.npz", tmp_path / "other.tflite", input_shapes=["1,12,15,3"])


def test_sizes_that_stay_open_come_with_advice(small_models: Path, tmp_path: Path) -> None:
    """Where a runtime cannot cope with them, the error says the option that pins them to what the samples have."""
    with pytest.raises(MisfitError) as refusal:
        quantize(small_models / "open.keras", "photos.npz", tmp_path / "out.tflite")
    assert "--input-shape photo=1,12,14,3" in str(refusal.value.hint)


def test_a_detector_is_judged_by_its_float_tflite(small_models: Path, tmp_path: Path) -> None:
    """The post-processing becomes the runtime's own operator, though TensorFlow itself cannot compute it."""
    scenes = f"{small_models / 'scenes.npz'}#20:30"
    document = quantize(small_models / "detector", "scenes.npz#0:20", tmp_path / "out.tflite", check_set=scenes)
    assert "float-tflite-reference" in [finding.code for finding in document.conformance.findings]
    names = {operator.custom_name for operator in read_model(tmp_path / "out.tflite").operators}
    assert "TFLite_Detection_PostProcess" in names
    with np.load(tmp_path / "out.check.npz") as check:
        assert check["float/boxes"].any()
        # The best box of each scene is where the float model has it: eight bits over the boxes' range.
        assert np.abs(check["float/scores"][:, 0] - check["quantized/scores"][:, 0]).max() < 0.1
