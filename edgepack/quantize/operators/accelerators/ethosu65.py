"""What Vela 5.2.0 places on an Ethos-U65 (and U55).

Source: ``vela --supported-ops-report`` (SUPPORTED_OPS.md, "Ethos-U55 and Ethos-U65 TFLite"), which a test reads again.
Left out are limits on the values of weights (their sum) and those that no model in practice meets (sizes of 2^16).
"""

from __future__ import annotations

from edgepack.quantize.operators.accelerators.limits import (
    SAME,
    Limit,
    Limits,
    OperatorList,
    constant,
    flows_in,
    numbers_in,
    one_scale,
    stride_up_to,
    weights_in,
)
from edgepack.quantize.operators.conditions import Call

_PER_CHANNEL = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
_NO_SCALES = ("ARG_MAX", "EXPAND_DIMS", "MIRROR_PAD", "PAD", "PADV2", "QUANTIZE", "TRANSPOSE")
_NARROW = ("int8", "uint8", "int16")


def _per_axis(call: Call) -> bool:
    return call.operator.name in _PER_CHANNEL or one_scale(call)


def _has_scales(call: Call) -> bool:
    """What is quantized says how; shapes, axes and positions are plain numbers."""
    tensors = [tensor for tensor in (*call.inputs[:1], *call.outputs[:1]) if tensor is not None]
    if call.operator.name in _NO_SCALES or any(tensor.dtype == "int32" for tensor in tensors):
        return True
    return all(tensor.scales and min(tensor.scales) > 0 for tensor in tensors)


def _long_stride(call: Call) -> bool:
    """A stride above 3 needs no padding and no dilation."""
    options = call.operator.options
    undilated = options.get("dilation_w_factor", 1) == 1 and options.get("dilation_h_factor", 1) == 1
    return stride_up_to(3)(call) or (undilated and call.option("padding") != SAME)


def _average_kernel(call: Call) -> bool:
    width, height = call.option("filter_width"), call.option("filter_height")
    if call.option("padding") == SAME:
        return max(width, height) <= 8
    return width * height <= 256 * 256 and height <= 256


def _max_kernel(call: Call) -> bool:
    width, height = call.option("filter_width"), call.option("filter_height")
    return width * height <= 256 * 256 and height <= 256


def _bias(call: Call) -> bool:
    bias = call.tensor(2)
    return bias is None or (bias.constant and bias.dtype in ("int32", "int64"))


def _transpose_stride(call: Call) -> bool:
    return (call.option("stride_w"), call.option("stride_h")) in ((1, 1), (2, 2), (2, 1), (1, 2))


def _last_axis(call: Call) -> bool:
    axes, rank = call.tensor(1), call.rank()
    return axes is None or all(axis in (-1, rank - 1) for axis in axes.values)


def _shallow(call: Call) -> bool:
    tensor = call.tensor(0)
    return tensor is None or not tensor.shape or tensor.shape[-1] <= 127


def _one_at_a_time(call: Call) -> bool:
    tensor = call.tensor(0)
    return tensor is None or len(tensor.shape) < 4 or tensor.shape[0] == 1


def _alike(call: Call) -> bool:
    """Inputs and output have the same quantization."""
    tensors = [tensor for tensor in (*call.inputs, *call.outputs) if tensor is not None]
    return len({(tensor.scales, tensor.zero_points) for tensor in tensors}) == 1


def _power_of_two(call: Call) -> bool:
    """Both sides grow by the same 2, 4 or 8, or not at all, or from a single point."""
    before, after = call.tensor(0), call.outputs[0] if call.outputs else None
    if before is None or after is None or len(before.shape) != 4 or before.shape == after.shape:
        return True
    less = 1 if call.option("align_corners") else 0
    sizes = [(before.shape[axis] - less, after.shape[axis] - less) for axis in (1, 2)]
    if before.shape[1:3] == (1, 1):
        return True
    factors = {big / small if small else 1.0 for small, big in sizes}
    return len(factors) == 1 and factors <= ({2.0} if call.option("half_pixel_centers") else {2.0, 4.0, 8.0})


def _forward(call: Call) -> bool:
    steps = call.tensor(3)
    return steps is None or all(step > 0 for step in steps.values)


def _softmax_size(call: Call) -> bool:
    tensor = call.tensor(0)
    return tensor is None or not tensor.shape or numbers_in(tensor) // max(1, tensor.shape[-1]) < 65536


_NOT_32: Limit = ("8-bit or 16-bit numbers", flows_in(*_NARROW))
_INT8_OR_16: Limit = ("int8 or int16", flows_in("int8", "int16"))
_STRIDE: Limit = ("strides up to 3", stride_up_to(3))
_LONG: Limit = ("strides up to 3, or no padding and no dilation", _long_stride)
_WEIGHTS: Limits = (
    ("8-bit weights", weights_in("int8", "uint8")),
    ("a constant bias in int32 or int64", _bias),
)
_PARAMETERS: Limit = ("constant parameters", constant(1, 2, 3))
_SCALED: Limits = (_NOT_32, ("the same factor of 2, 4 or 8 for height and width", _power_of_two))
_WHOLE = ("ADD", "EXPAND_DIMS", "MUL", "NEG", "RESHAPE", "SQUEEZE", "SUB", "SUM")
_NARROW_ONLY = (
    "ABS", "CONCATENATION", "EXP", "HARD_SWISH", "LEAKY_RELU", "LOGISTIC", "PACK", "PRELU", "QUANTIZE", "REDUCE_MAX",
    "REDUCE_MIN", "RELU", "RELU6", "RELU_0_TO_1", "RELU_N1_TO_1", "REVERSE_V2", "SPLIT", "SPLIT_V",
    "SQUARED_DIFFERENCE", "TANH", "TILE", "UNIDIRECTIONAL_SEQUENCE_LSTM", "UNPACK",
)  # fmt: skip
_LIMITED: dict[str, Limits] = {
    "ARG_MAX": (("the last axis", _last_axis), ("a depth of at most 127", _shallow)),
    "AVERAGE_POOL_2D": (_NOT_32, ("a window of 8x8 at most, or no padding", _average_kernel), _LONG),
    "BATCH_MATMUL": (("int8 numbers", flows_in("int8")),),
    "CONV_2D": (_NOT_32, *_WEIGHTS, _LONG),
    "DEPTHWISE_CONV_2D": (_NOT_32, *_WEIGHTS, _STRIDE),
    "ELU": (("int8 numbers", flows_in("int8")),),
    "FULLY_CONNECTED": _WEIGHTS,
    "GELU": (("8-bit numbers", flows_in("int8", "uint8")),),
    "LOG": (_INT8_OR_16,),
    "MAXIMUM": (_NOT_32, ("the same scale everywhere", _alike)),
    "MAX_POOL_2D": (_NOT_32, ("a window of 256x256 at most", _max_kernel), _LONG),
    "MEAN": (_NOT_32, _PARAMETERS, ("a batch of 1", _one_at_a_time)),
    "MINIMUM": (_NOT_32, ("the same scale everywhere", _alike)),
    "MIRROR_PAD": (_PARAMETERS,),
    "PAD": (_NOT_32, _PARAMETERS),
    "PADV2": (_NOT_32, _PARAMETERS),
    "RESIZE_BILINEAR": _SCALED,
    "RESIZE_NEAREST_NEIGHBOR": _SCALED,
    "RSQRT": (_INT8_OR_16,),
    "SLICE": (_NOT_32, _PARAMETERS),
    "SOFTMAX": (_NOT_32, ("fewer than 65536 rows", _softmax_size)),
    "STRIDED_SLICE": (_NOT_32, _PARAMETERS, ("forward steps", _forward)),
    "TRANSPOSE": (_PARAMETERS,),
    "TRANSPOSE_CONV": (_NOT_32, *_WEIGHTS[:1], ("strides of 1 or 2", _transpose_stride)),
}

ETHOS_U65 = OperatorList(
    name="ethos-u65",
    title="the Ethos-U65",
    operators=dict.fromkeys(_WHOLE, ()) | dict.fromkeys(_NARROW_ONLY, (_NOT_32,)) | _LIMITED,
    common=(
        ("integers of at most 32 bits", flows_in(*_NARROW, "int32")),
        ("a scale for what goes in and out", _has_scales),
        ("one scale per tensor", _per_axis),
    ),
    compiled=frozenset({"ethos-u"}),
)
