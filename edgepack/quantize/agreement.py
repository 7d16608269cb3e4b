"""Whether a converted model answers as its source does."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgepack.documents import Finding
from edgepack.errors import MisfitError
from edgepack.quantize.layers import BAD_SQNR_DB

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

# By how much of the outputs' range the float .tflite may differ from its source: kernels that add in another order
# differ by 1e-5 of it; a conversion gone wrong differs by the whole range.
_TOLERANCE = 0.01
_ABSOLUTE_TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True)
class Outputs:
    """Outputs over a set of samples, float32 [rows, ...] by name: the source's and the .tflite's."""

    reference: dict[str, Array]
    quantized: dict[str, Array]


def refuse_difference(reference: Mapping[str, Array], converted: Mapping[str, Array]) -> None:
    """A conversion can be wrong without an error: the float .tflite has to answer as its source does.

    Outputs [rows, ...] by name. Raises MisfitError "conversion-differs", or "not-finite" where the source itself fails.
    """
    import numpy as np

    for name, expected in reference.items():
        if not np.isfinite(expected).all():
            raise MisfitError(
                "not-finite",
                f"The source model itself answers with NaN or infinity at {name!r}.",
                hint="Check the model and its samples in the training program.",
            )
    differs = different_output(reference, converted)
    if differs is not None:
        raise MisfitError(
            "conversion-differs",
            f"The converted model answers differently from its source at {differs!r}.",
            hint="TensorFlow's converter got it wrong: export the model as a SavedModel and try that.",
        )


def different_output(reference: Mapping[str, Array], other: Mapping[str, Array]) -> str | None:
    """The first output at which two models that should answer alike do not; None where there is none.

    Not a number on both sides is alike.
    """
    import numpy as np

    for name, expected in reference.items():
        got = other.get(name)
        if got is None or got.shape != expected.shape:
            return name
        finite = np.isfinite(expected)
        limit = _TOLERANCE * float(np.abs(expected[finite]).max(initial=0)) + _ABSOLUTE_TOLERANCE
        near = float(np.abs(got[finite] - expected[finite]).max(initial=0)) <= limit
        if not near or not np.array_equal(got[~finite], expected[~finite], equal_nan=True):
            return name
    return None


def judge_delivered(
    reference: Mapping[str, Array], delivered: Mapping[str, Array], overflown: Sequence[str]
) -> tuple[Finding, ...]:
    """Hold the model that is delivered against its source over a few rows: a note where it answers something else.

    Outputs [rows, ...] by name; ``overflown`` names weights that float16 cannot hold. Raises MisfitError "not-finite"
    where the source answers with numbers and the delivered model does not.
    """
    import numpy as np

    for name, expected in reference.items():
        if name in delivered and not np.isfinite(delivered[name][np.isfinite(expected)]).all():
            shown = ", ".join(map(repr, overflown[:3]))
            why = f" float16 ends at 65504, and these weights go beyond: {shown}." if overflown else ""
            raise MisfitError(
                "not-finite",
                f"The quantized model answers with NaN or infinity at {name!r}, where its source does not.{why}",
                hint="Scale the weights down, or take a profile of another scheme (dynamic, int8, float32).",
                tensors=list(overflown),
            )
    ratios = {name: _sqnr_db(expected, delivered[name]) for name, expected in reference.items() if name in delivered}
    worst = min(ratios, key=lambda name: ratios[name], default=None)
    if worst is None or ratios[worst] >= BAD_SQNR_DB:
        return ()
    rows = len(reference[worst])
    return (
        Finding(
            "far-from-float",
            "note",
            worst,
            f"The quantized model answers otherwise than its source at {worst!r}: {ratios[worst]:.1f} dB of signal to "
            f"noise over {rows} {'row' if rows == 1 else 'rows'}.",
            "Measure what it costs with --eval; --diagnose names the layer and the samples that do it.",
        ),
    )


def _sqnr_db(expected: Array, got: Array) -> float:
    """The ratio of the signal's power to the noise's in decibels; infinite where there is no noise or no signal."""
    import numpy as np

    if expected.shape != got.shape:
        return math.inf
    finite = np.isfinite(expected)
    signal = float(np.square(expected[finite], dtype=np.float64).sum())
    noise = float(np.square(expected[finite].astype(np.float64) - got[finite]).sum())
    return 10 * math.log10(signal / noise) if signal and noise else math.inf
