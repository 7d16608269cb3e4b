"""Every scheme, through one worker process: load once, convert many times, hold each result against its profile."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_quantize_conformance import target

from edgepack.errors import InputError, MisfitError
from edgepack.events import Event
from edgepack.quantize.conformance import check_conformance, needs_dense_per_tensor
from edgepack.quantize.process import WorkerProcess
from edgepack.quantize.samples import open_samples
from edgepack.target import Scheme, Target
from edgepack.tflite import TfliteModel, read_model

EVENTS: list[Event] = []


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    """One worker for all conversions of this module."""
    with WorkerProcess(tmp_path_factory.mktemp("worker"), EVENTS.append) as running:
        yield running


def load(worker: WorkerProcess, path: Path, kind: str) -> dict[str, Any]:
    """Load a model, with its ports."""
    return worker.ask("load", path=str(path), kind=kind)


def told(samples: str) -> str:
    """How the worker is told of a set of samples."""
    return open_samples(samples).to_json()


def convert(
    worker: WorkerProcess, wanted: Target, samples: str | None, output: Path, batch: int | None = 1, **more: Any
) -> TfliteModel:
    """Convert what is loaded, as the profile asks."""
    asked = dataclasses.asdict(wanted.quantization) | more
    del asked["operators"]
    worker.ask("convert", conversion=asked, batch=batch, calibration=samples and told(samples), output=str(output))
    return read_model(output)


def outputs(worker: WorkerProcess, verb: str, folder: Path, samples: str, **more: Any) -> dict[str, Any]:
    """Outputs over samples by name."""
    folder.mkdir()
    names = worker.ask(verb, samples=told(samples), rows=None, outputs=str(folder), **more)["outputs"]
    return {name: np.load(folder / f"{place}.npy") for place, name in enumerate(names)}


@pytest.mark.parametrize(
    "quantization",
    [
        {"scheme": Scheme.FLOAT32},
        {"scheme": Scheme.DYNAMIC},
        {"scheme": Scheme.FLOAT16},
        {"scheme": Scheme.INT8, "float_fallback": False},
        {"scheme": Scheme.INT8, "io": "uint8"},
        {"scheme": Scheme.INT8, "io": "float32", "float_fallback": False},
        {"scheme": Scheme.INT8, "granularity": "per-tensor"},
        {"scheme": Scheme.INT16X8},
        {"scheme": Scheme.INT16X8, "io": "float32"},
    ],
    ids=lambda value: "-".join(str(part) for part in value.values()),
)
def test_each_scheme_conforms_and_answers_like_the_source(
    worker: WorkerProcess, small_models: Path, tmp_path: Path, quantization: dict[str, Any]
) -> None:
    """What a profile asks for comes out, with batch 1, and picks the same class on nearly every sample."""
    wanted = target("ai-edge-litert", **quantization)
    ports = load(worker, small_models / "keras3.keras", "keras-3")["inputs"]
    samples = f"{small_models}/images.npz#20:120"
    model = convert(worker, wanted, f"{small_models}/images.npz#0:20", tmp_path / "model.tflite")
    conformance = check_conformance(model, wanted)
    assert conformance.findings == ()
    assert model.inputs[0].shape_signature[0] == 1
    assert [name for name, _ in (*model.named_inputs, *model.named_outputs)] == ["image", "scores"]
    reference = outputs(worker, "reference", tmp_path / "reference", samples)["scores"]
    host = outputs(worker, "host", tmp_path / "host", samples, model=str(tmp_path / "model.tflite"), inputs=ports)[
        "scores"
    ]
    assert host.shape == reference.shape == (100, 4)
    assert (host.argmax(1) == reference.argmax(1)).mean() >= 0.95


@pytest.mark.parametrize(
    ("name", "kind"), [("keras3.h5", "keras-3-h5"), ("keras2.keras", "keras-2"), ("keras3_exported", "saved-model")]
)
def test_both_keras_live_in_one_worker(
    worker: WorkerProcess, small_models: Path, tmp_path: Path, name: str, kind: str
) -> None:
    """Files of Keras 2 and 3 convert after one another, and the float model answers as its source."""
    wanted = target("ai-edge-litert", scheme=Scheme.FLOAT32)
    ports = load(worker, small_models / name, kind)["inputs"]
    convert(worker, wanted, None, tmp_path / "model.tflite")
    samples = f"{small_models}/images.npz#0:40"
    reference = outputs(worker, "reference", tmp_path / "reference", samples)
    host = outputs(worker, "host", tmp_path / "host", samples, model=str(tmp_path / "model.tflite"), inputs=ports)
    assert reference.keys() == host.keys()
    for output, values in reference.items():
        assert np.allclose(host[output], values, atol=1e-4)


def test_several_inputs_and_outputs_keep_their_names(worker: WorkerProcess, small_models: Path, tmp_path: Path) -> None:
    """Two inputs feed by name, two outputs come back by name, and calibration reaches both."""
    ports = load(worker, small_models / "two_sided.keras", "keras-3")
    samples = f"{small_models}/pairs.npz"
    model = convert(worker, target(), f"{samples}#0:20", tmp_path / "model.tflite")
    assert {name for name, _ in model.named_inputs} == {"left", "right"}
    assert all(tensor.scales != (0.0,) for _, tensor in model.named_inputs)
    reference = outputs(worker, "reference", tmp_path / "reference", samples)
    host = outputs(
        worker, "host", tmp_path / "host", samples, model=str(tmp_path / "model.tflite"), inputs=ports["inputs"]
    )
    assert {name: values.shape for name, values in host.items()} == {"larger": (60, 2), "features": (60, 3)}
    assert np.abs(host["larger"] - reference["larger"]).max() < 0.05


def test_token_numbers_stay_integers(worker: WorkerProcess, small_models: Path, tmp_path: Path) -> None:
    """An int32 input of an int8 model is not quantized."""
    np.savez(tmp_path / "tokens.npz", x=np.arange(100).reshape(20, 5) % 50)
    load(worker, small_models / "tokens.keras", "keras-3")
    model = convert(worker, target(), str(tmp_path / "tokens.npz"), tmp_path / "model.tflite")
    assert model.inputs[0].dtype == "int32"
    assert model.outputs[0].dtype == "int8"


def test_dynamic_range_is_converted_around_an_old_runtime(
    worker: WorkerProcess, small_models: Path, tmp_path: Path
) -> None:
    """TensorFlow's dense layers need a version that tflite-runtime lacks; with one scale per tensor they do not."""
    old, new = (target(name, scheme=Scheme.DYNAMIC) for name in ("tflite-runtime", "ai-edge-litert"))
    load(worker, small_models / "wide.keras", "keras-3")
    first = convert(worker, old, None, tmp_path / "first.tflite")
    assert needs_dense_per_tensor(first, old)
    assert check_conformance(first, new).passed
    second = convert(worker, old, None, tmp_path / "second.tflite", dense_per_tensor=True)
    assert check_conformance(second, old).passed


def test_the_batch_is_pinned_to_what_was_asked(worker: WorkerProcess, small_models: Path, tmp_path: Path) -> None:
    """Batch 4 is 4 in the file and in calibration; none asked for leaves it open; samples need not divide."""
    ports = load(worker, small_models / "module", "saved-model")["inputs"]
    samples = f"{small_models}/vectors.npz#0:30"
    four = convert(worker, target(), samples, tmp_path / "four.tflite", batch=4)
    assert four.inputs[0].shape_signature == (4, 16)
    opened = convert(worker, target(), samples, tmp_path / "open.tflite", batch=None)
    assert opened.inputs[0].shape_signature == (-1, 16)
    by_four, by_one = (
        outputs(worker, "host", tmp_path / name, samples, model=str(tmp_path / f"{name}.tflite"), inputs=ports)["out"]
        for name in ("four", "open")
    )
    assert by_four.shape == (30, 16)
    assert np.abs(by_four - by_one).max() < 0.02


def test_a_fixed_batch_is_told(worker: WorkerProcess, small_models: Path, tmp_path: Path) -> None:
    """A model saved with a batch of 8 cannot be pinned to 1, and the message has the 8."""
    load(worker, small_models / "module_of_8", "saved-model")
    samples = f"{small_models}/vectors.npz#0:30"
    with pytest.raises(InputError, match="batch of 8") as refusal:
        convert(worker, target(), samples, tmp_path / "model.tflite")
    assert refusal.value.code == "batch-fixed"
    assert convert(worker, target(), samples, tmp_path / "model.tflite", batch=8).inputs[0].shape == (8, 16)


def test_an_operator_without_integers_is_seen(worker: WorkerProcess, small_models: Path, tmp_path: Path) -> None:
    """A sine stays in float: a note on a CPU, an error where floats cannot run."""
    load(worker, small_models / "sine", "saved-model")
    samples = f"{small_models}/vectors.npz"
    model = convert(worker, target(), samples, tmp_path / "model.tflite")
    assert [one.code for one in check_conformance(model, target()).findings] == ["float-operator"]
    strict = target(float_fallback=False)
    try:
        model = convert(worker, strict, samples, tmp_path / "strict.tflite")
    except MisfitError as refusal:
        assert refusal.code in ("conversion-failed", "unsupported-operators")  # noqa: PT017 (either is right)
    else:
        assert not check_conformance(model, strict).passed


def test_tables_beside_variables_are_refused_by_what_they_need(
    worker: WorkerProcess, small_models: Path, tmp_path: Path
) -> None:
    """A lookup table reaches the converter, which names its operators; an output of words is refused at once."""
    with pytest.raises(InputError, match="'out' is string") as refusal:
        load(worker, small_models / "words", "saved-model")
    assert refusal.value.code == "unsupported-output"
    load(worker, small_models / "table", "saved-model")
    with pytest.raises(MisfitError, match="LookupTableFindV2"):
        convert(worker, target(scheme=Scheme.FLOAT32), f"{small_models}/vectors.npz", tmp_path / "model.tflite")


def test_operators_that_no_runtime_has_are_named(worker: WorkerProcess, small_models: Path, tmp_path: Path) -> None:
    """A determinant has no TFLite operator: a misfit with its name, in every scheme."""
    load(worker, small_models / "determinant", "saved-model")
    for scheme in (Scheme.FLOAT32, Scheme.INT8):
        with pytest.raises(MisfitError, match="MatrixDeterminant") as refusal:
            convert(worker, target(scheme=scheme), f"{small_models}/vectors.npz", tmp_path / "model.tflite")
        assert refusal.value.code == "unsupported-operators"


def test_a_fault_leaves_the_worker_working(worker: WorkerProcess, small_models: Path, tmp_path: Path) -> None:
    """After an error the same process goes on with the next request."""
    with pytest.raises(InputError) as refusal:
        load(worker, small_models / "images.npz", "keras-3")
    assert refusal.value.code == "unreadable-model"
    assert load(worker, small_models / "module", "saved-model")["outputs"][0]["name"] == "out"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("rm -r variables", "its folder variables/ is missing or incomplete"),
        ("rm variables/*data*", "its folder variables/ is missing or incomplete"),
        ("truncate -s -9 variables/*data*", "what its folder variables/ holds is cut short or garbled"),
        ("truncate -s 999 saved_model.pb", "its saved_model.pb is cut short or garbled"),
    ],
)
def test_a_damaged_saved_model_is_told_in_a_clause(
    worker: WorkerProcess, small_models: Path, tmp_path: Path, damage: str, said: str
) -> None:
    """What is missing or cut short, and none of TensorFlow's words; those are in the log whose path is printed."""
    model = tmp_path / "module"
    shutil.copytree(small_models / "module", model)
    subprocess.run(["/bin/sh", "-c", damage], cwd=model, check=True)
    with pytest.raises(InputError) as refusal:
        load(worker, model, "saved-model")
    assert refusal.value.message == f"{model} (saved-model) cannot be loaded: {said}."
    assert "Traceback" in Path(str(refusal.value.details["log"])).read_text()
    assert f"The whole log: {refusal.value.details['log']}" in refusal.value.hint


def test_calibration_tells_how_far_it_is(worker: WorkerProcess, small_models: Path, tmp_path: Path) -> None:
    """Progress counts the samples up to the last."""
    EVENTS.clear()
    load(worker, small_models / "module", "saved-model")
    convert(worker, target(), f"{small_models}/vectors.npz#0:30", tmp_path / "model.tflite")
    counted = [event.done for event in EVENTS if event.message == "calibrating"]
    assert counted == list(range(1, 31))


def test_a_crash_in_native_code_is_an_error_message(tmp_path: Path, small_models: Path) -> None:
    """A worker that dies on a signal is a misfit with the signal's name, not a dead caller."""
    with pytest.raises(MisfitError, match="SIGSEGV") as refusal, WorkerProcess(tmp_path, EVENTS.append) as doomed:  # noqa: PT012
        doomed._process.send_signal(11)
        doomed.ask("load", path=str(small_models / "module"), kind="saved-model")
    assert refusal.value.code == "converter-crashed"
