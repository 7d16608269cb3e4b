"""What a runtime's version gate lets in and its kernels do not compute: wrong numbers, or a failure when it runs.

No rule of op_version.cc tells these forms apart. Each was tried on the wheels from PyPI for this project (November
2026, with models of TensorFlow 2.21 and litert-quantizer 0.11); tests/test_quantize_conformance_runtimes.py tries them
again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edgepack.quantize.operators.conditions import Call, Condition, all_of, call_of, many_scales, runs, takes
from edgepack.quantize.operators.versions import RUNTIMES, RuntimeTable
from edgepack.tflite import Operator, TfliteModel


@dataclass(frozen=True, slots=True)
class Trap:
    """A form, ``what``, of one of the ``operators`` that the runtimes in ``titles`` do not compute."""

    operators: tuple[str, ...]
    holds: Condition
    what: str
    titles: tuple[str, ...]


def _blockwise(call: Call) -> bool:
    return any(tensor is not None and tensor.blockwise for tensor in call.inputs)


def _hybrid(weights: str) -> Condition:
    """Float numbers meet these weights."""
    return lambda call: call.gives() == "float32" and call.dtype(1) == weights


def _widens(call: Call) -> bool:
    return call.dtype(0) in ("int8", "uint8") and call.gives() == "int16"


def _one_scale(call: Call) -> bool:
    weights = call.tensor(1)
    return _hybrid("int8")(call) and weights is not None and len(weights.scales) == 1 < weights.shape[-1]


_ALL = tuple(table.title for table in RUNTIMES)
_TFLITE = tuple(table.title for table in RUNTIMES if table.package == "tflite-runtime")
_LITERT_2_1 = "ai-edge-litert 2.1"
_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")

TRAPS = (
    # It takes the scales for absent: all outputs are zero.
    Trap((*_CONVOLUTIONS, "FULLY_CONNECTED"), _blockwise, "weights with a scale per block", _TFLITE),
    # The hybrid kernel applies one scale to all columns.
    Trap(
        ("BATCH_MATMUL",),
        all_of(runs("float32", "int8"), many_scales(1)),
        "float numbers with int8 weights that have a scale per channel",
        _TFLITE,
    ),
    # Every output is the largest number.
    Trap(("BATCH_MATMUL",), all_of(takes(0, "int8"), takes(1, "int8")), "int8 numbers", (_LITERT_2_1,)),
    # NaN in convolutions; zeros in dense layers.
    Trap(_CONVOLUTIONS, _hybrid("int4"), "float numbers with int4 weights", _TFLITE),
    Trap(("FULLY_CONNECTED",), _hybrid("int4"), "float numbers with int4 weights", ("tflite-runtime 2.13",)),
    Trap(_CONVOLUTIONS, _hybrid("int2"), "float numbers with int2 weights", _ALL),
    # It adds without regard to scales.
    Trap(("SUM",), takes(0, "int16"), "int16 numbers", _TFLITE),
    # These fail when tensors are allocated (inputs: the result's shape, weights, data), or when the model runs.
    Trap(
        ("TRANSPOSE_CONV",),
        lambda call: call.dtype(1) == "int8" and call.dtype(2) == "float32",
        "float numbers with int8 weights",
        _TFLITE,
    ),
    Trap(("DIV", "NEG"), takes(0, "int8", "int16"), "int8 or int16 numbers", _TFLITE),
    Trap(("DIV",), takes(0, "int8"), "int8 numbers", (_LITERT_2_1,)),
    Trap(("TILE",), takes(0, "int16"), "int16 numbers", (*_TFLITE, _LITERT_2_1)),
    Trap(("QUANTIZE",), _widens, "int8 or uint8 numbers that become int16", _TFLITE),
    # It reads a scale for each channel, also where there is one: NaN, or the same answer to everything.
    Trap(("DEPTHWISE_CONV_2D",), _one_scale, "float numbers with int8 weights that have one scale", _ALL),
)


def traps_of(model: TfliteModel, operator: Operator, runtime: RuntimeTable) -> Iterator[Trap]:
    """The forms in which the operator stands there and that the runtime does not compute."""
    call = call_of(model, operator)
    for trap in TRAPS:
        if operator.name in trap.operators and runtime.title in trap.titles and trap.holds(call):
            yield trap
