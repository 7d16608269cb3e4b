"""``quantize`` from a trained model to the files beside OUT.tflite, through the public function."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_quantize_conformance import target

from edgepack.building import quantize
from edgepack.documents import QuantizeDocument
from edgepack.errors import EdgepackError, InputError, MisfitError
from edgepack.events import Event
from edgepack.quantize.agreement import refuse_difference
from edgepack.quantize.artifacts import write_npz
from edgepack.scoring import topk_hits
from edgepack.target import Scheme
from edgepack.tflite import read_model

ROOT = Path(__file__).parent.parent


def left_in(folder: Path) -> list[str]:
    """The names of what lies in a folder, hidden ones too."""
    return sorted(path.name for path in folder.iterdir())


@dataclasses.dataclass
class Whole:
    """One finished run."""

    document: QuantizeDocument
    output: Path
    events: list[Event]


@pytest.fixture(scope="module")
def whole(small_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """The classifier in int8, calibrated on 20 rows and evaluated on 100."""
    output, events = tmp_path_factory.mktemp("whole") / "out.tflite", []
    samples = small_models / "images.npz"
    document = quantize(
        small_models / "keras3.keras",
        target="generic-cpu",
        output=output,
        calibration=f"{samples}#0:20",
        evaluation=f"{samples}#20:120",
        report=events.append,
    )
    return Whole(document, output, events)


def test_the_document_describes_the_file(whole: Whole) -> None:
    """Size, digest and scheme are those of the file that was written; the source is named."""
    import hashlib

    model = whole.document.model
    content = whole.output.read_bytes()
    assert (model.bytes, model.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert model.scheme == "int8"
    assert whole.document.source.kind == "keras-3"
    assert whole.document.conformance.passed
    assert {tensor.dtype for _, tensor in read_model(whole.output).named_inputs} == {"int8"}


def test_accuracy_is_that_of_both_models_on_the_same_rows(whole: Whole) -> None:
    """Reference, quantized and drop can be computed again from the check set, and the interval holds the drop."""
    accuracy = whole.document.accuracy
    assert accuracy is not None
    with np.load(whole.output.with_suffix(".check.npz")) as check:
        assert accuracy.reference == pytest.approx(topk_hits(check["float/scores"], check["labels"]).mean())
        assert accuracy.quantized == pytest.approx(topk_hits(check["quantized/scores"], check["labels"]).mean())
    assert accuracy.samples == 100
    assert accuracy.reference is not None
    assert accuracy.reference > 0.9
    assert accuracy.drop == pytest.approx(accuracy.reference - accuracy.quantized)
    assert accuracy.interval is not None
    assert accuracy.interval.low <= accuracy.drop <= accuracy.interval.high


def test_the_check_set_holds_the_rows_as_the_model_takes_them(whole: Whole, small_models: Path) -> None:
    """Inputs are the integers of an int8 input, under the source's names, with both models' outputs as floats."""
    samples = np.load(small_models / "images.npz")
    [(_, tensor)] = read_model(whole.output).named_inputs
    with np.load(whole.output.with_suffix(".check.npz"), allow_pickle=False) as check:
        assert set(check) == {"raw/image", "quantization/image", "labels", "float/scores", "quantized/scores"}
        assert check["quantization/image"].tolist() == [tensor.scales[0], tensor.zero_points[0]]
        numbers = (check["raw/image"].astype(np.float32) - tensor.zero_points[0]) * np.float32(tensor.scales[0])
        assert np.abs(numbers - samples["x"][20:120]).max() <= tensor.scales[0] * 0.51
        assert np.array_equal(check["labels"], samples["y"][20:120])
        assert {check[name].dtype.name for name in check if "/scores" in name} == {"float32"}
        assert check["raw/image"].dtype.name == "int8"


def test_provenance_tells_the_origin_and_no_path_time_or_user(whole: Whole) -> None:
    """Source digest, options and library versions are there; nothing that differs on another machine is."""
    text = whole.output.with_suffix(".provenance.json").read_text()
    provenance = json.loads(text)
    assert provenance["schema"] == 1
    assert provenance["source"]["sha256"] == whole.document.source.sha256
    assert provenance["model"]["sha256"] == whole.document.model.sha256
    assert provenance["options"]["scheme"] == "int8"
    assert provenance["names"] == {"inputs": ["image"], "outputs": ["scores"]}
    assert {"tensorflow", "numpy"} <= set(provenance["libraries"])
    assert str(whole.output.parent) not in text
    assert "images.npz" not in text


def test_progress_is_told_for_everything_long(whole: Whole) -> None:
    """Checking, calibrating and running count samples to the end; the steps between are said."""
    counted = {event.message: event for event in whole.events if event.done is not None}
    assert {"checking images.npz", "calibrating", "running the float model", "running out.tflite"} <= set(counted)
    assert [event for event in counted.values() if event.done != event.total] == []
    assert any("converting to int8" in event.message for event in whole.events)


def test_nothing_else_is_left_beside_the_model(whole: Whole) -> None:
    """Three files, and no trace of the work."""
    assert left_in(whole.output.parent) == ["out.check.npz", "out.provenance.json", "out.tflite"]


_FROM_A_PROGRAM = """
import sys
from edgepack.building import quantize
quantize(sys.argv[1], target="generic-cpu", output=sys.argv[2], calibration=sys.argv[3], evaluation=sys.argv[4])
print([name for name in ("tensorflow", "keras", "tf_keras", "ai_edge_litert") if name in sys.modules])
"""


def test_the_same_input_gives_the_same_bytes_anywhere(whole: Whole, small_models: Path, tmp_path: Path) -> None:
    """Another process, folder and hash seed: model, check set and provenance are equal to the byte.

    And the program that called keeps its own Keras, TensorFlow and runtimes, or stays free of them.
    """
    samples = small_models / "images.npz"
    output = tmp_path / "out.tflite"
    arguments = [str(small_models / "keras3.keras"), str(output), f"{samples}#0:20", f"{samples}#20:120"]
    ran = subprocess.run(
        [sys.executable, "-c", _FROM_A_PROGRAM, *arguments],
        env={**os.environ, "PYTHONHASHSEED": "5"}, cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    for suffix in (".tflite", ".check.npz", ".provenance.json"):
        assert output.with_suffix(suffix).read_bytes() == whole.output.with_suffix(suffix).read_bytes(), suffix
    assert ran.stdout.strip() == "[]"
    assert ran.stderr == ""


def test_a_check_set_of_its_own_is_used(small_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--check-set decides what travels to the device; evaluation still decides the accuracy; a metric is a function."""
    pairs = small_models / "pairs.npz"
    (tmp_path / "my_metric.py").write_text(
        "def share(outputs, labels):\n    return float((outputs['larger'].argmax(1) == labels).mean())\n"
    )
    monkeypatch.chdir(tmp_path)
    document = quantize(
        small_models / "two_sided.keras",
        target=target(scheme=Scheme.FLOAT16),
        output=tmp_path / "out.tflite",
        evaluation=f"{pairs}#0:50",
        check_set=f"{pairs}#50:60",
        metric="my_metric:share",
    )
    assert document.accuracy is not None
    assert (document.accuracy.metric, document.accuracy.samples) == ("my_metric:share", 50)
    with np.load(tmp_path / "out.check.npz") as check:
        shapes = {name: check[name].shape for name in check}
    assert shapes["input/left"] == (10, 6)
    assert shapes["float/features"] == shapes["quantized/features"] == (10, 3)


def test_dynamic_range_says_what_it_converted_around(small_models: Path, tmp_path: Path) -> None:
    """The finding names the operator and the price; an old check set beside the model does not survive it."""
    stale = tmp_path / "out.check.npz"
    write_npz(stale, {"input/x": np.zeros((1, 4), np.float32)})
    document = quantize(
        small_models / "wide.keras", target=target(scheme=Scheme.DYNAMIC), output=tmp_path / "out.tflite"
    )
    (finding,) = document.conformance.findings
    assert (finding.code, finding.severity, finding.subject) == ("converted-around", "note", "FULLY_CONNECTED")
    assert document.check_set is None
    assert not stale.exists()


def test_a_float_tflite_goes_through_a_float_target(small_models: Path, tmp_path: Path) -> None:
    """The bytes are the same, and nothing is lost."""
    floats = target(scheme=Scheme.FLOAT32, io="float32")
    first = quantize(small_models / "module", target=floats, output=tmp_path / "a.tflite")
    second = quantize(
        tmp_path / "a.tflite",
        target=floats,
        output=tmp_path / "b.tflite",
        evaluation=f"{small_models}/vectors.npz",
    )
    assert second.model.sha256 == first.model.sha256
    assert second.accuracy is not None
    assert second.accuracy.drop == 0


def test_a_quantized_tflite_is_not_taken_for_float(whole: Whole, tmp_path: Path) -> None:
    """A model that is int8 already is exit 2, and the hint says that bundle takes it."""
    with pytest.raises(InputError) as refusal:
        quantize(whole.output, target=target(scheme=Scheme.FLOAT32), output=tmp_path / "out.tflite")
    assert refusal.value.code == "already-quantized"
    assert "bundle" in refusal.value.hint
    assert left_in(tmp_path) == []


def test_a_misfit_leaves_nothing_behind(small_models: Path, tmp_path: Path) -> None:
    """A sine on an integer-only target is exit 5 with the tensors named, and the folder stays empty."""
    with pytest.raises(MisfitError) as refusal:
        quantize(
            small_models / "sine",
            target=target(float_fallback=False),
            output=tmp_path / "out.tflite",
            calibration=small_models / "vectors.npz",
        )
    assert refusal.value.code in ("conformance", "conversion-failed", "unsupported-operators")
    assert left_in(tmp_path) == []


def _unknown_target(models: Path) -> dict[str, Any]:
    return {"target": "generic-cup"}


def _no_calibration(models: Path) -> dict[str, Any]:
    return {"calibration": None}


def _overlap(models: Path) -> dict[str, Any]:
    return {"evaluation": f"{models}/images.npz#19:40"}


def _no_labels(models: Path) -> dict[str, Any]:
    return {"evaluation": f"{models}/two-sided-no-labels.npz"}


def _unknown_metric(models: Path) -> dict[str, Any]:
    return {"metric": "no_module:at_all"}


def _bad_output(models: Path) -> dict[str, Any]:
    return {"output": models / "absent" / "out.tflite"}


def _no_suffix(models: Path) -> dict[str, Any]:
    return {"output": models / "out"}


def _broken_model(models: Path) -> dict[str, Any]:
    return {"model": models / "images.npz"}


def _bad_batch(models: Path) -> dict[str, Any]:
    return {"batch": 0}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (_unknown_target, "unknown-target"),
        (_no_calibration, "no-calibration"),
        (_overlap, "overlap"),
        (_no_labels, "no-samples"),
        (_unknown_metric, "unknown-metric"),
        (_bad_output, "bad-output"),
        (_no_suffix, "bad-output"),
        (_broken_model, "unknown-model"),
        (_bad_batch, "bad-batch"),
    ],
)
def test_what_is_wrong_is_told_before_tensorflow_starts(
    small_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path], dict[str, Any]], code: str,
) -> None:  # fmt: skip
    """Bad options and bad files are exit 2 within a moment, without a worker, and nothing is written."""
    monkeypatch.setattr(subprocess, "Popen", _no_process)
    asked: dict[str, Any] = {
        "model": small_models / "keras3.keras",
        "target": "generic-cpu",
        "output": tmp_path / "out.tflite",
        "calibration": f"{small_models}/images.npz#0:20",
    }
    asked |= change(small_models)
    with pytest.raises(InputError) as refusal:
        quantize(asked.pop("model"), **asked)
    assert refusal.value.code == code
    assert refusal.value.hint
    assert left_in(tmp_path) == []


def _no_process(*arguments: object, **options: object) -> None:
    raise AssertionError("a process was started")


def test_samples_that_do_not_fit_the_model_are_told(small_models: Path, tmp_path: Path) -> None:
    """The shapes of the model are known once it is loaded; nothing is converted for samples of another shape."""
    np.savez(tmp_path / "samples.npz", x=np.random.default_rng(0).random((5, 8, 1, 8), np.float32))
    work = tmp_path / "work"
    work.mkdir()
    with pytest.raises(InputError, match=r"\[N, 8, 8, 1\]") as refusal:
        quantize(
            small_models / "keras2.h5",
            target="generic-cpu",
            output=work / "out.tflite",
            calibration=tmp_path / "samples.npz",
        )
    assert refusal.value.code == "bad-samples"
    assert left_in(work) == []


def test_top1_of_several_outputs_is_told_before_the_conversion(small_models: Path, tmp_path: Path) -> None:
    """Which output top1 should count is not guessed; the hint shows a metric of one's own."""
    pairs = small_models / "pairs.npz"
    with pytest.raises(InputError, match="top1 needs one output") as refusal:
        quantize(
            small_models / "two_sided.keras",
            target="generic-cpu",
            output=tmp_path / "out.tflite",
            calibration=f"{pairs}#0:10",
            evaluation=f"{pairs}#10:20",
        )
    assert refusal.value.code == "metric-misfit"
    assert "--metric" in refusal.value.hint
    assert left_in(tmp_path) == []


def test_labels_that_no_class_has_are_told_before_the_conversion(small_models: Path, tmp_path: Path) -> None:
    """Labels 1..4 of four classes would be counted as a bad model, after minutes; so would -1 and 0.5."""
    with np.load(small_models / "images.npz") as file:
        arrays = {name: file[name] for name in file.files}
    arrays["y"] = arrays["y"] + 1
    np.savez(tmp_path / "samples.npz", **arrays)
    work = tmp_path / "work"
    work.mkdir()
    events: list[Event] = []
    with pytest.raises(InputError, match=r"whole numbers 0\.\.\d; yours are 1\.\.\d \(subtract 1\?\)") as refusal:
        quantize(
            small_models / "keras3.keras",
            target="generic-cpu",
            output=work / "out.tflite",
            calibration=f"{tmp_path}/samples.npz#0:20",
            evaluation=f"{tmp_path}/samples.npz#20:120",
            report=events.append,
        )
    assert refusal.value.code == "bad-labels"
    assert not any("converting" in event.message for event in events)
    assert left_in(work) == []


def test_a_folder_that_cannot_be_written_is_told(small_models: Path) -> None:
    """Where no file can be made the answer is a sentence."""
    with pytest.raises(InputError) as refusal:
        quantize(small_models / "module", target=target(scheme=Scheme.FLOAT32), output=Path("/proc/out.tflite"))
    assert refusal.value.code == "bad-output"


def test_a_light_installation_says_what_to_install(small_models: Path, tmp_path: Path) -> None:
    """Without TensorFlow the answer is the pip command."""
    hidden = tmp_path / "hidden" / "tensorflow"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'tensorflow'\", name='tensorflow')"
    )
    work = tmp_path / "work"
    work.mkdir()
    script = f"""
from edgepack.errors import InputError
from edgepack.building import quantize
try:
    quantize({str(small_models / "module")!r}, target="generic-cpu", output={str(work / "out.tflite")!r},
             calibration={str(small_models / "vectors.npz")!r})
except InputError as error:
    print(error.code, error.hint)
"""
    environment = {**os.environ, "PYTHONPATH": str(hidden.parent)}
    ran = subprocess.run(
        [sys.executable, "-c", script], env=environment, cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert ran.stdout.startswith("no-tensorflow")
    assert ".[quantize]" in ran.stdout
    assert left_in(work) == []


def test_ctrl_c_leaves_nothing(small_models: Path, tmp_path: Path) -> None:
    """Interrupted while TensorFlow works, the caller ends at once, its worker with it, and no file is left."""
    script = """
import sys
from edgepack.building import quantize
quantize(sys.argv[1], target="generic-cpu", output=sys.argv[2], calibration=sys.argv[3],
         report=lambda event: print(event.message, flush=True))
"""
    arguments = [str(small_models / "keras3.keras"), str(tmp_path / "out.tflite"), f"{small_models}/images.npz#0:20"]
    running = subprocess.Popen(
        [sys.executable, "-c", script, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert running.stdout is not None
    while "loading" not in running.stdout.readline():
        assert running.poll() is None
    time.sleep(1)
    assert any(name.startswith(".edgepack-quantize-") for name in left_in(tmp_path))
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=10)
    assert running.returncode == -signal.SIGINT
    assert left_in(tmp_path) == []


def test_a_conversion_that_answers_differently_does_not_pass() -> None:
    """Another class, another shape, a missing output or NaN is a misfit; the last digits of a float are not."""
    scores = {"scores": np.array([[0.1, 0.9], [0.7, 0.3]], np.float32)}
    refuse_difference(scores, {"scores": scores["scores"] + np.float32(1e-4)})
    wrong: list[dict[str, Any]] = [
        {"scores": scores["scores"][:, ::-1]},
        {"scores": scores["scores"][:1]},
        {"scores": np.full((2, 2), np.nan, np.float32)},
        {"other": scores["scores"]},
    ]
    for converted in wrong:
        with pytest.raises(MisfitError) as refusal:
            refuse_difference(scores, converted)
        assert refusal.value.code == "conversion-differs"
    with pytest.raises(MisfitError, match="source model itself"):
        refuse_difference({"scores": np.array([[np.nan]])}, {"scores": np.array([[np.nan]])})


def test_the_check_set_is_a_plain_archive_without_dates(whole: Whole) -> None:
    """Entries are stored, sorted, and dated 1980: the bytes do not know when they were written."""
    with zipfile.ZipFile(whole.output.with_suffix(".check.npz")) as archive:
        entries = archive.infolist()
    assert [entry.filename for entry in entries] == sorted(entry.filename for entry in entries)
    assert {entry.compress_type for entry in entries} == {zipfile.ZIP_STORED}
    assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}


def test_keyword_spotting_keeps_its_accuracy(data: Path, tmp_path: Path) -> None:
    """The real SavedModel of Keras 2: float .900 on rows 100 to 499, and int8 within a point of it."""
    samples = data / "kws" / "samples.npz"
    document = quantize(
        data / "kws" / "saved_model",
        target="raspberry-pi-4",
        output=tmp_path / "kws.tflite",
        calibration=f"{samples}#0:100",
        evaluation=f"{samples}#100:500",
    )
    assert document.accuracy is not None
    assert document.accuracy.reference == pytest.approx(0.9, abs=1e-6)
    assert document.accuracy.quantized == pytest.approx(0.9025, abs=0.005)
    assert document.model.bytes < 60_000


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("wakeword/str_ww_ref_model.h5", (30, 1, 40)),
        ("anomaly/ad01.h5", (640,)),
        ("image/pretrainedResnet.h5", (32, 32, 3)),
    ],
)
def test_real_keras_2_files_quantize(data: Path, tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    """Files that Keras 3 refuses go all the way to int8."""
    np.savez(tmp_path / "samples.npz", x=np.random.default_rng(0).random((20, *shape), dtype=np.float32))
    try:
        document = quantize(
            data / name, target="generic-cpu", output=tmp_path / "out.tflite", calibration=tmp_path / "samples.npz"
        )
    except EdgepackError as error:
        pytest.fail(str(error))
    assert document.conformance.passed
    assert document.model.bytes < document.source.bytes / 2


def test_a_metric_that_fails_is_told_before_the_conversion(
    small_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A function of the user's is tried on the float model's outputs, with its own error, and nothing is converted."""
    (tmp_path / "metric_with_a_fault.py").write_text(
        "def share(outputs, labels):\n    return outputs['scores'].mean()\n"
    )
    monkeypatch.chdir(tmp_path)
    events: list[Event] = []
    samples = small_models / "images.npz"
    with pytest.raises(
        InputError, match=r"metric_with_a_fault:share failed in metric_with_a_fault\.py, line 2: IndexError"
    ) as caught:
        quantize(
            small_models / "keras3.keras",
            target="generic-cpu",
            output=tmp_path / "out.tflite",
            calibration=f"{samples}#0:20",
            evaluation=f"{samples}#20:120",
            metric="metric_with_a_fault:share",
            report=events.append,
        )
    assert caught.value.code == "metric-failed"
    assert not any("converting" in event.message for event in events)
    assert not (tmp_path / "out.tflite").exists()
