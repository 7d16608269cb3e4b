"""A float .tflite as the source of ``quantize``: today's files and those of old converters."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from other_runtime import run_on
from test_quantize_conformance import target

from edgepack.building import quantize
from edgepack.errors import InputError, MisfitError
from edgepack.quantize.floatmodel import float_inputs
from edgepack.quantize.legacy import upgrade
from edgepack.target import Scheme
from edgepack.tflite import buffer_regions, read_model


@pytest.fixture(scope="module")
def float_model(small_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small classifier as a float .tflite."""
    output = tmp_path_factory.mktemp("float") / "float.tflite"
    floats = target(scheme=Scheme.FLOAT32, io="float32")
    quantize(small_models / "keras3.keras", target=floats, output=output)
    return output


@pytest.fixture(scope="module")
def legacy_model(float_model: Path) -> Path:
    """The same as a converter before TensorFlow 2.4 wrote it: codes in the old field alone, no signature."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(float_model.read_bytes(), 0))
    for code in model.operatorCodes:
        code.builtinCode = 0
    model.signatureDefs = None
    return written(model, float_model.with_name("legacy.tflite"))


def test_a_file_of_several_signatures_is_refused_by_their_names(float_model: Path, tmp_path: Path) -> None:
    """Only the first would be judged; another name for the same function does no harm."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(float_model.read_bytes(), 0))
    first, second = model.signatureDefs[0], copy.deepcopy(model.signatureDefs[0])
    first.signatureKey, second.signatureKey = b"classify", b"embed"
    model.signatureDefs = [first, second]
    alias = written(model, tmp_path / "alias.tflite")
    assert float_inputs(alias, read_model(alias), (), 1)[0].shape[0] == 1
    second.outputs[0].tensorIndex -= 1
    several = written(model, tmp_path / "several.tflite")
    with pytest.raises(InputError, match=r"several signatures \(classify, embed\)") as refusal:
        quantize(several, target=target(scheme=Scheme.DYNAMIC, io="float32"), output=tmp_path / "out.tflite")
    assert refusal.value.code == "several-signatures"
    assert not (tmp_path / "out.tflite").exists()


def written(model: schema.ModelT, path: Path) -> Path:
    """The model in a file."""
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(builder.Output())
    return path


def sets(small_models: Path) -> dict[str, Any]:
    """Rows to calibrate on, and rows to judge by."""
    return {
        "calibration": f"{small_models}/images.npz#0:20",
        "evaluation": f"{small_models}/images.npz#20:120",
    }


@pytest.mark.parametrize("scheme", [Scheme.INT8, Scheme.DYNAMIC, Scheme.FLOAT16, Scheme.INT16X8])
def test_a_float_tflite_is_quantized_and_compared_with_itself(
    small_models: Path, float_model: Path, tmp_path: Path, scheme: Scheme
) -> None:
    """Each scheme makes it smaller, keeps to the profile, and tells the drop against the float .tflite."""
    wanted = target(scheme=scheme, io="int8" if scheme in (Scheme.INT8, Scheme.INT16X8) else "float32")
    document = quantize(float_model, target=wanted, output=tmp_path / "out.tflite", **sets(small_models))
    assert document.source.kind == "tflite"
    assert document.conformance.passed
    assert document.model.bytes < 0.85 * float_model.stat().st_size
    assert document.accuracy is not None
    assert document.accuracy.reference is not None
    assert document.accuracy.reference > 0.9
    assert abs(document.accuracy.quantized - document.accuracy.reference) <= 0.02


def test_a_second_run_takes_it_from_the_cache(small_models: Path, float_model: Path, tmp_path: Path) -> None:
    """What was quantized once is there, with the same bytes."""
    first, second = (
        quantize(float_model, target=target(), output=tmp_path / name, **sets(small_models))
        for name in ("first.tflite", "second.tflite")
    )
    assert (second.cached, second.model.sha256) == (True, first.model.sha256)


def test_a_legacy_file_is_quantized_like_todays(
    small_models: Path, float_model: Path, legacy_model: Path, tmp_path: Path
) -> None:
    """litert-quantizer leaves such a file as it is, without a word; upgraded first, it becomes the same int8 model."""
    old, new = (
        quantize(model, target=target(), output=tmp_path / model.name, **sets(small_models))
        for model in (legacy_model, float_model)
    )
    assert {tensor.dtype for tensor in read_model(old.model.path).tensors} == {"int8", "int32"}
    assert old.model.bytes == pytest.approx(new.model.bytes, rel=0.05)
    assert old.accuracy == new.accuracy


@pytest.mark.parametrize(("scheme", "io"), [(Scheme.INT16X8, "float32"), (Scheme.INT8, "uint8")])
def test_a_file_without_signatures_gets_any_border(
    small_models: Path, legacy_model: Path, tmp_path: Path, scheme: Scheme, io: str
) -> None:
    """litert-quantizer looks for signatures to correct where the border is not the layers'; old files have none."""
    wanted = target("ai-edge-litert", scheme=scheme, io=io)
    document = quantize(legacy_model, target=wanted, output=tmp_path / "out.tflite", **sets(small_models))
    made = read_model(tmp_path / "out.tflite")
    assert {tensor.dtype for tensor in (*made.inputs, *made.outputs)} == {io}
    assert document.accuracy is not None
    assert abs(document.accuracy.drop or 0.0) <= 0.02


def test_an_upgrade_changes_no_answer(small_models: Path, legacy_model: Path, tmp_path: Path) -> None:
    """The upgraded float model answers as the original on the host runtime, to the bit; today's stays itself."""
    upgraded = upgrade(legacy_model)
    assert upgraded is not None
    (tmp_path / "upgraded.tflite").write_bytes(upgraded)
    rows = np.load(small_models / "images.npz")["x"]
    before, after = (
        run_on("ai-edge-litert", model, rows, tmp_path) for model in (legacy_model, tmp_path / "upgraded.tflite")
    )
    assert np.array_equal(before, after)
    assert upgrade(tmp_path / "upgraded.tflite") is None


def test_the_legacy_model_of_mlperf_is_really_quantized(data: Path, tmp_path: Path) -> None:
    """ad01_fp32.tflite, whose codes are of the old kind: bit-equal once upgraded, and a quarter of its size in int8."""
    source = data / "anomaly" / "ad01_fp32.tflite"
    rows = np.random.default_rng(5).normal(0, 1, (40, 640)).astype(np.float32)
    np.savez(tmp_path / "rows.npz", x=rows)
    upgraded = upgrade(source)
    assert upgraded is not None
    (tmp_path / "upgraded.tflite").write_bytes(upgraded)
    before = run_on("ai-edge-litert", source, rows, tmp_path)
    assert np.array_equal(before, run_on("ai-edge-litert", tmp_path / "upgraded.tflite", rows, tmp_path))
    document = quantize(
        source, target=target(float_fallback=False), output=tmp_path / "out.tflite", calibration=f"{tmp_path}/rows.npz"
    )
    assert document.model.bytes < 0.32 * source.stat().st_size
    assert read_model(tmp_path / "out.tflite").inputs[0].shape_signature == (1, 640)
    error = run_on("ai-edge-litert", tmp_path / "out.tflite", rows, tmp_path) - before
    assert np.mean(error**2) < 0.01 * np.mean(before**2)


def test_weights_that_float16_cannot_hold_are_named_and_refused(
    small_models: Path, float_model: Path, tmp_path: Path
) -> None:
    """Nobody gave --eval, and still a model that answers with NaN is not delivered; the tensor at fault is told."""
    content = bytearray(float_model.read_bytes())
    offset, _ = max(buffer_regions(float_model), key=lambda region: region[1])
    content[offset : offset + 8] = np.array([1e6, -1e6], "<f4").tobytes()
    (tmp_path / "large.tflite").write_bytes(content)
    with pytest.raises(MisfitError, match="65504") as refusal:
        quantize(
            tmp_path / "large.tflite",
            target=target(scheme=Scheme.FLOAT16),
            output=tmp_path / "out.tflite",
            check_set=f"{small_models / 'images.npz'}#0:8",
        )
    assert refusal.value.code == "not-finite"
    assert refusal.value.details["tensors"]
    assert not (tmp_path / "out.tflite").exists()


def test_a_model_far_from_its_source_is_noted_without_labels(
    small_models: Path, float_model: Path, tmp_path: Path
) -> None:
    """One wild calibration sample spoils int8; the note says so, and how to find out more."""
    with np.load(small_models / "images.npz") as images:
        samples = images["x"][:20].copy()
    samples[13] *= 20000
    np.savez(tmp_path / "wild.npz", x=samples)
    made = quantize(
        float_model, target="generic-cpu", output=tmp_path / "out.tflite", calibration=f"{tmp_path / 'wild.npz'}"
    )
    (note,) = (found for found in made.conformance.findings if found.code == "far-from-float")
    assert "dB" in note.message
    assert "--eval" in note.cure
