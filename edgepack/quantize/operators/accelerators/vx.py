"""What VeriSilicon's VX delegate takes (NXP i.MX 8M Plus, STM32MP25).

Source: https://github.com/VeriSilicon/tflite-vx-delegate, op_map.cc (January 2025): the registered operators, the
limits of OpMapperBase::IsSupported, and those of single mappers that a file shows. Vendors' images carry builds of
several ages.
"""

from __future__ import annotations

from edgepack.quantize.operators.accelerators.limits import Limits, OperatorList, constant, data, one_scale
from edgepack.quantize.operators.conditions import Call

_MOST_DIMENSIONS, _LONGEST = 6, 65535


def _no_wide_inputs(call: Call) -> bool:
    types = [tensor.dtype for tensor in call.inputs if tensor is not None]
    return "string" not in types and ("int64" not in types or call.operator.name == "BROADCAST_TO")


def _outputs(call: Call) -> bool:
    return not any(tensor is not None and tensor.dtype in ("int16", "int64") for tensor in call.outputs)


def _sizes(call: Call) -> bool:
    return all(
        len(tensor.shape) <= _MOST_DIMENSIONS and 0 not in tensor.shape and all(n <= _LONGEST for n in tensor.shape[1:])
        for tensor in data(call)
    )


def _same_kind(call: Call) -> bool:
    """Matrices of one kind, and no int32 result (BatchMatmul::IsOpSupported)."""
    return call.gives() != "int32" and {call.dtype(0), call.dtype(1)} != {"float32", "int8"}


_ANY = (
    "ABS", "ADD", "ADD_N", "ARG_MAX", "ARG_MIN", "AVERAGE_POOL_2D", "BATCH_TO_SPACE_ND", "BIDIRECTIONAL_SEQUENCE_LSTM",
    "BIDIRECTIONAL_SEQUENCE_RNN", "BROADCAST_TO", "CAST", "CONCATENATION", "CONV_2D", "CONV_3D", "DEPTHWISE_CONV_2D",
    "DEPTH_TO_SPACE", "DIV", "ELU", "EMBEDDING_LOOKUP", "EQUAL", "EXP", "EXPAND_DIMS", "FLOOR", "FLOOR_DIV",
    "FULLY_CONNECTED", "GATHER", "GATHER_ND", "GELU", "GREATER", "GREATER_EQUAL", "HARD_SWISH", "HASHTABLE_LOOKUP",
    "L2_NORMALIZATION", "LEAKY_RELU", "LESS", "LESS_EQUAL", "LOCAL_RESPONSE_NORMALIZATION", "LOG", "LOGICAL_AND",
    "LOGICAL_NOT", "LOGICAL_OR", "LOGISTIC", "MAXIMUM", "MAX_POOL_2D", "MEAN", "MINIMUM", "MIRROR_PAD", "MUL", "NEG",
    "NOT_EQUAL", "PACK", "PAD", "POW", "PRELU", "REDUCE_ANY", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD", "RELU",
    "RELU6", "RELU_N1_TO_1", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "REVERSE_V2", "RNN", "RSQRT", "SCATTER_ND",
    "SELECT", "SELECT_V2", "SHAPE", "SIN", "SLICE", "SOFTMAX", "SPACE_TO_BATCH_ND", "SPACE_TO_DEPTH", "SPLIT",
    "SPLIT_V", "SQRT", "SQUARE", "SQUARED_DIFFERENCE", "SQUEEZE", "SUB", "SUM", "TANH", "TRANSPOSE",
    "UNIDIRECTIONAL_SEQUENCE_LSTM", "UNIDIRECTIONAL_SEQUENCE_RNN", "UNPACK",
)  # fmt: skip
_LIMITED: dict[str, Limits] = {
    "BATCH_MATMUL": (("matrices of one type", _same_kind),),
    "DEQUANTIZE": (("one scale per tensor", one_scale),),
    "ONE_HOT": (("a constant depth", constant(1)),),
    "QUANTIZE": (("one scale per tensor", one_scale),),
    "RESHAPE": (("a constant shape", constant(1)),),
    "STRIDED_SLICE": (("constant begin, end and strides", constant(1, 2, 3)),),
    "TRANSPOSE_CONV": (("constant weights", constant(1)),),
}

VX = OperatorList(
    name="vx",
    title="the VX delegate",
    operators=dict.fromkeys(_ANY, ()) | _LIMITED,
    common=(
        ("no int64 and no text going in", _no_wide_inputs),
        ("no int16 and no int64 coming out", _outputs),
        (f"at most {_MOST_DIMENSIONS} dimensions, none empty, none above {_LONGEST}", _sizes),
    ),
    compiled=frozenset({"vsi-npu"}),
)
