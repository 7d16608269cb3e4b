"""litert-quantizer behind the worker: what edgepack lets through runs on the real runtimes and agrees with the host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from other_runtime import INSTALLED, Refused, run_on
from test_quantize_conformance import target

from edgepack.errors import InputError, MisfitError
from edgepack.quantize.conformance import check_conformance
from edgepack.quantize.conversion import Conversion, conversion_to_json
from edgepack.quantize.litert import layer_names
from edgepack.quantize.process import WorkerProcess
from edgepack.quantize.samples import open_samples
from edgepack.target import Scheme
from edgepack.tflite import TfliteModel, read_model


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    """One worker for all conversions of this module."""
    with WorkerProcess(tmp_path_factory.mktemp("worker"), lambda event: None) as running:
        yield running


@pytest.fixture(scope="module")
def float_model(worker: WorkerProcess, small_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The depthwise net as a float .tflite."""
    worker.ask("load", path=str(small_models / "depthwise.keras"), kind="keras-3")
    path = tmp_path_factory.mktemp("float") / "float.tflite"
    convert(worker, Conversion(Scheme.FLOAT32), None, path)
    return path


@pytest.fixture
def loaded(worker: WorkerProcess, float_model: Path) -> WorkerProcess:
    """The worker with the float .tflite as its source."""
    worker.ask("load", path=str(float_model), kind="tflite")
    return worker


def convert(worker: WorkerProcess, conversion: Conversion, samples: str | None, output: Path) -> TfliteModel:
    """Convert what is loaded."""
    asked = conversion_to_json(conversion)
    calibration = None if samples is None else open_samples(samples).to_json()
    worker.ask("convert", conversion=asked, batch=1, calibration=calibration, output=str(output))
    return read_model(output)


def images(small_models: Path) -> np.ndarray[Any, Any]:
    """The images that no calibration has seen."""
    rows: np.ndarray[Any, Any] = np.load(small_models / "images.npz")["x"][20:]
    return rows


def litert(scheme: Scheme, io: str = "float32", **more: Any) -> Conversion:
    """A conversion by litert-quantizer."""
    return Conversion(scheme, io, engine="litert", **more)


WAYS = {
    "int8": litert(Scheme.INT8, "int8", float_fallback=False),
    "uint8-io": litert(Scheme.INT8, "uint8"),
    "float-io": litert(Scheme.INT8, "float32", float_fallback=False),
    "per-tensor": litert(Scheme.INT8, "int8", granularity="per-tensor"),
    "octav": litert(Scheme.INT8, "int8", algorithm="OCTAV"),
    "mse": litert(Scheme.INT8, "int8", algorithm="MSE"),
    "average": litert(Scheme.INT8, "int8", range_method="average"),
    "percentile": litert(Scheme.INT8, "int8", range_method="percentile"),
    "range-mse": litert(Scheme.INT8, "int8", range_method="mse", calibration_rows=10),
    "16x8": litert(Scheme.INT16X8, "int8"),
    "16x8-float-io": litert(Scheme.INT16X8, "float32"),
    "float16": litert(Scheme.FLOAT16),
    "dynamic": litert(Scheme.DYNAMIC),
    "dynamic-dense-per-tensor": litert(Scheme.DYNAMIC, dense_per_tensor=True),
    "dynamic-per-tensor": litert(Scheme.DYNAMIC, granularity="per-tensor"),
    "weight-only": litert(Scheme.DYNAMIC, weight_only=True),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_conforms_runs_on_each_runtime_and_agrees(
    loaded: WorkerProcess, small_models: Path, float_model: Path, tmp_path: Path, way: str
) -> None:
    """For each runtime: a model that conformance lets through answers there as the float model does on the host."""
    conversion = WAYS[way]
    samples = f"{small_models}/images.npz#0:20" if conversion.scheme in (Scheme.INT8, Scheme.INT16X8) else None
    model = convert(loaded, conversion, samples, tmp_path / "model.tflite")
    expected = run_on("ai-edge-litert", float_model, images(small_models), tmp_path)
    fits = []
    for runtime in INSTALLED:
        asked = {key: getattr(conversion, key) for key in ("scheme", "io", "granularity", "float_fallback")}
        conformance = check_conformance(model, target(runtime, delegate="libmine.so", **asked))
        if not conformance.passed:
            assert [finding.code for finding in conformance.findings] == ["operator-version"]
            with pytest.raises(Refused, match="find op"):
                run_on(runtime, model.path, images(small_models), tmp_path)
            continue
        fits.append(runtime)
        answered = run_on(runtime, model.path, images(small_models), tmp_path)
        assert (answered.argmax(1) == expected.argmax(1)).mean() >= 0.97
        assert np.abs(answered - expected).mean() < 0.03
    assert fits == [runtime for runtime in INSTALLED if (way, runtime) != ("dynamic", "tflite-runtime")]


def test_biases_that_leave_32_bits_are_seen(loaded: WorkerProcess, small_models: Path, tmp_path: Path) -> None:
    """A channel of weights that are almost zero has a bias of 0.5; it comes out as 0.5, not wrapped around to -0.5."""
    samples = f"{small_models}/images.npz#0:20"
    for scheme in (Scheme.INT8, Scheme.INT16X8):
        model = convert(loaded, litert(scheme, "int8"), samples, tmp_path / "model.tflite")
        [dense] = [one for one in model.operators if one.name == "FULLY_CONNECTED" and 64 in shape_of(model, one)]
        assert len(model.tensor(0, dense.inputs[1]).scales) == 1


def shape_of(model: TfliteModel, operator: Any) -> tuple[int, ...]:
    """The shape of an operator's output."""
    return model.tensor(operator.subgraph, operator.outputs[0]).shape


@pytest.mark.parametrize("engine", ["tensorflow", "litert"])
def test_named_layers_stay_in_float(
    worker: WorkerProcess, small_models: Path, float_model: Path, tmp_path: Path, engine: str
) -> None:
    """A layer that is named keeps float weights and the others do not, with either engine, on either runtime."""
    worker.ask("load", path=str(small_models / "depthwise.keras"), kind="keras-3")
    layer = list(layer_names(read_model(float_model)))[1]
    wanted = Conversion(Scheme.INT8, "int8", engine=engine, float_layers=(layer,))
    model = convert(worker, wanted, f"{small_models}/images.npz#0:20", tmp_path / "model.tflite")
    kinds = {one.name: model.tensor(0, one.inputs[1]).dtype for one in model.operators if len(one.inputs) > 2}
    assert kinds == {"CONV_2D": "int8", "DEPTHWISE_CONV_2D": "float32", "FULLY_CONNECTED": "int8"}
    assert check_conformance(model, target()).passed
    expected = run_on("ai-edge-litert", float_model, images(small_models), tmp_path)
    for runtime in INSTALLED:
        answered = run_on(runtime, model.path, images(small_models), tmp_path)
        assert (answered.argmax(1) == expected.argmax(1)).mean() >= 0.97


def test_the_last_layer_in_float_still_answers_in_int8(
    loaded: WorkerProcess, small_models: Path, float_model: Path, tmp_path: Path
) -> None:
    """What a profile asks for at the border does not depend on the layer beside it."""
    last = list(layer_names(read_model(float_model)))[-1]
    wanted = litert(Scheme.INT8, "int8", float_layers=(last,))
    model = convert(loaded, wanted, f"{small_models}/images.npz#0:20", tmp_path / "model.tflite")
    assert [tensor.dtype for tensor in (*model.inputs, *model.outputs)] == ["int8", "int8"]
    assert [one.name for one in model.operators][-1] == "QUANTIZE"


def test_named_layers_compute_in_16_bits(
    loaded: WorkerProcess, small_models: Path, float_model: Path, tmp_path: Path
) -> None:
    """A layer that is named has 16-bit activations among 8-bit ones; ai-edge-litert runs it, the other may not."""
    layer = list(layer_names(read_model(float_model)))[1]
    wanted = litert(Scheme.INT8, "int8", int16_layers=(layer,))
    model = convert(loaded, wanted, f"{small_models}/images.npz#0:20", tmp_path / "model.tflite")
    assert {tensor.dtype for tensor in model.tensors} >= {"int8", "int16"}
    expected = run_on("ai-edge-litert", float_model, images(small_models), tmp_path)
    answered = run_on("ai-edge-litert", model.path, images(small_models), tmp_path)
    assert (answered.argmax(1) == expected.argmax(1)).mean() >= 0.97
    assert check_conformance(model, target("ai-edge-litert")).passed
    assert not check_conformance(model, target("tflite-runtime", delegate="libmine.so")).passed


def test_depthwise_weights_with_one_scale_are_told(small_models: Path, float_model: Path, tmp_path: Path) -> None:
    """litert-quantizer's dynamic depthwise layer with one scale is wrong everywhere, and does not conform."""
    from litert_quantizer import qtyping, quantizer

    engine = quantizer.Quantizer(str(float_model))
    engine.add_dynamic_config(".*", "DEPTHWISE_CONV_2D", 8, qtyping.QuantGranularity.TENSORWISE)
    (tmp_path / "model.tflite").write_bytes(engine.quantize(enable_progress_report=False).quantized_model)
    expected = run_on("ai-edge-litert", float_model, images(small_models), tmp_path)
    for runtime in INSTALLED:
        answered = run_on(runtime, tmp_path / "model.tflite", images(small_models), tmp_path)
        assert not np.abs(answered - expected).mean() < 0.1  # far off, or not a number
        wanted = target(runtime, delegate="libmine.so", scheme=Scheme.DYNAMIC, io="float32", granularity="per-tensor")
        assert not check_conformance(read_model(tmp_path / "model.tflite"), wanted).passed


def test_a_layer_that_is_not_there_is_told_with_its_nearest(
    loaded: WorkerProcess, small_models: Path, float_model: Path, tmp_path: Path
) -> None:
    """A misspelt layer is not quantized in silence."""
    name = next(iter(layer_names(read_model(float_model))))
    with pytest.raises(InputError, match="no layer") as refusal:
        convert(
            loaded,
            litert(Scheme.INT8, float_layers=(name + "x",)),
            f"{small_models}/images.npz#0:20",
            tmp_path / "model.tflite",
        )
    assert refusal.value.code == "unknown-layer"
    assert name in refusal.value.hint


def test_a_quantization_that_changed_nothing_is_an_error(
    worker: WorkerProcess, small_models: Path, tmp_path: Path
) -> None:
    """litert-quantizer hands a model without an operator of its own back as it was; edgepack does not."""
    worker.ask("load", path=str(small_models / "sine"), kind="saved-model")
    with pytest.raises(MisfitError, match="SIN") as refusal:
        convert(worker, litert(Scheme.DYNAMIC), None, tmp_path / "model.tflite")
    assert refusal.value.code == "unchanged"


@pytest.mark.parametrize("engine", ["tensorflow", "litert"])
@pytest.mark.parametrize("scheme", [Scheme.INT8, Scheme.INT16X8])
def test_loops_stay_in_float(
    worker: WorkerProcess, small_models: Path, tmp_path: Path, engine: str, scheme: Scheme
) -> None:
    """A recurrent layer, on whose loop TensorFlow's calibrator crashes, stays in float among integers, and is told."""
    worker.ask("load", path=str(small_models / "recurrent.keras"), kind="keras-3")
    samples = f"{small_models}/sequences.npz"
    convert(worker, Conversion(Scheme.FLOAT32), None, tmp_path / "float.tflite")
    model = convert(worker, Conversion(scheme, "int8", engine=engine), f"{samples}#0:20", tmp_path / "model.tflite")
    assert "WHILE" in {one.name for one in model.operators}
    assert [one.dtype for one in (*model.inputs, *model.outputs)] == ["int8" if scheme == Scheme.INT8 else "int16"] * 2
    assert "float-operator" in {one.code for one in check_conformance(model, target(scheme=scheme)).findings}
    assert "float-tensor" in {one.code for one in check_conformance(model, target(float_fallback=False)).findings}
    rows = np.load(samples)["v"][20:]
    expected = run_on("ai-edge-litert", tmp_path / "float.tflite", rows, tmp_path)
    for runtime in INSTALLED:
        assert np.abs(run_on(runtime, model.path, rows, tmp_path) - expected).max() < 0.05


def test_several_inputs_and_token_numbers(worker: WorkerProcess, small_models: Path, tmp_path: Path) -> None:
    """Two inputs are calibrated by name, and an int32 input stays one."""
    worker.ask("load", path=str(small_models / "two_sided.keras"), kind="keras-3")
    model = convert(worker, litert(Scheme.INT8, "int8"), f"{small_models}/pairs.npz#0:20", tmp_path / "pairs.tflite")
    assert {(name, tensor.dtype) for name, tensor in model.named_inputs} == {("left", "int8"), ("right", "int8")}
    np.savez(tmp_path / "tokens.npz", x=np.arange(100).reshape(20, 5) % 50)
    worker.ask("load", path=str(small_models / "tokens.keras"), kind="keras-3")
    model = convert(worker, litert(Scheme.INT8, "int8"), str(tmp_path / "tokens.npz"), tmp_path / "tokens.tflite")
    assert [tensor.dtype for tensor in (*model.inputs, *model.outputs)] == ["int32", "int8"]
