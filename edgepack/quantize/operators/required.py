"""Which version of an operator its tensors and options ask for, whatever number the file carries.

Some writers put version 1 on everything. A runtime's version gate then lets in what its kernels compute wrongly, in
silence. The rules are those of TensorFlow's tensorflow/lite/tools/versioning/op_version.cc and op_signature.cc, and for
number types that are newer than that file, of LiteRT's tflite/converter/tools/versioning/op_version.cc.
"""

from __future__ import annotations

from edgepack.quantize.operators.conditions import (
    Condition,
    all_of,
    any_is,
    call_of,
    chosen,
    dilated,
    gives_many_scales,
    grouped,
    grows,
    is_sparse,
    many_scales,
    option_equals,
    per_channel,
    rank_over,
    runs,
    takes,
    through,
    unquantized,
    wide_broadcast,
)
from edgepack.tflite import Operator, TfliteModel

_INT32 = 2  # schema.fbs, TensorType
_FLOAT8 = ("float8_e4m3fn", "float8_e5m2")
_Rules = tuple[tuple[int, Condition], ...]


def needed_version(model: TfliteModel, operator: Operator) -> int:
    """The version that a runtime has to have: what the file says, or more where the operator's tensors ask for more."""
    return max(operator.version, derived_version(model, operator))


def derived_version(model: TfliteModel, operator: Operator) -> int:
    """The version that tensors and options ask for; 1 for an operator without a rule, and for a custom one."""
    if operator.custom_name is not None:
        return 1
    call = call_of(model, operator)
    least = 2 if operator.name == "BROADCAST_TO" else 1  # its version 1 was withdrawn
    return next((version for version, holds in _RULES.get(operator.name, ()) if holds(call)), least)


_HYBRID = runs("float32", "int8")
# TensorFlow's rule is "any type", but TensorFlow 2.21 names the int64 that every older kernel expects.
_NARROW_BIAS = option_equals("quantized_bias_type", _INT32)
_FULL, _BASIC = (option_equals("kernel_type", kernel) for kernel in (0, 1))  # schema.fbs, LSTMKernelType
_ASYMMETRIC = chosen("asymmetric_quantize_inputs")
_INT8: _Rules = ((2, takes(0, "int8")),)
_INT16_INT8: _Rules = ((3, takes(0, "int16")), (2, takes(0, "int8")))
_FROM_TO: _Rules = ((3, through("int16")), (2, takes(0, "int8")))
_INTEGER: _Rules = ((2, takes(0, "int8", "int16")),)
_WIDE: _Rules = ((4, through("int16")), (3, wide_broadcast), (2, takes(0, "int8")))
_SPACE_BATCH: _Rules = ((4, takes(0, "int16")), (3, lambda call: call.rank() != 4), (2, takes(0, "int8")))
_PAD: _Rules = (
    (6, takes(0, *_FLOAT8)), (5, takes(0, "bool")), (4, rank_over(4)), (3, takes(0, "int16")), (2, takes(0, "int8")),
)  # fmt: skip
_RECURRENT: _Rules = tuple(
    (version, all_of(takes(1, "int8"), lambda call: call.gives() == "float32", *also))
    for version, also in ((3, (_ASYMMETRIC,)), (2, ()))
)
_ARG: _Rules = ((3, takes(0, "bool")), (2, takes(0, "int8")))

# The first condition that holds decides, in the order of op_version.cc.
_RULES: dict[str, _Rules] = {
    "CONV_2D": (
        (8, all_of(runs("int16", "int8"), _NARROW_BIAS)),
        (6, grouped),
        (3, runs("int8", "int8")),
        (7, runs("int8", "int4")),
        (5, all_of(_HYBRID, per_channel(1, 0))),
        (2, _HYBRID),
    ),
    "DEPTHWISE_CONV_2D": (
        (6, all_of(_HYBRID, per_channel(1, -1))),
        (4, _HYBRID),
        (3, runs("int8", "int8")),
        (7, runs("int8", "int4")),
        (2, dilated),
    ),
    "EMBEDDING_LOOKUP": (
        (4, lambda call: call.dtype(1) == "int4" or many_scales(1)(call)),
        (5, takes(1, "int2")),
    ),
    "FAKE_QUANT": ((2, chosen("narrow_range")),),
    "FULLY_CONNECTED": (
        (14, takes(1, "int2")),
        (13, runs("int16", "int4")),
        # One unit has one scale: TensorFlow calls that per channel too, but every kernel computes it.
        (12, all_of(_HYBRID, many_scales(1))),
        (11, all_of(runs("int16", "int8"), _NARROW_BIAS)),
        (8, is_sparse(1)),
        (7, runs("int16", "int16")),
        (6, lambda call: len(call.inputs) == 2),
        (5, chosen("keep_num_dims")),
        (4, runs("int8", "int8")),
        (10, runs("int8", "int4")),
        (9, all_of(_HYBRID, _ASYMMETRIC)),
        (3, _HYBRID),
        (2, chosen("weights_format")),
    ),
    "GATHER": (
        (8, takes(0, *_FLOAT8)), (7, takes(0, "int4")), (6, takes(1, "int16")), (5, chosen("batch_dims")),
        (4, takes(0, "int16")), (3, takes(0, "bool")), (2, takes(0, "int8")),
    ),
    "SVDF": ((3, takes(0, "int8")), (4, all_of(_HYBRID, _ASYMMETRIC)), (2, _HYBRID)),
    "SIGN": ((2, takes(0, "int32")),),
    "SIN": ((2, takes(0, "float16")),),
    "COS": ((2, takes(0, "float16")),),
    "MUL": (
        (8, takes(0, "float16")), (7, all_of(takes(0, "int16"), unquantized)), (7, takes(0, "uint32")),
        (6, takes(0, "complex64")), (5, takes(0, "int64")), (4, takes(0, "int16")), (3, grows),
        (2, takes(0, "int8")),
    ),
    "MAX_POOL_2D": _FROM_TO,
    "AVERAGE_POOL_2D": _FROM_TO,
    "TRANSPOSE": (
        (9, takes(0, "float16")), (8, rank_over(6)), (8, takes(0, "bfloat16")), (7, takes(0, "int4")),
        (6, rank_over(5)), (5, takes(0, "int16")), (4, rank_over(4)), (3, takes(0, "bool")), (2, takes(0, "int8")),
    ),
    "TRANSPOSE_CONV": (
        (4, chosen("fused_activation_function")), (3, lambda call: call.tensor(3) is not None), (2, takes(1, "int8")),
    ),
    "LSTM": (
        (5, all_of(_FULL, runs("int16", "int8", at=2))),
        (4, all_of(_FULL, runs("float32", "int8", at=2), _ASYMMETRIC)),
        (3, all_of(_FULL, runs("float32", "int8", at=2))),
        (2, _BASIC),
    ),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": (
        (5, runs("int16", "int8", at=2)), (4, chosen("diagonal_recurrent_tensors")),
        (3, all_of(runs("float32", "int8", at=2), _ASYMMETRIC)), (2, runs("float32", "int8", at=2)),
    ),
    "BIDIRECTIONAL_SEQUENCE_LSTM": _RECURRENT,
    "RNN": _RECURRENT,
    "UNIDIRECTIONAL_SEQUENCE_RNN": _RECURRENT,
    "BIDIRECTIONAL_SEQUENCE_RNN": _RECURRENT,
    "SPLIT": (
        (5, takes(1, *_FLOAT8)), (4, takes(1, "int16")), (3, takes(1, "int32")), (2, takes(1, "int8")),
    ),
    "SPLIT_V": ((3, takes(0, *_FLOAT8)), *_INT8),
    "SPARSE_TO_DENSE": ((3, takes(2, "int8", "uint8")), (2, takes(2, "int64"))),
    "SLICE": (
        (8, takes(0, "float16")), (7, takes(0, "int4")), (6, takes(0, "uint32")), (5, rank_over(4)),
        (4, takes(0, "int16")), (3, takes(0, "string")), (2, takes(0, "int8")),
    ),
    "UNPACK": (
        (6, takes(0, *_FLOAT8)), (2, takes(0, "int8", "uint8")), (3, takes(0, "bool")), (4, through("int16")),
        (5, takes(0, "float16", "bfloat16")),
    ),
    "DEQUANTIZE": (
        (9, takes(0, *_FLOAT8)), (8, takes(0, "uint4")), (7, takes(0, "int2")), (6, takes(0, "int4")),
        (3, takes(0, "int16", "float16")), (5, all_of(takes(0, "int8"), many_scales(0))),
        (2, takes(0, "int8")),
    ),
    "QUANTIZE": (
        (5, any_is("uint4")), (4, any_is("int4")), (3, gives_many_scales),
        (2, lambda call: call.gives() == "int16"),
    ),
    "FLOOR_DIV": ((3, takes(0, "int16", "int8")), (2, takes(0, "float32"))),
    "FLOOR_MOD": _INTEGER,
    "L2_NORMALIZATION": ((2, lambda call: call.gives() == "int8"),),
    "ABS": (
        (5, takes(0, "int32")), (4, all_of(takes(0, "int16"), unquantized)), (3, takes(0, "int16")),
        (2, takes(0, "int8", "uint8")),
    ),
    "RELU": ((3, takes(0, "int16")), (2, takes(0, "int8", "uint8"))),
    "STRIDED_SLICE": (
        (8, chosen("offset")), (7, takes(0, "uint32")), (6, chosen("ellipsis_mask", "new_axis_mask")),
        (5, takes(0, "string")), (4, rank_over(4)), (3, takes(0, "bool")), (2, takes(0, "int8")),
    ),
    "REVERSE_V2": ((4, takes(0, *_FLOAT8)), (3, takes(0, "int8")), (2, takes(0, "bool"))),
    "RESIZE_BILINEAR": ((4, takes(0, "int16")), (3, chosen("half_pixel_centers")), (2, takes(0, "int8"))),
    "RESIZE_NEAREST_NEIGHBOR": (
        (4, takes(0, "int16")), (3, chosen("half_pixel_centers", "align_corners")), (2, takes(0, "int8")),
    ),
    "MAXIMUM": _WIDE,
    "MINIMUM": _WIDE,
    "PACK": (
        (5, takes(0, *_FLOAT8)), (2, takes(0, "int8")), (3, through("int16")), (4, takes(0, "uint32")),
    ),
    "TILE": ((3, takes(0, "int8")), (2, takes(0, "string"))),
    "SQUEEZE": ((2, takes(0, "string")),),
    "SPACE_TO_BATCH_ND": _SPACE_BATCH,
    "BATCH_TO_SPACE_ND": _SPACE_BATCH,
    "ADD": (
        (6, takes(0, "float16")), (5, all_of(takes(0, "int16"), unquantized)), (4, takes(0, "int64")),
        (3, all_of(through("int16"), lambda call: not call.option("pot_scale_int16"))), (2, takes(0, "int8")),
    ),
    "SUB": (
        (5, all_of(through("int16"), lambda call: not call.option("pot_scale_int16"))), (4, takes(0, "int64")),
        (3, wide_broadcast), (2, takes(0, "int8")),
    ),
    "GATHER_ND": (
        (6, takes(0, *_FLOAT8)), (5, takes(0, "bool")), (4, takes(1, "int16")), (3, takes(0, "int16")),
        (2, takes(0, "string")),
    ),
    "DIV": ((2, wide_broadcast),),
    "TANH": _FROM_TO,
    "LOGISTIC": _FROM_TO,
    "FILL": (
        (5, takes(1, *_FLOAT8)), (4, takes(1, "float16")), (3, takes(1, "int8", "int16")),
        (2, takes(1, "bool", "string")),
    ),
    # LiteRT calls int16 version 5; TensorFlow and tflite-runtime 2.14 have it as 4.
    "EQUAL": ((4, takes(0, "int16")), (3, takes(0, "string")), (2, takes(0, "int8"))),
    "NOT_EQUAL": ((3, takes(0, "string")), (2, takes(0, "int8"))),
    "LEAKY_RELU": ((2, takes(0, "int16")),),
    "RANGE": ((2, takes(0, "int64")),),
    "BATCH_MATMUL": (
        (3, takes(0, "int16")), (2, takes(0, "int8")), (4, all_of(_HYBRID, _ASYMMETRIC)),
    ),
    "PAD": _PAD,
    "PADV2": _PAD,
    "CONCATENATION": (
        (7, takes(0, *_FLOAT8)), (6, takes(0, "float16")), (5, takes(0, "int4")), (4, takes(0, "uint32")),
        *_INT16_INT8,
    ),
    "SOFTMAX": ((4, takes(0, "float16")), *_INT16_INT8),
    "MEAN": _INT16_INT8,
    "MIRROR_PAD": _INT16_INT8,
    "REDUCE_MAX": _INT16_INT8,
    "REDUCE_MIN": _INT16_INT8,
    "RELU6": _INT16_INT8,
    "RSQRT": _INT16_INT8,
    "ARG_MAX": _ARG,
    "ARG_MIN": _ARG,
    "SELECT": (
        (4, takes(0, "uint32")), (3, lambda call: 5 in (call.rank(0), call.rank(1), call.rank(2))),
        (2, takes(0, "int8")),
    ),
    "LESS": _INT16_INT8,
    "GREATER_EQUAL": _INT16_INT8,
    "SELECT_V2": ((2, takes(0, "uint32")),),
    "SPACE_TO_DEPTH": _INT8,
    "SUM": _INT8,
    "LOG_SOFTMAX": _INT8,
    "GREATER": _INT8,
    "LESS_EQUAL": _INT8,
    "SQUARED_DIFFERENCE": _INT8,
    "DEPTH_TO_SPACE": _INT8,
    "TOPK_V2": (
        (3, lambda call: "int16" in (call.dtype(0), call.dtype(1), call.gives(1))), (2, takes(0, "int8")),
    ),
    "EXP": _INTEGER,
    "LOG": _INTEGER,
    "SQRT": _INTEGER,
    "REDUCE_PROD": _INTEGER,
    "DYNAMIC_UPDATE_SLICE": (
        (6, takes(0, "bfloat16")), (5, takes(0, "int4")), (4, takes(0, "int16")), (3, takes(0, "float16")),
        (2, takes(2, "int64")),
    ),
    "BROADCAST_TO": ((4, takes(0, *_FLOAT8)), (3, takes(0, "int8", "int16"))),
    "CAST": (
        (9, any_is(*_FLOAT8)), (8, any_is("int2", "uint4")), (7, any_is("bfloat16")),
        (6, lambda call: call.dtype(0) == "int4" and call.gives() == "float32"), (5, any_is("float64", "float16")),
        (4, any_is("uint16")), (3, any_is("int8")), (2, any_is("uint32")),
    ),
    "WHERE": ((2, lambda call: call.dtype(0) != "bool"),),
    "GELU": ((3, takes(0, "float16")), (2, takes(0, "int8", "uint8"))),
}  # fmt: skip
