from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.errors import InputError
from edgepack.quantize.conformance import check_conformance, check_fit, int8_weight_share
from edgepack.quantize.delegation import delegated_share
from edgepack.quantize.operators import RUNTIMES
from edgepack.quantize.operators.accelerators import ACCELERATORS
from edgepack.target import Scheme, Target, list_targets, load_target
from edgepack.target.values import OPERATOR_LISTS, OPERATOR_SCHEMES
from edgepack.tflite import Operator, Tensor, TfliteModel, read_model

CORAL = load_target("coral-usb")


def tensor(index: int, dtype: str = "int8", shape: tuple[int, ...] = (1, 4, 4, 8), **more: Any) -> Tensor:
    """A tensor, int8 and flowing if nothing else is said."""
    fields: dict[str, Any] = {
        "index": index, "subgraph": 0, "name": f"t{index}", "shape": shape, "shape_signature": shape, "dtype": dtype,
        "scales": (0.1,), "zero_points": (0,), "quantized_dimension": 0, "constant": False, "bytes": 0,
    }  # fmt: skip
    return Tensor(**(fields | more))


def chain(*names: str, dtype: str = "int8", **options: float) -> TfliteModel:
    """One operator after the other, each from one tensor to the next."""
    tensors = tuple(tensor(index, dtype) for index in range(len(names) + 1))
    operators = tuple(
        Operator(place, 0, name, 1, None, (place,), (place + 1,), options) for place, name in enumerate(names)
    )
    return TfliteModel(Path("m"), 100, operators, tensors, tensors[:1], tensors[-1:], (), (0,))


def on(operators: str, **changes: Any) -> Target:
    """A target with that operator list and a delegate."""
    base = load_target("imx8m-plus-npu")
    return dataclasses.replace(
        base, quantization=dataclasses.replace(base.quantization, operators=operators), **changes
    )


def said(model: TfliteModel, target: Target) -> dict[str, str]:
    """Severity by code."""
    return {found.code: found.severity for found in check_fit(model, target).findings}


def test_each_list_that_a_profile_may_name_is_there() -> None:
    """A name that profiles accept has a table, and no table is out of their reach."""
    assert {"any", *ACCELERATORS} == set(OPERATOR_LISTS)
    assert {target.quantization.operators for target in list_targets()} == set(OPERATOR_LISTS)


@pytest.mark.parametrize("name", sorted(ACCELERATORS))
@pytest.mark.parametrize("scheme", list(Scheme))
def test_the_schemes_of_a_list_are_those_that_its_operators_take(name: str, scheme: Scheme) -> None:
    """A dense layer with a scheme's types is taken where the profile may ask for that scheme, and nowhere else."""
    flowing = {Scheme.INT8: "int8", Scheme.INT16X8: "int16"}.get(scheme, "float32")
    weights = {Scheme.FLOAT32: "float32", Scheme.FLOAT16: "float16"}.get(scheme, "int8")
    bias = {Scheme.INT8: "int32", Scheme.INT16X8: "int64"}.get(scheme, "float32")
    tensors = (
        tensor(0, flowing, (1, 8)),
        tensor(1, weights, (4, 8), constant=True),
        tensor(2, bias, (4,), constant=True),
        tensor(3, flowing, (1, 4)),
    )
    only = Operator(0, 0, "FULLY_CONNECTED", 4, None, (0, 1, 2), (3,), {})
    model = TfliteModel(Path("m"), 100, (only,), tensors, tensors[:1], tensors[3:], (), (0,))
    assert (delegated_share(model, on(name)) == 1.0) == (scheme in OPERATOR_SCHEMES[name])


@pytest.mark.parametrize("name", sorted(ACCELERATORS))
def test_each_operator_of_a_list_exists(name: str) -> None:
    """A mistyped operator would never be found in a model."""
    known = set().union(*(table.operators for table in RUNTIMES))
    assert set(ACCELERATORS[name].operators) <= known


def test_an_unknown_list_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    """``edge-tpu`` is told that it is ``edgetpu``."""
    profile = tmp_path / "mine.toml"
    profile.write_text('extends = "coral-usb"\n[quantization]\noperators = "edge-tpu"\n')
    with pytest.raises(InputError, match="did you mean edgetpu"):
        load_target(profile)


def test_vela_itself_lists_what_the_table_has(tmp_path: Path) -> None:
    """The report of the installed Vela names the same operators for the Ethos-U65, no more and no fewer."""
    vela = Path(sys.executable).parent / "vela"
    subprocess.run([vela, "--supported-ops-report"], cwd=tmp_path, check=True, capture_output=True)
    report = (tmp_path / "SUPPORTED_OPS.md").read_text().split("## Ethos-U55 and Ethos-U65 TFLite Summary Table")[1]
    rows = [line for line in report.split("\n## ")[0].splitlines() if line.startswith("| ") and "constraints" in line]
    assert {row.split("|")[1].strip() for row in rows} == set(ACCELERATORS["ethos-u65"].operators)


@pytest.mark.timeout(900)
def test_what_the_list_says_of_ethos_is_what_vela_does(operator_models: Path, tmp_path: Path) -> None:
    """For real int8 models the compiler leaves an operator to the CPU just where the list says so."""
    vela, target, wrong = Path(sys.executable).parent / "vela", load_target("ethos-u65"), []
    paths = sorted(path for path in operator_models.glob("*-int8.tflite"))
    for path in paths:
        share = delegated_share(read_model(path), target)
        command = [vela, "--accelerator-config", "ethos-u65-256", "--output-dir", tmp_path, path]
        run = subprocess.run(command, check=False, capture_output=True, text=True)
        if run.returncode:
            continue
        compiled = read_model(tmp_path / f"{path.stem}_vela.tflite")
        left = [one.name for one in compiled.operators if one.custom_name != "ethos-u"]
        if (share == 1.0) != (not left):
            wrong.append((path.name, share, left))
    assert len(paths) > 15
    assert wrong == []


def test_the_edge_tpu_stops_at_the_first_operator_that_it_does_not_take() -> None:
    """What follows runs on the CPU too, though the Edge TPU could take it; another accelerator goes on after it."""
    model = chain("RELU", "RELU", "HARD_SWISH", "RELU")
    assert delegated_share(model, CORAL) == 0.5
    assert delegated_share(model, on("vx")) == 1.0
    found = next(one for one in check_fit(model, CORAL).findings if one.code == "not-accelerated")
    assert (found.severity, found.subject) == ("note", "HARD_SWISH")
    assert "2 of 4 operators" in found.message
    assert "1 that these cut off" in found.message


def test_quantizing_a_float_input_does_not_stop_the_edge_tpu() -> None:
    """A float border's QUANTIZE stays on the CPU, and the rest goes to the Edge TPU."""
    model = chain("QUANTIZE", "RELU", "RELU", "DEQUANTIZE")
    tensors = tuple(
        dataclasses.replace(one, dtype="float32", scales=()) if one.index in (0, 4) else one for one in model.tensors
    )
    bordered = dataclasses.replace(model, tensors=tensors, inputs=tensors[:1], outputs=tensors[-1:])
    assert delegated_share(bordered, CORAL) == 0.5
    assert "nothing-delegated" in said(chain("HARD_SWISH", "RELU"), CORAL)


def test_the_gpu_delegate_takes_the_largest_part_only() -> None:
    """By default it takes one part; operators of smaller ones stay on the CPU."""
    target = load_target("generic-gpu")
    model = chain("RELU", "TOPK_V2", "RELU", "TANH", "RELU", dtype="float32")
    assert delegated_share(model, target) == 0.6


def test_float16_weights_are_nothing_that_the_gpu_delegate_leaves(operator_models: Path) -> None:
    """A CPU unpacks them by operators of their own; on the GPU these are none, and no reason against a layer."""
    model = read_model(operator_models / "convolution-float16.tflite")
    assert "DEQUANTIZE" in {operator.name for operator in model.operators}
    assert delegated_share(model, load_target("generic-gpu")) == 1.0


def test_another_border_than_the_profiles_is_a_note() -> None:
    """A float border runs on the CPU before an integer accelerator: bundling tells it, and refuses nothing."""
    model = chain("QUANTIZE", "RELU", "DEQUANTIZE")
    tensors = tuple(
        dataclasses.replace(one, dtype="float32", scales=()) if one.index in (0, 3) else one for one in model.tensors
    )
    bordered = dataclasses.replace(model, tensors=tensors, inputs=tensors[:1], outputs=tensors[-1:])
    assert said(bordered, on("vx"))["float-io"] == "note"


def test_a_required_accelerator_that_would_find_nothing_is_an_error() -> None:
    """The model is refused before a board is asked; where the delegate is optional it is a note."""
    model = chain("TOPK_V2")
    assert said(model, CORAL)["nothing-delegated"] == "error"
    (found,) = check_fit(model, CORAL).findings
    assert found.message.startswith("The Edge TPU takes none of the model's 1 operators")
    opened = dataclasses.replace(model.inputs[0], shape_signature=(-1, *model.inputs[0].shape[1:]))
    model = dataclasses.replace(model, inputs=(opened,), tensors=(opened, *model.tensors[1:]))
    assert said(model, CORAL) == {"open-shape": "error", "nothing-delegated": "error"}
    model = chain("TOPK_V2")
    optional = dataclasses.replace(CORAL, delegate=dataclasses.replace(CORAL.delegate, required=False))
    assert said(model, optional) == {"not-accelerated": "note"}


@pytest.mark.parametrize(
    ("name", "list_name", "options", "asked"),
    [
        ("AVERAGE_POOL_2D", "edgetpu", {"fused_activation_function": 1}, "no fused activation"),
        ("CONV_2D", "edgetpu", {"dilation_w_factor": 2, "dilation_h_factor": 1}, "same dilation"),
        ("AVERAGE_POOL_2D", "ethos-u65", {"filter_width": 9, "filter_height": 9, "padding": 0}, "8x8"),
        ("MAX_POOL_2D", "ethos-u65", {"stride_w": 4, "stride_h": 4, "padding": 0}, "strides up to 3"),
        ("SPACE_TO_DEPTH", "gpu-delegate", {"block_size": 1}, "a block above 1"),
        ("SOFTMAX", "edgetpu", {}, "one-dimensional"),
        ("ARG_MAX", "gpu-delegate", {}, "not on its list"),
    ],
)
def test_limits_of_an_operator_are_told(name: str, list_name: str, options: dict[str, float], asked: str) -> None:
    """An operator that is on the list and outside its limits is told with the limit."""
    findings = check_fit(chain(name, **options), on(list_name)).findings
    assert any(asked in found.message for found in findings), findings


def test_float_numbers_do_not_go_to_an_integer_accelerator() -> None:
    """The types count as well as the operator's name."""
    assert delegated_share(chain("RELU", dtype="float32"), CORAL) == 0.0
    assert delegated_share(chain("RELU", dtype="int16"), CORAL) == 0.0
    assert delegated_share(chain("RELU", dtype="int16"), load_target("ethos-u65")) == 1.0


def test_an_open_size_is_an_error_where_an_accelerator_needs_fixed_ones() -> None:
    """On a CPU it is a note, and so on a GPU profile without a delegate; an open batch is one to the Edge TPU only.

    The cure is the option that pins just what is open.
    """

    def cure_of(model: TfliteModel) -> str:
        return next(found.cure or "" for found in check_fit(model, CORAL).findings if found.code == "open-shape")

    model = chain("RELU")
    opened = dataclasses.replace(model.inputs[0], shape_signature=(-1, 4, 4, 8))
    model = dataclasses.replace(model, inputs=(opened,), tensors=(opened, *model.tensors[1:]))
    assert said(model, CORAL) == {"open-shape": "error"}  # and not also that no operator is taken, which it causes
    assert said(model, load_target("generic-cpu"))["open-shape"] == "note"
    assert said(model, load_target("generic-gpu"))["open-shape"] == "note"
    assert said(model, load_target("android-gpu"))["open-shape"] == "note"
    assert cure_of(model) == "Pin it where the model is converted: --batch 1."
    wide = dataclasses.replace(opened, shape_signature=(1, -1, 4, 8))
    model = dataclasses.replace(model, inputs=(wide,), tensors=(wide, *model.tensors[1:]))
    assert "=1,?,4,8, a number for each ?." in cure_of(model)
    assert said(model, load_target("generic-gpu"))["open-shape"] == "note"
    assert said(model, load_target("android-gpu"))["open-shape"] == "error"
    assert said(model, load_target("ethos-u65"))["open-shape"] == "error"


def test_a_compiled_model_passes_and_claims_no_share() -> None:
    """What the compiler took hides in its custom operator, which the accelerator's own target knows and no other."""
    model = chain("CUSTOM")
    compiled = dataclasses.replace(
        model, operators=(dataclasses.replace(model.operators[0], custom_name="edgetpu-custom-op"),)
    )
    assert check_fit(compiled, CORAL).passed
    assert check_fit(compiled, CORAL).delegated_share is None
    assert said(compiled, load_target("generic-cpu")) == {"custom-operator": "error"}


def test_loops_stay_on_the_cpu() -> None:
    """Operators that a loop calls count, and are not delegated."""
    model = chain("RELU", "WHILE")
    body = dataclasses.replace(model.operators[0], subgraph=1)
    inner = tuple(dataclasses.replace(one, subgraph=1) for one in model.tensors)
    looped = dataclasses.replace(
        model, operators=(*model.operators, body), tensors=(*model.tensors, *inner), subgraph_starts=(0, 3)
    )
    assert delegated_share(looped, CORAL) == pytest.approx(1 / 3, abs=1e-4)


def test_the_share_of_weights_that_are_int8() -> None:
    """Bytes count, not tensors; biases of integer layers and shapes are no weights."""
    tensors = (
        tensor(0, "int8", constant=True, bytes=300),
        tensor(1, "float32", constant=True, bytes=100),
        tensor(2, "int32", constant=True, bytes=5000),
        tensor(3),
    )
    model = TfliteModel(Path("m"), 100, (), tensors, tensors[3:], tensors[3:], (), (0,))
    assert int8_weight_share(model) == 0.75
    assert int8_weight_share(dataclasses.replace(model, tensors=tensors[2:])) is None
    assert check_conformance(model, load_target("generic-cpu")).int8_weight_share == 0.75


@given(names=st.lists(st.sampled_from(["RELU", "TANH", "TOPK_V2", "HARD_SWISH", "CONV_2D", "WHERE"]), max_size=12))
def test_a_share_is_a_share_and_no_list_takes_more_by_being_cut(names: list[str]) -> None:
    """Between 0 and 1 for any model; an accelerator that takes one part never takes more than by all its parts."""
    model = chain(*names)
    for accelerator in ACCELERATORS.values():
        share = delegated_share(model, on(accelerator.name))
        if not names:
            assert share is None
            continue
        taken = [name in accelerator.operators for name in names]
        assert share is not None
        assert 0.0 <= share <= round(sum(taken) / len(names), 4)
