"""What the Edge TPU takes (compiler 16, runtime 14).

Source: https://coral.ai/docs/edgetpu/models-intro/#supported-operations and #model-requirements. The compiler cuts a
model once only: the first operator that the Edge TPU does not take sends itself and all that follow to the CPU (ibid.,
#compiling), hence ``partitions="first"``.
"""

from __future__ import annotations

from edgepack.quantize.operators.accelerators.limits import (
    Limit,
    Limits,
    OperatorList,
    data,
    flows_in,
    no_activation,
    no_float_constants,
    numbers_in,
    option_is,
)
from edgepack.quantize.operators.conditions import Call

_MOST_SOFTMAX = 16_000


def _three_dimensions(call: Call) -> bool:
    """Of more than three dimensions only the innermost three are larger than 1."""
    return all(size == 1 for tensor in data(call) for size in tensor.shape[:-3])


def _same_dilation(call: Call) -> bool:
    options = call.operator.options
    return options.get("dilation_w_factor", 1) == options.get("dilation_h_factor", 1)


def _flat_output(call: Call) -> bool:
    output = call.outputs[0] if call.outputs else None
    return output is None or not output.shape or numbers_in(output) == output.shape[-1]


def _flat_softmax(call: Call) -> bool:
    tensor = call.tensor(0)
    return tensor is None or (numbers_in(tensor) == tensor.shape[-1] and numbers_in(tensor) <= _MOST_SOFTMAX)


def _not_over_batch(call: Call) -> bool:
    """The axes, the second input, leave the first dimension alone."""
    axes, rank = call.tensor(1), call.rank()
    return axes is None or not rank or all(axis % rank != 0 for axis in axes.values) or rank == 1


def _pads_no_batch(call: Call) -> bool:
    paddings = call.tensor(1)
    return paddings is None or not any(paddings.values[:2])


def _steps_of_one(call: Call) -> bool:
    strides = call.tensor(3)
    return strides is None or (bool(strides.values) and all(step == 1 for step in strides.values))


def _one_dimensional_alpha(call: Call) -> bool:
    alpha = call.tensor(1)
    return alpha is None or all(size == 1 for size in alpha.shape[:-1])


_PLAIN: Limit = ("no fused activation", no_activation)
_DILATION: Limit = ("the same dilation in x and y", _same_dilation)
_REDUCED: Limit = ("no reduction over the batch", _not_over_batch)
_NO_LIMITS = (
    "ADD", "EXPAND_DIMS", "L2_NORMALIZATION", "LOGISTIC", "LSTM", "MAXIMUM", "MINIMUM", "MUL", "QUANTIZE", "RELU",
    "RELU6", "RELU_N1_TO_1", "RESHAPE", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "RSQRT", "SLICE",
    "SPACE_TO_DEPTH", "SPLIT", "SQUARED_DIFFERENCE", "SQUEEZE", "SUB", "TANH", "TRANSPOSE", "TRANSPOSE_CONV",
    "UNIDIRECTIONAL_SEQUENCE_LSTM",
)  # fmt: skip
_LIMITED: dict[str, Limits] = {
    "AVERAGE_POOL_2D": (_PLAIN,),
    "CONCATENATION": (_PLAIN,),
    "CONV_2D": (_DILATION,),
    "DEPTHWISE_CONV_2D": (_DILATION,),
    "FULLY_CONNECTED": (
        ("the default weight format", option_is("weights_format", 0)),
        ("a one-dimensional output", _flat_output),
    ),
    "MAX_POOL_2D": (_PLAIN,),
    "MEAN": (_REDUCED,),
    "PACK": (("no packing along the batch", option_is("axis", 1, 2, 3, -1, -2, -3)),),
    "PAD": (("no padding of the batch", _pads_no_batch),),
    "PRELU": (("a one-dimensional alpha", _one_dimensional_alpha),),
    "REDUCE_MAX": (_REDUCED,),
    "REDUCE_MIN": (_REDUCED,),
    "SOFTMAX": ((f"a one-dimensional input of at most {_MOST_SOFTMAX} numbers", _flat_softmax),),
    "STRIDED_SLICE": (
        ("steps of 1", _steps_of_one),
        ("no ellipsis and no new axis", lambda call: not call.option("ellipsis_mask") + call.option("new_axis_mask")),
    ),
    "SUM": (_REDUCED,),
}

EDGETPU = OperatorList(
    name="edgetpu",
    title="the Edge TPU",
    operators=dict.fromkeys(_NO_LIMITS, ()) | _LIMITED,
    common=(
        ("8-bit integers", flows_in("int8", "uint8")),
        ("integer weights", no_float_constants),
        ("sizes above 1 in the innermost three dimensions alone", _three_dimensions),
    ),
    partitions="first",
    open_batch=False,
    compiled=frozenset({"edgetpu-custom-op"}),
)
