"""What may be tried for a target: its legal schemes, and the other ways to the same scheme; pure."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from edgepack.quantize.conversion import ALGORITHMS, LITERT, MINMAX, RANGE_METHODS, TENSORFLOW, Conversion
from edgepack.target import INTEGER_SCHEMES, Scheme, Target

_GPU = "gpu-delegate"
_ENGINE_NAMES = {TENSORFLOW: "TensorFlow", LITERT: "litert-quantizer"}
# Fewer rows than this measure no range worth having.
_FEWEST_ROWS = 8
_SHOWN_LAYERS = 2


@dataclass(frozen=True, slots=True)
class Candidate:
    """A way to convert, and what people call it."""

    name: str
    conversion: Conversion


def legal_schemes(target: Target) -> tuple[Scheme, ...]:
    """The schemes that the target's profile allows, its own first.

    Without ``float_fallback`` only the profile's own; an accelerator with a list of operators or a required delegate
    computes in that one too, but for a GPU, which takes float16 and float32. A CPU computes in any.
    """
    wanted = target.quantization
    if not wanted.float_fallback:
        return (wanted.scheme,)
    legal: tuple[Scheme, ...] = ()
    if wanted.operators == _GPU:
        legal = (Scheme.FLOAT16, Scheme.FLOAT32)
    elif wanted.operators == "any" and not target.delegate.required:
        legal = (Scheme.INT8, Scheme.DYNAMIC, Scheme.FLOAT16, Scheme.INT16X8, Scheme.FLOAT32)
    return tuple(dict.fromkeys((wanted.scheme, *legal)))


def needs_calibration(target: Target) -> bool:
    """Whether any legal scheme has ranges to be measured."""
    return any(scheme in INTEGER_SCHEMES for scheme in legal_schemes(target))


def first_candidates(target: Target, engine: str = TENSORFLOW) -> tuple[Candidate, ...]:
    """Each legal scheme as the engine makes it by itself."""
    return tuple(candidate(_plain(target, scheme, engine)) for scheme in legal_schemes(target))


def variants(
    target: Target,
    scheme: Scheme,
    calibration_rows: int,
    engine: str = TENSORFLOW,
    stretching: tuple[int, ...] = (),
) -> tuple[Candidate, ...]:
    """The other ways to a scheme, for when the plain one costs too much accuracy: the same bytes, but for the scales.

    The calibration samples without those that alone stretch a range (``stretching``, counted within the set), a half
    and a quarter of them evenly spread (an outlier may be among those left out), litert-quantizer's ranges of
    activations and its ways to choose the scales of weights.
    """
    plain = _plain(target, scheme, engine)
    litert = dataclasses.replace(plain, engine=LITERT)
    found = [litert]
    if scheme in INTEGER_SCHEMES:
        halves = [calibration_rows // part for part in (2, 4)]
        calm = [dataclasses.replace(plain, calibration_without=stretching)] if stretching else []
        found = [
            *(calm if calibration_rows - len(stretching) >= _FEWEST_ROWS else []),
            *(dataclasses.replace(plain, calibration_rows=rows) for rows in halves if rows >= _FEWEST_ROWS),
            *(dataclasses.replace(litert, range_method=method) for method in RANGE_METHODS),
        ]
    if scheme in (Scheme.INT8, Scheme.DYNAMIC):
        found += [dataclasses.replace(litert, algorithm=algorithm) for algorithm in ALGORITHMS]
    return tuple(candidate(one) for one in dict.fromkeys(found) if one != plain)


def apart(base: Candidate, layers: tuple[str, ...]) -> Candidate:
    """The candidate with these layers in float: on a CPU TFLite's 16-bit kernels are reference code, far slower."""
    return candidate(dataclasses.replace(base.conversion, float_layers=layers))


def widened(base: Candidate, layers: tuple[str, ...]) -> Candidate:
    """The candidate with 16-bit activations in these layers, which litert-quantizer alone can do.

    For integer-only targets: some (Arm's Ethos-U) compute in 16 bits as well, and the target's list of operators says
    which.
    """
    return candidate(dataclasses.replace(base.conversion, int16_layers=layers))


def candidate(conversion: Conversion) -> Candidate:
    """The candidate with the name that says how it differs from the scheme as TensorFlow makes it."""
    parts = [str(conversion.scheme)]
    if conversion.engine != TENSORFLOW:
        parts.append(f"by {_ENGINE_NAMES[conversion.engine]}")
    if conversion.range_method != MINMAX:
        parts.append(f"{conversion.range_method} ranges")
    if conversion.algorithm is not None:
        parts.append(f"{conversion.algorithm} weights")
    if conversion.calibration_rows is not None:
        parts.append(f"{conversion.calibration_rows} calibration samples")
    if conversion.calibration_without:
        count = len(conversion.calibration_without)
        them = "sample that stretches" if count == 1 else "samples that stretch"
        parts.append(f"without {count} calibration {them} ranges")
    for layers, how in ((conversion.float_layers, "in float"), (conversion.int16_layers, "in 16 bits")):
        if layers:
            shown = [short_name(layer) for layer in layers[:_SHOWN_LAYERS]]
            more = len(layers) - len(shown)
            parts.append(" and ".join(shown) + (f" and {more} more " if more else " ") + how)
    return Candidate(", ".join(parts), conversion)


def short_name(tensor: str) -> str:
    """A layer as a person knows it: of a fused tensor ("model/a/Relu;model/b/Add") the end of the first name."""
    return "/".join(tensor.split(";", 1)[0].split("/")[-2:])


def _plain(target: Target, scheme: Scheme, engine: str) -> Conversion:
    wanted = target.quantization
    return Conversion(scheme, wanted.io, wanted.granularity, wanted.float_fallback, engine=engine)
