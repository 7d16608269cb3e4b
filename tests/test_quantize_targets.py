"""Several targets of one model, and what was made before."""

from __future__ import annotations

import hashlib
import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgepack
from edgepack.documents import QuantizeDocument, QuantizeSetDocument
from edgepack.errors import InputError, MisfitError
from edgepack.events import Event
from edgepack.quantize import workshop
from edgepack.tflite import read_model

TARGETS = ["generic-cpu", "raspberry-pi-4", "generic-gpu", "coral-usb"]


@pytest.fixture(scope="module")
def several(small_models: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[QuantizeSetDocument, list[Event]]:
    """The classifier for four targets with three different needs."""
    events: list[Event] = []
    samples = small_models / "images.npz"
    document = edgepack.quantize(
        small_models / "keras3.keras",
        target=TARGETS,
        output=tmp_path_factory.mktemp("several") / "out-{target}.tflite",
        calibration=f"{samples}#0:20",
        evaluation=f"{samples}#20:60",
        report=events.append,
    )
    return document, events


def test_each_target_gets_its_own_model(several: tuple[QuantizeSetDocument, list[Event]]) -> None:
    """In the order asked for, each as its profile says, with check set and provenance beside it."""
    documents = several[0].models
    assert [one.target for one in documents] == TARGETS
    assert [one.model.scheme for one in documents] == ["int8", "int8", "float16", "int8"]
    assert [Path(one.model.path).name for one in documents] == [f"out-{name}.tflite" for name in TARGETS]
    for one in documents:
        assert hashlib.sha256(Path(one.model.path).read_bytes()).hexdigest() == one.model.sha256
        assert one.check_set is not None
        assert Path(one.check_set).is_file()
        assert Path(one.provenance).is_file()
        assert one.accuracy is not None
    assert {tensor.dtype for _, tensor in read_model(Path(documents[2].model.path)).named_inputs} == {"float32"}


def test_the_shares_are_told(several: tuple[QuantizeSetDocument, list[Event]]) -> None:
    """How much of the weights is int8, and how much an accelerator takes, stand in the document."""
    cpu, _, gpu, coral = (one.conformance for one in several[0].models)
    assert (cpu.delegated_share, coral.delegated_share, gpu.delegated_share) == (None, 1.0, 1.0)
    assert cpu.int8_weight_share is not None
    assert cpu.int8_weight_share > 0.9
    assert gpu.int8_weight_share == 0.0


def test_calibration_samples_are_audited_for_the_targets_that_use_them(
    several: tuple[QuantizeSetDocument, list[Event]],
) -> None:
    """That few samples set the ranges is said of integers; a float16 target says that it did not use them."""
    said = {one.target: {found.code: found.message for found in one.conformance.findings} for one in several[0].models}
    assert "few-samples" in said["coral-usb"]
    assert "unused-calibration" not in said["coral-usb"]
    assert said["generic-gpu"]["unused-calibration"] == "float16 needs no calibration samples; they were not used."
    assert not {"missing-classes", "repeated-samples"} & set(said["generic-gpu"])


def test_an_open_batch_is_refused_before_the_conversion_where_sizes_have_to_be_fixed(
    small_models: Path, tmp_path: Path
) -> None:
    """Only the target that cannot have it is named, and nothing is converted for the other."""
    events: list[Event] = []
    with pytest.raises(InputError, match=r"and coral-usb \(the Edge TPU\) takes fixed sizes only") as refusal:
        edgepack.quantize(
            small_models / "keras3.keras", target=["generic-cpu", "coral-usb"], output=tmp_path / "{target}.tflite",
            calibration=f"{small_models / 'images.npz'}#0:20", batch=None, report=events.append,
        )  # fmt: skip
    assert refusal.value.code == "open-batch"
    assert not any("converting" in event.message for event in events)


def test_samples_that_change_are_told_in_their_own_words(
    small_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The converter only passes on what a shuffling function was refused for: exit 2, and no layer is blamed."""
    monkeypatch.chdir(tmp_path)
    code = "import numpy as np\ndef shuffled():\n    return [np.random.rand(8, 8, 1).astype('f4') for _ in range(20)]\n"
    Path("my_shuffled_data.py").write_text(code)
    with pytest.raises(InputError) as refusal:
        edgepack.quantize(
            small_models / "keras3.keras", target="generic-cpu", output="o.tflite",
            calibration="my_shuffled_data:shuffled#0:20", cache=False,
        )  # fmt: skip
    assert refusal.value.code == "unsteady-samples"
    assert refusal.value.message == "my_shuffled_data:shuffled gives other samples each time it is called."
    assert refusal.value.hint.startswith("Give the same ones in the same order")


def test_what_targets_share_is_done_once(several: tuple[QuantizeSetDocument, list[Event]]) -> None:
    """The model is loaded once, the float model runs once, and equal needs are calibrated once."""
    documents, events = several[0].models, several[1]
    finished = [event.message for event in events if event.done is not None and event.done == event.total]
    assert sum("loading" in event.message for event in events) == 1
    assert finished.count("running the float model") == 2  # a few rows to compare, then all of them
    assert finished.count("calibrating") == 2  # for CPUs, and for what may keep no float
    assert documents[0].model.sha256 == documents[1].model.sha256


def test_one_refusal_writes_nothing_and_tells_all(small_models: Path, tmp_path: Path) -> None:
    """Targets that cannot have the model are named together, and no other target's model is left half a set."""
    strict = 'extends = "generic-cpu"\n[quantization]\nfloat_fallback = false\nio = "int8"\n'
    for name in ("one", "two"):
        (tmp_path / f"{name}.toml").write_text(strict)
    (tmp_path / "fine.toml").write_text('extends = "generic-cpu"\n[quantization]\nscheme = "float32"\n')
    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises(MisfitError, match="2 of 3 targets") as refusal:
        edgepack.quantize(
            small_models / "sine",
            target=[str(tmp_path / f"{name}.toml") for name in ("one", "fine", "two")],
            output=folder,
            calibration=f"{small_models / 'vectors.npz'}",
        )
    assert [one["target"] for one in refusal.value.details["refused"]] == ["one", "two"]
    assert not list(folder.iterdir())


def test_one_file_for_two_targets_is_refused(small_models: Path, tmp_path: Path) -> None:
    """The error says how to name them apart."""
    with pytest.raises(InputError, match="2 targets need 2 files") as refusal:
        edgepack.quantize(small_models / "keras3.keras", target=TARGETS[:2], output=tmp_path / "out.tflite")
    assert "{target}" in str(refusal.value.hint)


def quantize_small(
    small_models: Path, output: Path, *, samples: Path | None = None, **options: Any
) -> QuantizeDocument:
    """The classifier in int8 on a few rows."""
    samples = samples or small_models / "images.npz"
    return edgepack.quantize(
        small_models / "keras3.keras",
        target="generic-cpu",
        output=output,
        calibration=f"{samples}#0:10",
        evaluation=f"{samples}#10:40",
        **options,
    )


def test_the_same_again_is_taken_from_the_cache(
    small_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second run gives the same files and figures, and starts no TensorFlow; another row or option does."""
    first = quantize_small(small_models, tmp_path / "a.tflite")
    copy = tmp_path / "copy.npz"
    copy.write_bytes((small_models / "images.npz").read_bytes())

    def no_worker(*_: object) -> None:
        raise AssertionError("a worker was started")

    with monkeypatch.context() as patch:
        patch.setattr(workshop, "WorkerProcess", no_worker)
        second = quantize_small(small_models, tmp_path / "b.tflite", samples=copy)
        assert (second.cached, first.cached) == (True, False)
        assert (second.accuracy, second.model.sha256) == (first.accuracy, first.model.sha256)
        for suffix in (".tflite", ".check.npz", ".provenance.json"):
            assert (tmp_path / f"b{suffix}").read_bytes() == (tmp_path / f"a{suffix}").read_bytes()
        with pytest.raises(AssertionError, match="a worker was started"):
            quantize_small(small_models, tmp_path / "c.tflite", batch=2)
        with np.load(copy) as arrays:
            np.savez(copy, x=arrays["x"][::-1], y=arrays["y"][::-1])
        with pytest.raises(AssertionError, match="a worker was started"):
            quantize_small(small_models, tmp_path / "c.tflite", samples=copy)
        with pytest.raises(AssertionError, match="a worker was started"):
            quantize_small(small_models, tmp_path / "c.tflite", cache=False)
    assert not (tmp_path / "c.tflite").exists()


def test_a_metric_of_the_users_is_measured_anew(
    small_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code behind a metric's name may have changed: outputs come from the cache, its figure never does."""
    monkeypatch.chdir(tmp_path)
    module = tmp_path / "judging_anew.py"
    figures = []
    for value in (0.25, 0.75):
        module.write_text(f"def metric(outputs, labels):\n    return {value}\n")
        monkeypatch.delitem(sys.modules, "judging_anew", raising=False)
        importlib.invalidate_caches()
        document = quantize_small(small_models, tmp_path / "out.tflite", metric="judging_anew:metric")
        assert document.accuracy is not None
        figures.append((document.accuracy.quantized, document.cached))
    assert figures == [(0.25, False), (0.75, True)]
