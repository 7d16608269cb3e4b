"""How a model is to be converted, as a value: scheme, engine, and what is left out of either."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgepack.errors import InputError
from edgepack.target import INTEGER_SCHEMES, Scheme

TENSORFLOW = "tensorflow"  # TFLiteConverter, from the trained model
LITERT = "litert"  # litert-quantizer, from the float .tflite

# litert-quantizer's other ways to choose the scales of weights, by its own names. GPTQ and OSCAR, which it has as well,
# are for dense layers alone, and version 0.11 writes GPTQ's weights with four bytes each into an int8 tensor.
ALGORITHMS = ("OCTAV", "MSE")
# How the range of an activation is taken from what it was over the samples: edgepack.quantize.ranging.
MINMAX = "minmax"
RANGE_METHODS = (MINMAX, "average", "percentile", "mse")


@dataclass(frozen=True, slots=True)
class Conversion:
    """One way to convert; two that are equal give the same bytes from the same model and samples.

    ``io``, ``granularity`` and ``float_fallback`` are the target's [quantization]; ``dense_per_tensor`` is for runtimes
    without FULLY_CONNECTED 12. ``engine`` is "tensorflow" or "litert", ``algorithm`` how litert-quantizer chooses the
    scales of weights (None: by minimum and maximum). ``float_layers`` and ``int16_layers`` name layers, by their output
    tensors in the float .tflite, that stay in float or get 16-bit activations. ``calibration_rows`` takes so many
    of the calibration samples, evenly spread; ``calibration_without`` are rows that are left out, counted within the
    set (:func:`calibration_picks`); ``range_method`` says how the ranges of activations are taken from them.
    ``weight_only`` is a form of "dynamic": weights are made float again before each layer, which every runtime can do.

    What an engine can do, :func:`refuse_conversion` tells.
    """

    scheme: Scheme
    io: str = "float32"
    granularity: str = "per-channel"
    float_fallback: bool = True
    dense_per_tensor: bool = False
    engine: str = TENSORFLOW
    algorithm: str | None = None
    float_layers: tuple[str, ...] = ()
    int16_layers: tuple[str, ...] = ()
    calibration_rows: int | None = None
    range_method: str = MINMAX
    weight_only: bool = False
    calibration_without: tuple[int, ...] = ()


def calibration_picks(conversion: Conversion, rows: int) -> list[int]:
    """Which of ``rows`` calibration samples the conversion takes, ascending and evenly spread."""
    without = set(conversion.calibration_without)
    there = [row for row in range(rows) if row not in without]
    some = min(len(there), conversion.calibration_rows or len(there))
    return [there[place * len(there) // some] for place in range(some)]


def conversion_to_json(conversion: Conversion) -> dict[str, Any]:
    """The conversion as JSON values, for the worker process and for a cache's key."""
    return dataclasses.asdict(conversion)


def conversion_from_json(value: Mapping[str, Any]) -> Conversion:
    """What :func:`conversion_to_json` wrote; a field that is left out has its default."""
    tuples = {name: tuple(value.get(name, ())) for name in ("float_layers", "int16_layers", "calibration_without")}
    return Conversion(**{**value, **tuples, "scheme": Scheme(value["scheme"])})


def refuse_conversion(conversion: Conversion) -> None:
    """Raise InputError "bad-conversion" with everything that the engine cannot do.

    TFLiteConverter: every scheme; ranges by minimum and maximum; layers in float in int8 only. litert-quantizer: every
    scheme, from a float .tflite; layers in float in every scheme, 16-bit layers in int8 (ai-edge-litert runs them,
    tflite-runtime 2.14 does not); operators that it does not know stay in float.
    """
    faults = [*_known_names(conversion), *_engine_limits(conversion)]
    if faults:
        raise InputError(
            "bad-conversion",
            f"There is no such conversion: {'; '.join(faults)}.",
            hint="docs/quantize.md, Engines, says what each engine can do.",
        )


def _known_names(conversion: Conversion) -> list[str]:
    asked = (
        ("engine", conversion.engine, (TENSORFLOW, LITERT)),
        ("algorithm", conversion.algorithm, (None, *ALGORITHMS)),
        ("range_method", conversion.range_method, RANGE_METHODS),
    )
    faults = [
        f"{field} {value!r} (there are {', '.join(str(one) for one in known if one)})"
        for field, value, known in asked
        if value not in known
    ]
    if conversion.calibration_rows is not None and conversion.calibration_rows < 1:
        faults.append("calibration_rows is less than 1")
    return faults


def _engine_limits(conversion: Conversion) -> list[str]:
    faults = []
    if conversion.engine == TENSORFLOW:
        wishes = {
            "algorithm": conversion.algorithm,
            "int16_layers": conversion.int16_layers,
            "weight_only": conversion.weight_only,
            "range_method": conversion.range_method != MINMAX,
            "float_layers outside of int8": conversion.scheme != Scheme.INT8 and conversion.float_layers,
        }
        faults += [f"TensorFlow's converter has no {wish}" for wish, asked in wishes.items() if asked]
    if conversion.int16_layers and conversion.scheme != Scheme.INT8:
        faults.append(f"int16_layers are for int8, not {conversion.scheme}")
    if conversion.weight_only and conversion.scheme != Scheme.DYNAMIC:
        faults.append(f"weight_only is for dynamic, not {conversion.scheme}")
    mixed = conversion.float_layers and conversion.scheme in INTEGER_SCHEMES
    if mixed and not conversion.float_fallback:
        faults.append("float_layers on a target without float_fallback")
    return faults
