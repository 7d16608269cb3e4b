"""How far an activation reaches, taken from what it was over the calibration samples.

"minmax" is what TFLiteConverter does: nothing is clipped, and one wild sample stretches the range for all. The others
give up its ends for finer steps; their names are those of TensorFlow's own quantizer
(tensorflow/compiler/mlir/quantization/stablehlo/quantization_config.proto, CalibrationOptions).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgepack.quantize.conversion import MINMAX

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

Range = tuple[float, float]
Activations = Callable[[], Iterator[Mapping[str, "Array"]]]

# Enough for a tail of one value in ten thousand to be several bins wide at an 8-bit step.
_BINS = 2048
# The share of the values that "percentile" lets lie beyond either end.
_TAIL = 1e-4
# The ends that "mse" tries, as shares of the whole reach: fine where it clips little.
_SHARES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05)
_STEPS = 255  # of 8 bits; 16 bits are never so short of them that clipping pays


@dataclass(slots=True)
class _Reach:
    """The outermost values of one activation, and the sums of each batch's."""

    low: float
    high: float
    low_sum: float
    high_sum: float
    batches: int


def measure_ranges(activations: Activations, method: str) -> dict[str, Range]:
    """The range of each activation, by name; ``activations`` yields, for each batch of samples, all of their values.

    "minmax" and "average" (of each batch's ends) run the samples once, "percentile" and "mse" (the ends that
    quantize to 8 bits with the smallest squared error) twice. Values that are not finite are left out of it.
    """
    reaches = _reaches(activations())
    if method == MINMAX:
        return {name: (reach.low, reach.high) for name, reach in reaches.items()}
    if method == "average":
        return {name: (one.low_sum / one.batches, one.high_sum / one.batches) for name, one in reaches.items()}
    choose = {"percentile": percentile_range, "mse": mse_range}[method]
    whole = {name: (reach.low, reach.high) for name, reach in reaches.items()}
    histograms = _histograms(activations(), whole)
    return {name: choose(histograms[name], reach) for name, reach in whole.items()}


def _reaches(batches: Iterator[Mapping[str, Array]]) -> dict[str, _Reach]:
    import numpy as np

    found: dict[str, _Reach] = {}
    for batch in batches:
        for name, values in batch.items():
            finite = values[np.isfinite(values)]
            if not finite.size:
                continue
            low, high = float(finite.min()), float(finite.max())
            reach = found.setdefault(name, _Reach(low, high, 0.0, 0.0, 0))
            reach.low, reach.high = min(reach.low, low), max(reach.high, high)
            reach.low_sum += low
            reach.high_sum += high
            reach.batches += 1
    return found


def _histograms(batches: Iterator[Mapping[str, Array]], reaches: Mapping[str, Range]) -> dict[str, Array]:
    """Counts over ``_BINS`` equal bins of each reach, without exact zeros: any scale has them exactly."""
    import numpy as np

    counts: dict[str, Array] = {name: np.zeros(_BINS, np.int64) for name in reaches}
    for batch in batches:
        for name, values in batch.items():
            low, high = reaches.get(name, (0.0, 0.0))
            if low < high:
                there = values[np.isfinite(values) & (values != 0)]
                places = ((there - low) * (_BINS / (high - low))).astype(np.intp)
                counts[name] += np.bincount(np.clip(places, 0, _BINS - 1), minlength=_BINS)
    return counts


def percentile_range(counts: Array, reach: Range) -> Range:
    """The range beyond whose ends lie, on either side, at most one in ten thousand of the counted values."""
    import numpy as np

    total = int(counts.sum())
    low, high = reach
    if not total or low == high:
        return reach
    edges = np.linspace(low, high, len(counts) + 1)
    below = np.concatenate([[0], np.cumsum(counts)])
    first = int(np.searchsorted(below, _TAIL * total, side="right")) - 1
    last = int(np.searchsorted(below, (1 - _TAIL) * total, side="left"))
    return float(edges[first]), float(edges[last])


def mse_range(counts: Array, reach: Range) -> Range:
    """The range with the smallest squared error of the counted values in 8 bits: rounding plus clipping.

    Rounding to steps of ``d`` costs d²/12 a value (Widrow: uniform noise), clipping the squared distance to the end.
    """
    import numpy as np

    low, high = min(reach[0], 0.0), max(reach[1], 0.0)  # a TFLite tensor can always say 0
    if not counts.sum() or low == high:
        return reach
    edges = np.linspace(*reach, len(counts) + 1)
    centres = (edges[:-1] + edges[1:]) / 2

    def cost(ends: Range) -> float:
        step = (ends[1] - ends[0]) / _STEPS
        beyond = np.maximum(ends[0] - centres, 0) + np.maximum(centres - ends[1], 0)
        inside = counts[beyond == 0].sum()
        return float(inside * step * step / 12 + (counts * beyond * beyond).sum())

    tried = [(low * a, high * b) for a in (_SHARES if low else (1.0,)) for b in (_SHARES if high else (1.0,))]
    return min(tried, key=cost)
