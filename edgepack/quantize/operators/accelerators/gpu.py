"""What the TFLite GPU delegate takes.

Source: CheckGpuDelegateCompatibility in TensorFlow's tensorflow/lite/tools/versioning/gpu_compatibility.cc, which the
delegate itself asks; https://ai.google.dev/edge/litert/performance/gpu for types and fixed sizes. By default it takes
one part of a model only, the largest (TfLiteGpuDelegateOptionsV2, max_delegated_partitions = 1). 8-bit models run with
their numbers turned into floats.
"""

from __future__ import annotations

from edgepack.quantize.operators.accelerators.limits import (
    Limits,
    OperatorList,
    constant,
    data,
    option_is,
    rank_within,
)
from edgepack.quantize.operators.conditions import Call

_FLOWING = ("float32", "float16", "int8", "uint8", "int32", "bool")


def _known_types(call: Call) -> bool:
    return all(tensor.dtype in _FLOWING for tensor in data(call))


def _flowing(most: int, least: int = 0) -> Limits:
    """At most so many inputs that are no constants."""

    def holds(call: Call) -> bool:
        count = sum(tensor is not None and not tensor.constant for tensor in call.inputs)
        return least <= count <= most

    return ((f"at most {most} inputs that are no constants", holds),)


def _paddings(call: Call) -> bool:
    tensor = call.tensor(1)
    return tensor is not None and tensor.shape in ((3, 2), (4, 2))


def _cast(call: Call) -> bool:
    before, after = call.dtype(0), call.gives()
    floats, whole = ("float16", "float32"), ("float32", "int32")
    return (
        (before == "bool" and after in floats)
        or (before in floats and after == "bool")
        or (before in whole and after in whole)
    )


def _gather(call: Call) -> bool:
    return call.dtype(0) != "int32" and call.dtype(1) == "int32" and call.rank(1) == 1


def _depth_multiplier(call: Call) -> bool:
    tensor = call.tensor(0)
    return call.option("depth_multiplier") in (0, 1) or (tensor is not None and tensor.shape[-1:] == (1,))


def _block(call: Call) -> bool:
    return call.option("block_size") > 1


_AXES: Limits = (("constant axes", constant(1)),)
_FREE = (
    "ADD_N", "BATCH_MATMUL", "CONCATENATION", "DENSIFY", "DYNAMIC_UPDATE_SLICE", "EMBEDDING_LOOKUP", "LEAKY_RELU",
    "LSTM", "PACK", "PRELU", "RELU", "RELU6", "RELU_N1_TO_1", "SELECT", "SELECT_V2", "SPLIT", "SPLIT_V",
)  # fmt: skip
_ONE_INPUT = (
    "ABS", "CEIL", "COS", "ELU", "EXP", "FLOOR", "GELU", "HARD_SWISH", "LOG", "LOGISTIC", "NEG", "QUANTIZE", "RESHAPE",
    "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "RSQRT", "SIGN", "SIN", "SQRT", "SQUARE", "TANH", "TILE", "TRANSPOSE",
)  # fmt: skip
_TWO_INPUTS = (
    "ADD", "ATAN2", "CONV_2D", "DIV", "EQUAL", "FLOOR_DIV", "FLOOR_MOD", "GREATER", "GREATER_EQUAL", "LESS",
    "LESS_EQUAL", "LOGICAL_AND", "MAXIMUM", "MINIMUM", "MUL", "NOT_EQUAL", "POW", "SQUARED_DIFFERENCE", "SUB",
    "TRANSPOSE_CONV",
)  # fmt: skip
_LIMITED: dict[str, Limits] = {
    "AVERAGE_POOL_2D": _flowing(1),
    "CAST": (("float, int32 or bool", _cast),),
    "CUMSUM": _AXES,
    "DEPTHWISE_CONV_2D": (("a depth multiplier of 1, or one channel", _depth_multiplier),),
    "DEPTH_TO_SPACE": (("a block above 1", _block),),
    "DEQUANTIZE": (("no int16", lambda call: call.dtype(0) != "int16"),),
    "FULLY_CONNECTED": (
        ("the default weight format", option_is("weights_format", 0)),
        *_flowing(2),
    ),
    "GATHER": (("one-dimensional int32 positions, and no int32 to take from", _gather),),
    "MAX_POOL_2D": _flowing(1),
    "MEAN": _AXES,
    "MIRROR_PAD": (("reflection", option_is("mode", 0)), ("paddings of 3 or 4 dimensions", _paddings)),
    "ONE_HOT": (("int32 positions", lambda call: call.dtype(0) == "int32"),),
    "PAD": (("paddings of 3 or 4 dimensions", _paddings),),
    "PADV2": (("paddings of 3 or 4 dimensions", _paddings),),
    "REDUCE_MAX": _AXES,
    "REDUCE_MIN": _AXES,
    "REDUCE_PROD": _AXES,
    "SLICE": (("3 or 4 dimensions", rank_within(3, 4)),),
    "SOFTMAX": (("a beta of 1", option_is("beta", 1.0)),),
    "SPACE_TO_DEPTH": (("a block above 1", _block),),
    "STRIDED_SLICE": (
        ("3 or 4 dimensions", rank_within(3, 4)),
        ("no ellipsis, no new and no dropped axis", lambda call: not any(
            call.option(name) for name in ("ellipsis_mask", "new_axis_mask", "shrink_axis_mask")
        )),
    ),
    "SUM": _AXES,
}  # fmt: skip

GPU = OperatorList(
    name="gpu-delegate",
    title="the GPU delegate",
    operators=dict.fromkeys(_FREE, ())
    | {name: _flowing(1) for name in _ONE_INPUT}
    | {name: _flowing(2) for name in _TWO_INPUTS}
    | _LIMITED,
    common=(("float, 8-bit, int32 or bool numbers", _known_types),),
    partitions="largest",
    unpacks_float16=True,  # FP16GraphPartitionHelper in tensorflow/lite/delegates/utils.h
)
