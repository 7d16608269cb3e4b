"""TFLiteConverter, with what each scheme asks of it. Runs in the worker process."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgepack.errors import EdgepackError, MisfitError
from edgepack.quantize.conformance import border_type
from edgepack.quantize.conversion import Conversion
from edgepack.target import Scheme

Calibration = Callable[[], Iterator[Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class Converted:
    """A .tflite, and the float .tflite that it was calibrated as (None where TensorFlow did not show one)."""

    model: bytes
    float_model: bytes | None


class Loops(Exception):
    """The float model has loops, on which TensorFlow 2.21 crashes when it calibrates (branches it takes)."""

    def __init__(self, float_model: bytes) -> None:
        super().__init__()
        self.float_model = float_model


def convert(folder: Path, conversion: Conversion, calibration: Calibration | None) -> Converted:
    """Convert the SavedModel in ``folder``; ``calibration`` yields inputs by name, one pinned batch at a time.

    Raises Loops where integers are asked of a model that has some, MisfitError "unsupported-operators" or
    "conversion-failed" with the converter's own words.
    """
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
    _configure(converter, conversion, calibration)
    calibrated = _watch_calibration(converter, conversion)
    try:
        data: bytes = converter.convert()
    except (Loops, EdgepackError):  # the latter is what the calibration samples refuse
        raise
    except Exception as fault:  # the converter raises ConverterError, ValueError, RuntimeError and others
        raise _refused(fault, conversion.scheme) from fault
    return Converted(data, calibrated[0] if calibrated else None)


def _has_loops(model: bytes) -> bool:
    from tensorflow.lite.python import schema_py_generated as schema  # TensorFlow has it in memory already

    root = schema.Model.GetRootAs(model, 0)
    codes = (root.OperatorCodes(place).BuiltinCode() for place in range(root.OperatorCodesLength()))
    return any(code == schema.BuiltinOperator.WHILE for code in codes)


def _watch_calibration(converter: Any, conversion: Conversion) -> list[bytes]:
    """Receives the float model that the converter is about to calibrate and quantize, while it converts.

    The converter makes it on its way to integers and keeps it to itself; taking it here saves a second conversion, a
    tenth of the whole run. Where TensorFlow has no such step any more nothing comes, and the caller converts twice.
    Layers that stay in float are named here too: the converter hands no names on to its quantizer, whose function
    takes them (as tf.lite.experimental.QuantizationDebugger calls it).
    """
    seen: list[bytes] = []
    quantize = getattr(converter, "_quantize", None)
    if callable(quantize):

        def watched(model: bytes, *arguments: Any, **options: Any) -> Any:
            seen.append(bytes(model))
            if _has_loops(seen[0]):
                raise Loops(seen[0])
            if not conversion.float_layers:
                return quantize(model, *arguments, **options)
            converter._experimental_calibrate_only = True
            return _quantize_but(quantize(model, *arguments, **options), conversion)

        converter._quantize = watched
    return seen


def _quantize_but(calibrated: bytes, conversion: Conversion) -> Any:
    """The calibrated model in int8 but for its ``float_layers``."""
    import tensorflow as tf
    from tensorflow.lite.python.convert import mlir_quantize

    border = tf.as_dtype(border_type(conversion.scheme, conversion.io))
    return mlir_quantize(
        calibrated,
        disable_per_channel=conversion.granularity == "per-tensor",
        input_data_type=border,
        output_data_type=border,
        denylisted_nodes=list(conversion.float_layers),
        disable_per_channel_for_dense_layers=conversion.dense_per_tensor,
    )


def _configure(converter: Any, conversion: Conversion, calibration: Calibration | None) -> None:
    import tensorflow as tf

    scheme, ops = conversion.scheme, tf.lite.OpsSet
    if scheme == Scheme.FLOAT32:
        return
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    # TensorFlow offers both only as experimental attributes; per-tensor weights are what some NPUs are fast with.
    converter._experimental_disable_per_channel = conversion.granularity == "per-tensor"
    converter._experimental_disable_per_channel_quantization_for_dense_layers = conversion.dense_per_tensor
    if scheme == Scheme.FLOAT16:
        converter.target_spec.supported_types = [tf.float16]
    if scheme not in (Scheme.INT8, Scheme.INT16X8):
        return
    integer = (
        ops.TFLITE_BUILTINS_INT8
        if scheme == Scheme.INT8
        else ops.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
    )
    converter.target_spec.supported_ops = [integer, *([ops.TFLITE_BUILTINS] if conversion.float_fallback else [])]
    converter.representative_dataset = calibration
    border = tf.as_dtype(border_type(conversion.scheme, conversion.io))
    converter.inference_input_type = border
    converter.inference_output_type = border


def _refused(fault: Exception, scheme: Scheme) -> MisfitError:
    """The converter's pages of MLIR as one sentence."""
    text = str(fault)
    operators = re.findall(r"\w+", ", ".join(re.findall(r"(?:Flex|TF Select|Custom) ops: (.+)", text)))
    if operators and set(operators) <= set(re.findall(r"^\s*tf\.(\w+)\(.*f16>", text, re.MULTILINE)):
        return MisfitError(
            "unsupported-operators",
            "The model computes in 16-bit floats, as one trained under mixed_float16 does, in which no TFLite runtime "
            f"has {', '.join(operators)}.",
            hint="Name its .keras or .h5 file, which edgepack builds again in float32; or build it under "
            "keras.config.set_dtype_policy('float32'), load its weights, and export that.",
            operators=operators,
        )
    if operators:
        return MisfitError(
            "unsupported-operators",
            f"The model uses operators that no TFLite runtime has: {', '.join(operators)}.",
            hint="Replace those layers, or take them out of the model and compute them in the program.",
            operators=operators,
        )
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [type(fault).__name__]
    told = next((line for line in lines if "error:" in line), lines[-1])
    return MisfitError(
        "conversion-failed",
        # What stands before "): " is where in the graph it happened.
        f"TensorFlow cannot convert the model to {scheme}: {told.rsplit('): ', 1)[-1][:400]}",
        hint="Replace that operator's layer, or try another scheme (a target with scheme = 'dynamic').",
    )
