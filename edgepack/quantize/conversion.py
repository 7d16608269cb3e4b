"""How a model is to be converted, as a value: scheme, engine, and what is left out of either."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgepack.target import Scheme

TENSORFLOW = "tensorflow"  # TFLiteConverter, from the trained model
LITERT = "litert"  # litert-quantizer, from the float .tflite


@dataclass(frozen=True, slots=True)
class Conversion:
    """One way to convert; two that are equal give the same bytes from the same model and samples.

    ``io``, ``granularity`` and ``float_fallback`` are the target's [quantization]; ``dense_per_tensor`` is for runtimes
    without FULLY_CONNECTED 12. ``engine`` is "tensorflow" or "litert", ``algorithm`` how litert-quantizer chooses the
    scales of weights (None: by minimum and maximum). ``float_layers`` and ``int16_layers`` name layers, by their output
    tensors in the float .tflite, that stay in float or get 16-bit activations. ``calibration_rows`` takes the first
    rows of the calibration samples only; ``range_method`` says how the ranges of activations are taken from them.
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
    range_method: str = "minmax"


def conversion_to_json(conversion: Conversion) -> dict[str, Any]:
    """The conversion as JSON values, for the worker process and for a cache's key."""
    return dataclasses.asdict(conversion)


def conversion_from_json(value: Mapping[str, Any]) -> Conversion:
    """What :func:`conversion_to_json` wrote; a field that is left out has its default."""
    layers = {name: tuple(value.get(name, ())) for name in ("float_layers", "int16_layers")}
    return Conversion(**{**value, **layers, "scheme": Scheme(value["scheme"])})
