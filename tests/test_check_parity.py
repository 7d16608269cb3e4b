"""Parity: what the device computes against what the host computed with the same model."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deploying import Device, tiny_model, tiny_target
from hypothesis import given
from hypothesis import strategies as st

import edgepack
from edgepack.bundle.build import build_bundle
from edgepack.check.looking import SAME_BUT_OTHER
from edgepack.check.parity import difference, is_tolerated
from edgepack.check.paritygates import parity_gates
from edgepack.documents import Parity
from edgepack.errors import InputError
from edgepack.hostruntime import HostModel
from edgepack.target import Budget
from edgepack.tflite import read_model


def flip_a_weight(model: Path, tensor: str) -> None:
    """Turn the top bit of every eighth weight of a constant: its sign."""
    entry = next(one for one in read_model(model).tensors if one.constant and tensor in one.name)
    content = bytearray(model.read_bytes())
    for place in range(entry.offset, entry.offset + entry.bytes, 8):
        content[place] ^= 0x80
    model.write_bytes(content)


def pushed(device: Device, folder: Path, model: Path, **budget: Any) -> None:
    """Make a bundle of the model as it lies there, and push it."""
    path = folder / f"{model.stem}.edgepack"
    build_bundle(model, target=tiny_target(**budget), name="tiny", version="1", output=path, with_runtime=False)
    edgepack.push(path, **device.where)


def with_arrays(model: Path, **changes: Any) -> None:
    """Change arrays of the check set beside a model; None takes one out; ``a__b`` is ``a/b``."""
    path = model.with_suffix(".check.npz")
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    arrays |= {name.replace("__", "/"): value for name, value in changes.items()}
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})


def weights_of(model: Path) -> str:
    """The name of the model's largest constant."""
    return max((one for one in read_model(model).tensors if one.constant), key=lambda one: one.bytes).name


def test_a_flipped_weight_fails_parity(device: Device, tmp_path: Path) -> None:
    """Weights that are not those of the model that made the check set: exit 1 with the steps, here and over an sshd."""
    model = tiny_model(tmp_path / "flipped")
    flip_a_weight(model, weights_of(model))
    pushed(device, tmp_path, model, max_parity_steps=2)
    found = edgepack.check(**device.where)
    assert found.parity is not None
    assert found.parity.max_steps is not None
    assert found.parity.max_steps > 2
    assert not found.parity.tolerated
    assert found.verdict == "fail"
    assert [gate.name for gate in found.gates if gate.outcome == "fail"] == ["max_parity_steps"]
    assert f"{found.parity.max_steps:g} quantization steps apart over 40 samples, more than 2: " in found.reasons[-1]
    assert SAME_BUT_OTHER in found.reasons[-1]


def test_the_layer_with_the_flipped_weight_is_named(here: Device, tmp_path: Path) -> None:
    """Held against the model that it should be, the device's layers are right up to the one whose weights are not."""
    model = tiny_model(tmp_path / "flipped")
    whole = shutil.copyfile(model, tmp_path / "whole.tflite")
    layer = next(one for one in read_model(model).operators if one.name == "FULLY_CONNECTED")
    flip_a_weight(model, read_model(model).tensor(0, layer.inputs[1]).name)
    pushed(here, tmp_path, model)
    told = edgepack.check(**here.where).parity
    assert told is not None
    assert (told.diverging, told.cause) == (None, SAME_BUT_OTHER)
    found = edgepack.check(layers_of=whole, **here.where)
    assert found.parity is not None
    assert found.parity.diverging == read_model(whole).tensor(0, layer.outputs[0]).name
    assert found.evidence is not None
    named = {one.name: one for one in found.evidence.layers}
    before = [one for one in found.evidence.layers if one.operator == "CONV_2D"]
    assert before
    assert all(one.max_steps == 0 and one.sqnr_db == 200 for one in before)
    assert (named[found.parity.diverging].max_steps or 0) > 2


def test_layers_that_agree_are_listed_when_asked_for(device: Device, tmp_path: Path) -> None:
    """With --layers every layer's distance from the host's is told, and for that one model and some tensors travel."""
    pushed(device, tmp_path, tiny_model(tmp_path / "good"))
    found = edgepack.check(layers=True, **device.where)
    assert found.evidence is not None
    assert found.evidence.layers[0].operator == "INPUT"
    assert {one.tolerated for one in found.evidence.layers} == {True}
    assert found.parity is not None
    assert (found.parity.diverging, found.parity.cause) == (None, None)


def test_kernels_that_work_in_place_are_no_difference(here: Device, data: Path, tmp_path: Path) -> None:
    """A ResNet's ADD writes over its input in some runtimes; what is lost so is left out, and no difference."""
    model = tmp_path / "resnet.tflite"
    shutil.copyfile(data / "image" / "pretrainedResnet.tflite", model)
    ((name, tensor),) = read_model(model).named_inputs
    images = np.random.default_rng(0).uniform(0, 255, (3, *tensor.shape[1:])).astype(np.float32)
    output = next(name for name, _ in read_model(model).named_outputs)
    host = HostModel(model)
    scores = np.concatenate([host.run({name: images[row : row + 1]})[output] for row in range(3)])
    np.savez(model.with_suffix(".check.npz"), **{f"input/{name}": images, f"quantized/{output}": scores})
    pushed(here, tmp_path, model)
    found = edgepack.check(layers=True, **here.where)
    assert found.evidence is not None
    assert {one.operator for one in found.evidence.layers} >= {"CONV_2D", "ADD", "SOFTMAX"}
    assert all(one.tolerated for one in found.evidence.layers)


def test_what_hinders_a_look_at_layers_is_told(here: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a runtime on this machine, or against a model of other layers, the check goes on and says why."""
    pushed(here, tmp_path, tiny_model(tmp_path / "good"))
    other = tmp_path / "other.tflite"
    shutil.copyfile(Path(__file__).parent / "data" / "tiny_float.tflite", other)
    found = edgepack.check(layers_of=other, **here.where)
    assert found.parity is not None
    assert "other.tflite is not built as the release's model" in (found.parity.cause or "")
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    found = edgepack.check(layers=True, **here.where)
    assert found.parity is not None
    assert "needs ai-edge-litert, which is not installed here" in (found.parity.cause or "")
    with pytest.raises(InputError, match="no-such"):
        edgepack.check("nobody@device.invalid", layers_of=tmp_path / "no-such.tflite")


def test_a_release_for_another_preprocessing_fails_accuracy(device: Device, tmp_path: Path) -> None:
    """Samples as another model wants them (-1 to 1) are classified wrong, and the drop says so; over an sshd too."""
    model = tiny_model(tmp_path / "other")
    with np.load(model.with_suffix(".check.npz")) as file:
        images = file["input/image"]
    with_arrays(model, input__image=1 - images * 2)
    pushed(device, tmp_path, model, max_accuracy_drop=0.02)
    found = edgepack.check(**device.where)
    assert found.verdict == "fail"
    assert [gate.name for gate in found.gates if gate.outcome == "fail"] == ["max_accuracy_drop"]


def test_a_good_release_keeps_to_the_strictest_parity(here: Device, tmp_path: Path) -> None:
    """The same model on the same runtime: not a step apart, all classes the same."""
    pushed(here, tmp_path, tiny_model(tmp_path / "good"), max_parity_steps=1, min_top1_agreement=1.0)
    found = edgepack.check(**here.where)
    assert found.verdict == "pass"
    assert found.parity is not None
    assert (found.parity.reference_agreement, found.parity.tolerated) == (1.0, True)
    assert found.evidence is not None
    assert found.evidence.classes is not None
    assert found.evidence.classes.labels == found.evidence.classes.device == found.evidence.classes.reference


@given(
    host=st.lists(st.integers(-128, 127), min_size=1, max_size=30),
    move=st.integers(0, 40),
    scale=st.floats(1e-4, 10),
)
def test_a_difference_in_steps_is_that_of_the_integers(host: list[int], move: int, scale: float) -> None:
    """What the integers differ by is told, whatever the scale; two steps are always tolerated."""
    integers = np.array(host)
    ours, theirs = ((one * np.float32(scale)).astype(np.float32) for one in (integers + move, integers))
    found = difference(ours, theirs, scale)
    assert found.steps == pytest.approx(move, abs=0.02)
    assert found.is_tolerated or move > 2
    assert is_tolerated(None, found.share) == (found.share <= 0.01)


def test_a_difference_without_a_limit_is_told(here: Device, tmp_path: Path) -> None:
    """Where the budget says nothing of parity, outputs that no rounding explains are a warning among the reasons."""
    model = tiny_model(tmp_path / "noisy", noise=0.2)
    pushed(here, tmp_path, model)
    found = edgepack.check(**here.where)
    assert found.verdict == "pass"
    assert any(one.startswith("Warning: device and host are up to") for one in found.reasons)


def test_every_lack_of_a_check_set_has_a_reason_of_its_own(here: Device, tmp_path: Path) -> None:
    """No check set, no labels, no outputs of the host's: each is inconclusive in its own words, none a pass."""
    limits = {"max_accuracy_drop": 0.02, "max_parity_steps": 2.0}
    reasons = []
    for name in ("none", "unlabelled", "labelled"):
        model = tiny_model(tmp_path / name)
        if name == "none":
            model.with_suffix(".check.npz").unlink()
        elif name == "unlabelled":
            with_arrays(model, labels=None)
        else:
            output = next(one for one in np.load(model.with_suffix(".check.npz")).files if one.startswith("quantized/"))
            with_arrays(model, **{output.replace("/", "__"): None})
        shutil.move(model, model := model.with_name(f"{name}.tflite"))
        beside = model.with_name("tiny.check.npz")
        if beside.exists():
            shutil.move(beside, model.with_suffix(".check.npz"))
        pushed(here, tmp_path, model, **limits)
        found = edgepack.check(**here.where)
        assert found.verdict == "inconclusive"
        reasons += [gate.reason for gate in found.gates if gate.outcome == "inconclusive"]
    assert [one.partition(": ")[2] for one in reasons] == [
        "there is no check set.",
        "there is no check set.",
        "the 40 samples asked have no labels.",
        "the 40 samples asked have no outputs of the host's.",
    ]


def test_a_limit_on_parity_is_checked_as_any_other() -> None:
    """A limit that is no number of steps is refused before any device is asked."""
    with pytest.raises(InputError) as caught:
        edgepack.check("nobody@device.invalid", budget={"max_parity_steps": -1})
    assert caught.value.code == "bad-budget"
    assert "max_parity_steps" in str(caught.value)


def test_parity_that_is_not_known_never_passes() -> None:
    """A float output has no steps, several outputs have no class: a limit on either is inconclusive."""
    budget = Budget(max_parity_steps=2.0, min_top1_agreement=0.9)
    assert {gate.outcome for gate in parity_gates(Parity(None, 0.0, 9), "", budget)} == {"inconclusive"}
    assert {gate.outcome for gate in parity_gates(None, "there is none", budget)} == {"inconclusive"}
    assert [gate.outcome for gate in parity_gates(Parity(0.8, 0.1, 9, 3.0), "", budget)] == ["fail", "fail"]
    assert [gate.outcome for gate in parity_gates(Parity(0.9, 0.1, 9, 2.0), "", budget)] == ["pass", "pass"]
