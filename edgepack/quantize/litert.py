"""litert-quantizer: from a float .tflite to a quantized one. Runs in the worker process.

What edgepack adds to it: the ranges of activations (its own are a moving average, and its calibrator wants all samples
in memory), layers that are named exactly, biases that do not fit their integers, the operators' true versions, and an
error where nothing was quantized.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack.errors import InputError, MisfitError
from edgepack.quantize.biases import bias_overflow, overflowing_biases
from edgepack.quantize.conversion import Conversion
from edgepack.quantize.ranging import Range, measure_ranges
from edgepack.quantize.versions import correct_versions
from edgepack.strict_toml import nearest
from edgepack.target import INTEGER_SCHEMES, Scheme
from edgepack.tflite import TfliteModel, read_model

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

Calibration = Callable[[], Iterator[Mapping[str, Any]]]

_DENSE, _DEPTHWISE = "FULLY_CONNECTED", "DEPTHWISE_CONV_2D"
_WITH_BIAS = ("CONV_2D", _DEPTHWISE, _DENSE, "CONV_2D_TRANSPOSE")


def quantize_float(float_model: Path, conversion: Conversion, calibration: Calibration | None, output: Path) -> None:
    """Quantize the float .tflite into ``output``; ``calibration`` yields inputs by name, one batch at a time.

    Raises InputError "unknown-layer", MisfitError "unchanged", "bias-overflow" or "conversion-failed".
    """
    model = read_model(float_model)
    refuse_unknown_layers(conversion, model)
    ranges = None
    if calibration is not None:
        ranges = measure_ranges(lambda: _activations(float_model, model, calibration), conversion.range_method)
    data = float_model.read_bytes()
    made = _quantize(data, conversion, model, ranges, ())
    overflowing = overflowing_biases(data, made, model)
    if overflowing:  # a layer's one scale is that of its largest channel
        made = _quantize(data, conversion, model, ranges, overflowing)
        if left := overflowing_biases(data, made, model):
            raise bias_overflow(left)
    output.write_bytes(made)
    if not any(tensor.dtype in ("int8", "int16", "float16") for tensor in read_model(output).tensors):
        raise MisfitError(
            "unchanged",
            f"litert-quantizer changed nothing: it quantizes none of {_operators(model)}.",
            hint="Quantize the SavedModel, .keras or .h5 with TensorFlow's converter, or take a float32 target.",
        )
    corrected = correct_versions(output)
    if corrected is not None:
        output.write_bytes(corrected)


def layer_names(model: TfliteModel) -> dict[str, None]:
    """The names by which layers are called: their operators' output tensors, in the order of execution."""
    outputs = ((one.subgraph, index) for one in model.operators for index in one.outputs if index >= 0)
    return {model.tensor(subgraph, index).name: None for subgraph, index in outputs}


def refuse_unknown_layers(conversion: Conversion, model: TfliteModel) -> None:
    """Raise InputError "unknown-layer" for a layer that is to be treated apart and is not in the float model."""
    known = layer_names(model)
    for name in (*conversion.float_layers, *conversion.int16_layers):
        if name not in known:
            near = nearest(name, list(known))
            raise InputError(
                "unknown-layer",
                f"The float model has no layer with the output tensor {name!r}.",
                hint=f"Did you mean {' or '.join(map(repr, near))}?" if near else "Name a tensor of the float .tflite.",
            )


def _quantize(
    data: bytes, conversion: Conversion, model: TfliteModel, ranges: Mapping[str, Range] | None, whole: tuple[str, ...]
) -> bytes:
    """One pass of litert-quantizer; layers in ``whole`` have one scale for all of their weights."""
    import numpy as np
    from litert_quantizer import quantizer

    observed = None
    if ranges is not None:
        observed = {
            name: {"min": np.array([[low]], np.float32), "max": np.array([[high]], np.float32)}
            for name, (low, high) in ranges.items()
        }
    with _numpy_bool(), warnings.catch_warnings():
        # A bias that leaves int32 is found afterwards, by its layer's name.
        warnings.filterwarnings("ignore", "invalid value encountered in cast", RuntimeWarning)
        try:
            engine = quantizer.Quantizer(data)
            for step in _recipe(conversion, model, whole):
                engine.update_quantization_recipe(*step)
            result = engine.quantize(observed, enable_progress_report=False, enable_progress_bar=False)
        except (ValueError, RuntimeError, KeyError, IndexError, TypeError, AttributeError) as fault:
            raise _failed(fault, conversion) from fault
    return bytes(result.quantized_model)


def _recipe(conversion: Conversion, model: TfliteModel, whole: tuple[str, ...]) -> Iterator[tuple[str, str, Any, str]]:
    """Regular expression, operator, configuration and algorithm of each rule; of several that fit the last one counts.

    The expression is held against a layer's output tensors, each with a semicolon behind it.
    """
    from litert_quantizer.algorithm_manager import AlgorithmName, get_supported_ops

    plain, none = AlgorithmName.MIN_MAX_UNIFORM_QUANT, AlgorithmName.NO_QUANTIZE
    if conversion.scheme == Scheme.FLOAT16:
        plain = AlgorithmName.FLOAT_CASTING
    body = _configuration(conversion, per_tensor=conversion.granularity == "per-tensor")
    yield ".*", "*", body, plain
    if conversion.algorithm is not None:
        for name in sorted(set(get_supported_ops(conversion.algorithm)) & set(_WITH_BIAS)):
            yield ".*", name, body, conversion.algorithm
    hybrid = conversion.scheme == Scheme.DYNAMIC and not conversion.weight_only
    if hybrid and conversion.granularity == "per-tensor":
        # Every runtime's hybrid depthwise kernel reads a scale per channel; with a single one it answers garbage.
        yield ".*", _DEPTHWISE, None, none
    if hybrid and conversion.dense_per_tensor:
        yield ".*", _DENSE, _configuration(conversion, per_tensor=True), conversion.algorithm or plain
    scopes = _scopes(model)
    for name in whole:
        yield scopes[name], "*", _configuration(conversion, per_tensor=True), plain
    if conversion.scheme in INTEGER_SCHEMES:  # a loop's body has inputs and outputs of its own
        yield from ((".*", side, None, none) for side in ("INPUT", "OUTPUT"))
        for ports in (model.inputs, model.outputs):
            yield from _border(conversion, _exactly([tensor.name for tensor in ports]))
    for name in (*conversion.float_layers, *_inside_loops(conversion, model)):
        yield scopes[name], "*", None, none
        yield from _border(conversion, scopes[name])
    for name in conversion.int16_layers:
        yield scopes[name], "*", _static(16, per_tensor=conversion.granularity == "per-tensor"), plain
        yield from _border(conversion, scopes[name])


def _scopes(model: TfliteModel) -> dict[str, str]:
    """An expression for exactly the layer that gives a tensor, by the tensor's name."""
    scopes: dict[str, str] = {}
    for operator in model.operators:
        names = [model.tensor(operator.subgraph, index).name for index in operator.outputs if index >= 0]
        scopes |= dict.fromkeys(names, _exactly(names))
    return scopes


def _exactly(names: Sequence[str]) -> str:
    return "^" + re.escape("".join(f"{name};" for name in names)) + "$"


def _inside_loops(conversion: Conversion, model: TfliteModel) -> Iterator[str]:
    """Layers in the bodies of loops and branches: what they compute with is not to be seen from outside.

    Their weights can be int8 in the dynamic scheme, which needs no ranges.
    """
    if conversion.scheme in INTEGER_SCHEMES:
        inside = (one for one in model.operators if one.subgraph)
        yield from (model.tensor(one.subgraph, one.outputs[0]).name for one in inside if one.outputs)


def _border(conversion: Conversion, scope: str) -> Iterator[tuple[str, str, Any, str]]:
    """What the model's inputs and outputs are; without a rule they would be as the layers beside them."""
    from litert_quantizer.algorithm_manager import AlgorithmName

    if conversion.scheme not in INTEGER_SCHEMES:
        return
    for side in ("INPUT", "OUTPUT"):
        if conversion.io == "float32":
            yield scope, side, None, AlgorithmName.NO_QUANTIZE
        else:
            bits = 16 if conversion.scheme == Scheme.INT16X8 else 8
            unsigned = bits == 8 and conversion.io == "uint8"
            yield scope, side, _static(bits, unsigned=unsigned), AlgorithmName.MIN_MAX_UNIFORM_QUANT


def _configuration(conversion: Conversion, *, per_tensor: bool) -> Any:
    """The rule for a layer in the conversion's scheme."""
    from litert_quantizer import qtyping

    if conversion.scheme == Scheme.INT8:
        return _static(8, per_tensor=per_tensor)
    if conversion.scheme == Scheme.INT16X8:
        return _static(16, per_tensor=per_tensor)
    if conversion.scheme == Scheme.FLOAT16:
        weights = qtyping.TensorQuantizationConfig(16, dtype=qtyping.TensorDataType.FLOAT)
    else:
        weights = _weights(per_tensor)
    unpacked = conversion.scheme == Scheme.FLOAT16 or conversion.weight_only
    return qtyping.OpQuantizationConfig(
        weight_tensor_config=weights,
        compute_precision=qtyping.ComputePrecision.FLOAT if unpacked else qtyping.ComputePrecision.INTEGER,
        explicit_dequantize=unpacked,
    )


def _static(bits: int, *, per_tensor: bool = False, unsigned: bool = False) -> Any:
    """8-bit weights and activations of ``bits``: symmetric in 16 bits, as the kernels have it."""
    from litert_quantizer import qtyping

    kind = qtyping.TensorDataType.UINT if unsigned else qtyping.TensorDataType.INT
    return qtyping.OpQuantizationConfig(
        activation_tensor_config=qtyping.TensorQuantizationConfig(bits, symmetric=bits == 16, dtype=kind),
        weight_tensor_config=_weights(per_tensor),
        compute_precision=qtyping.ComputePrecision.INTEGER,
        explicit_dequantize=False,
    )


def _weights(per_tensor: bool) -> Any:
    from litert_quantizer import qtyping

    grain = qtyping.QuantGranularity.TENSORWISE if per_tensor else qtyping.QuantGranularity.CHANNELWISE
    return qtyping.TensorQuantizationConfig(8, symmetric=True, granularity=grain)


def _activations(path: Path, model: TfliteModel, calibration: Calibration) -> Iterator[dict[str, Array]]:
    """The float values of every tensor that is not constant, batch after batch."""
    import numpy as np
    from litert_quantizer.utils import tfl_interpreter_utils

    interpreter = tfl_interpreter_utils.create_tfl_interpreter(str(path), num_threads=1, preserve_all_tensors=True)
    inputs = {name: tensor.index for name, tensor in model.named_inputs}
    constant = {tensor.index for tensor in model.tensors if tensor.subgraph == 0 and tensor.constant}
    read = [
        (one["name"], one["index"])
        for one in interpreter.get_tensor_details()
        if one["name"] and one["dtype"] == np.float32 and one["index"] not in constant and all(one["shape"])
    ]

    def values(index: int) -> Array | None:
        try:
            found: Array = interpreter.get_tensor(index)
        except ValueError:  # nothing was put there: a loop keeps its own
            return None
        return found

    for batch in calibration():
        for name, index in inputs.items():
            interpreter.set_tensor(index, np.asarray(batch[name]))
        interpreter.invoke()
        yield {name: found for name, index in read if (found := values(index)) is not None}


@contextmanager
def _numpy_bool() -> Iterator[None]:
    """OCTAV says ``np.bool`` (octav.py of 0.11), which numpy has since 2.0 and had until 1.24."""
    import numpy as np

    if "bool" in vars(np):
        yield
        return
    np.bool = np.bool_  # type: ignore[attr-defined]
    try:
        yield
    finally:
        del np.bool  # type: ignore[attr-defined]


def _operators(model: TfliteModel) -> str:
    return ", ".join(dict.fromkeys(one.custom_name or one.name for one in model.operators)) or "no operators"


def _failed(fault: Exception, conversion: Conversion) -> MisfitError:
    """What litert-quantizer says, as one sentence; it puts each cause behind an "Error:"."""
    told = " ".join(str(fault).split()) or type(fault).__name__
    layer = re.search(r"for tensor: (.+?)\. Error: ", told)
    where = f" at {layer[1][:120]!r}" if layer else ""
    cause = told.rsplit("rror: ", 1)[-1][:300]
    return MisfitError(
        "conversion-failed",
        f"litert-quantizer cannot quantize the model to {conversion.scheme}{where}: {cause}",
        hint="Try another scheme, or the SavedModel, .keras or .h5 with TensorFlow's converter.",
    )
