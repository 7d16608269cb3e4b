from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from edgepack.errors import MisfitError
from edgepack.quantize.conformance import border_type, check_conformance, needs_dense_per_tensor, refuse_misfit
from edgepack.quantize.operators import needed_version
from edgepack.target import Delegate, Scheme, Target, load_target
from edgepack.tflite import Operator, Tensor, TfliteModel


def target(runtime: str = "tflite-runtime", *, delegate: str | None = None, **quantization: Any) -> Target:
    """A CPU target with other quantization keys; one with a delegate keeps its runtime."""
    base = load_target("generic-cpu")
    return dataclasses.replace(
        base,
        delegate=Delegate(delegate),
        runtime=dataclasses.replace(base.runtime, package=runtime),
        quantization=dataclasses.replace(base.quantization, **quantization),
    )


def tensor(index: int, dtype: str, name: str = "", *, constant: bool = False, scales: int = 1) -> Tensor:
    """A tensor of four numbers."""
    return Tensor(
        index=index,
        subgraph=0,
        name=name or f"t{index}",
        shape=(1, 4),
        shape_signature=(1, 4),
        dtype=dtype,
        scales=(0.1,) * scales,
        zero_points=(0,) * scales,
        quantized_dimension=0,
        constant=constant,
        bytes=4 * constant,
    )


def model(*types: str, operator: str = "FULLY_CONNECTED", version: int = 4, scales: int = 1) -> TfliteModel:
    """One operator from an input (the first type) and weights (the second) to an output (the third)."""
    tensors = (
        tensor(0, types[0], "in"),
        tensor(1, types[1], "weights", constant=True, scales=scales),
        tensor(2, types[2], "out"),
    )
    only = Operator(0, 0, operator, version, None, (0, 1), (2,))
    return TfliteModel(Path("m"), 100, (only,), tensors, tensors[:1], tensors[2:], (), (0,))


def codes(found: TfliteModel, wanted: Target) -> list[tuple[str, str]]:
    """Severity and code of everything that is said."""
    return [(one.severity, one.code) for one in check_conformance(found, wanted).findings]


def test_an_integer_model_for_an_integer_target_passes() -> None:
    """Nothing is said where nothing is wrong."""
    conformance = check_conformance(model("int8", "int8", "int8"), target(float_fallback=False))
    assert conformance.passed
    assert conformance.findings == ()
    refuse_misfit(conformance, target())


def test_a_float_tensor_on_an_integer_only_target_is_refused_by_name() -> None:
    """The tensors that stayed in float are in the message, and the exit code is that of a misfit."""
    wanted = target(float_fallback=False)
    conformance = check_conformance(model("int8", "float32", "int8", operator="SIN", version=1), wanted)
    assert not conformance.passed
    with pytest.raises(MisfitError, match="'weights'") as refusal:
        refuse_misfit(conformance, wanted)
    assert refusal.value.exit_code == 5
    assert refusal.value.code == "conformance"
    assert refusal.value.hint


def test_a_float_operator_on_a_cpu_is_a_note() -> None:
    """Where single operators may stay in float they are told, and the model passes."""
    found = model("int8", "int8", "int8")
    sine = Operator(1, 0, "SIN", 1, None, (3,), (3,))
    found = dataclasses.replace(
        found, operators=(*found.operators, sine), tensors=(*found.tensors, tensor(3, "float32"))
    )
    assert codes(found, target()) == [("note", "float-operator")]
    assert check_conformance(found, target()).passed


def test_a_float_border_is_refused_where_the_profile_wants_integers() -> None:
    """Full integer quantization with float inputs is the classic surprise; both ends are named."""
    said = codes(model("float32", "int8", "float32"), target())
    assert said.count(("error", "float-io")) == 2


def test_another_integer_border_is_refused() -> None:
    """uint8 steps are not int8 steps, and the cure is the profile's own key."""
    conformance = check_conformance(model("uint8", "int8", "int8"), target())
    assert [found.code for found in conformance.findings if found.severity == "error"] == ["io-type"]
    with pytest.raises(MisfitError) as refusal:
        refuse_misfit(conformance, target())
    assert 'io = "uint8"' in refusal.value.hint


@pytest.mark.parametrize("wanted", [target(), target(io="float32"), target(scheme=Scheme.DYNAMIC)])
def test_pixels_that_the_model_itself_takes_as_integers_stay_so(wanted: Target) -> None:
    """An input of uint8 without a scale is the source's own, as tokens are; a layer of the model rescales it."""
    found = model("uint8", "int8", border_type(wanted.quantization.scheme, wanted.quantization.io))
    plain = tensor(0, "uint8", "in", scales=0)
    found = dataclasses.replace(found, tensors=(plain, *found.tensors[1:]), inputs=(plain,))
    assert "io-type" not in [code for _, code in codes(found, wanted)]


def test_a_float_border_that_the_profile_wants_is_no_fault() -> None:
    """With io = "float32", QUANTIZE and DEQUANTIZE at the border are what was asked for, even on integer-only."""
    wanted = target(io="float32", float_fallback=False)
    tensors = (tensor(0, "float32"), tensor(1, "int8"), tensor(2, "int8", constant=True), tensor(3, "float32"))
    operators = (
        Operator(0, 0, "QUANTIZE", 1, None, (0,), (1,)),
        Operator(1, 0, "FULLY_CONNECTED", 4, None, (1, 2), (1,)),
        Operator(2, 0, "DEQUANTIZE", 2, None, (1,), (3,)),
    )
    found = TfliteModel(Path("m"), 100, operators, tensors, tensors[:1], tensors[3:], (), (0,))
    assert codes(found, wanted) == []
    inner = dataclasses.replace(found, outputs=(tensors[1],))
    assert ("error", "float-tensor") in codes(inner, wanted)


def test_token_numbers_keep_their_type() -> None:
    """An int32 input is no float input."""
    assert codes(model("int32", "int8", "int8", operator="GATHER", version=2), target()) == []


@pytest.mark.parametrize("scheme", [Scheme.INT8, Scheme.DYNAMIC, Scheme.FLOAT16, Scheme.INT16X8])
def test_a_quantization_that_changed_nothing_is_an_error(scheme: Scheme) -> None:
    """A converter that left everything in float32 does not get away with it."""
    said = codes(model("float32", "float32", "float32", version=1), target(scheme=scheme, io="float32"))
    assert ("error", "unchanged") in said


def test_per_channel_weights_on_a_per_tensor_target_are_refused() -> None:
    """An accelerator that wants one scale per tensor gets it or an error."""
    found = model("int8", "int8", "int8", scales=3)
    assert codes(found, target(granularity="per-tensor")) == [("error", "per-channel-weights")]
    assert codes(found, target()) == []


def test_an_operator_version_that_the_runtime_lacks_is_refused() -> None:
    """tflite-runtime 2.14 has no FULLY_CONNECTED 12; ai-edge-litert has, and goes to the device where it may."""
    dynamic = {"scheme": Scheme.DYNAMIC, "io": "float32"}
    found = model("float32", "int8", "float32", version=12, scales=3)
    assert codes(found, target(delegate="libmine.so", **dynamic)) == [("error", "operator-version")]
    (note,) = check_conformance(found, target(**dynamic)).findings
    assert (note.code, note.severity) == ("other-runtime", "note")
    assert "ai-edge-litert 2.3 goes to python 3.11, aarch64, glibc-2.36" in note.message
    assert "FULLY_CONNECTED is needed in version 12, and tflite-runtime 2.14 has up to 10" in note.message
    assert needs_dense_per_tensor(found, target(**dynamic))
    assert codes(found, target("ai-edge-litert", **dynamic)) == []
    assert not needs_dense_per_tensor(found, target("ai-edge-litert", **dynamic))


def test_a_version_that_lies_is_seen_through() -> None:
    """A writer that puts version 1 on per-channel dense weights would be computed wrongly without an error."""
    found = model("float32", "int8", "float32", version=1, scales=3)
    assert needed_version(found, found.operators[0]) == 12
    pinned = target(delegate="libmine.so", scheme=Scheme.DYNAMIC, io="float32")
    assert ("error", "operator-version") in codes(found, pinned)


def test_an_operator_of_somebodys_own_is_refused() -> None:
    """No runtime here has custom operators, but for the few that come with TFLite."""
    found = model("int8", "int8", "int8")
    own = dataclasses.replace(found.operators[0], name="CUSTOM", custom_name="MyOp")
    known = dataclasses.replace(own, custom_name="TFLite_Detection_PostProcess")
    assert codes(dataclasses.replace(found, operators=(own,)), target()) == [("error", "custom-operator")]
    assert codes(dataclasses.replace(found, operators=(known,)), target()) == []


def test_an_open_size_is_noted() -> None:
    """A batch that was left open costs speed, and the note says how to pin it."""
    found = model("int8", "int8", "int8")
    open_input = dataclasses.replace(found.inputs[0], shape_signature=(-1, 4))
    said = codes(dataclasses.replace(found, inputs=(open_input,)), target())
    assert said == [("note", "open-shape")]


@pytest.mark.parametrize(
    ("scheme", "io", "border"),
    [
        (Scheme.INT8, "uint8", "uint8"),
        (Scheme.INT16X8, "int8", "int16"),
        (Scheme.INT16X8, "float32", "float32"),
        (Scheme.FLOAT16, "int8", "float32"),
        (Scheme.DYNAMIC, "int8", "float32"),
    ],
)
def test_the_border_follows_scheme_and_profile(scheme: Scheme, io: str, border: str) -> None:
    """Only integer schemes can have integer borders, and 16x8 has 16 bits there."""
    assert border_type(scheme, io) == border
