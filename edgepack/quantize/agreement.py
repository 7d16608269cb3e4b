"""Whether a converted model answers as its source does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgepack.errors import MisfitError

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
        limit = _TOLERANCE * float(np.abs(expected).max(initial=0)) + _ABSOLUTE_TOLERANCE
        got = converted.get(name)
        if got is None or got.shape != expected.shape or not float(np.abs(got - expected).max(initial=0)) <= limit:
            raise MisfitError(
                "conversion-differs",
                f"The converted model answers differently from its source at {name!r}.",
                hint="TensorFlow's converter got it wrong: export the model as a SavedModel and try that.",
            )
