"""How far the device's outputs lie from those that the host computed with the same .tflite; pure.

Two runtimes may differ by a rounding here and there, which the specification of LiteRT's int8 allows ("not bit-exact",
https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec). More than that is another
model, another kernel, or an accelerator that computes something else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgepack.documents import Parity

Array = np.ndarray[Any, Any]

_PIECE_BYTES = 16 << 20

TOLERATED_STEPS = 2.0
"""Quantization steps: one of rounding in a layer, and one that it becomes further down."""
TOLERATED_SHARE = 0.01
"""Of the span of the host's numbers: two steps of an int8 tensor that uses all of its 256."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The largest difference of two arrays: as it is, in quantization steps (None for floats), as share of the span."""

    largest: float
    steps: float | None
    share: float

    @property
    def is_tolerated(self) -> bool:
        """Whether two runtimes may differ so."""
        return is_tolerated(self.steps, self.share)


def is_tolerated(steps: float | None, share: float) -> bool:
    """Few enough steps, or a small enough share: either is enough.

    A tensor that uses few of its steps has large shares, one of 16 bits has many steps.
    """
    return share <= TOLERATED_SHARE or (steps is not None and steps <= TOLERATED_STEPS)


def difference(ours: Array, theirs: Array, scale: float | None) -> Difference:
    """Of two arrays of one shape, in the host's (``theirs``) terms; ``scale`` is one quantization step.

    An infinity has no distance from another, and is left out.
    """
    ours, theirs = np.atleast_1d(ours), np.atleast_1d(theirs)
    largest, low, high = 0.0, np.inf, -np.inf
    for part in row_pieces(ours):
        finite = np.isfinite(ours[part]) & np.isfinite(theirs[part])
        found, wanted = (side[part][finite].astype(np.float64) for side in (ours, theirs))
        if wanted.size:
            largest = max(largest, float(np.abs(found - wanted).max()))
            low, high = min(low, float(wanted.min())), max(high, float(wanted.max()))
    span = max(high - low, 0.0)
    steps = None if not scale else round(largest / scale, 2)
    return Difference(largest, steps, _share(largest, span))


def row_pieces(array: Array) -> Iterator[slice]:
    """Rows at a time that are small enough to compute with: an array may be larger than the memory."""
    rows = max(1, _PIECE_BYTES // max(1, array[:1].nbytes))
    return (slice(start, start + rows) for start in range(0, len(array), rows))


def _share(largest: float, span: float) -> float:
    if largest == 0:
        return 0.0
    return min(largest / span, 1.0) if span > 0 else 1.0


def measure_parity(
    device: Mapping[str, Array],
    host: Mapping[str, Array],
    reference: Mapping[str, Array],
    scales: Mapping[str, float],
) -> Parity:
    """The largest difference over all outputs [N, ...], and the agreement of the top class of one that has classes.

    ``scales`` is one quantization step by output, for those that are integers on the device. ``reference`` are the
    float model's outputs, empty where there are none.
    """
    found = [difference(device[name], host[name], scales.get(name)) for name in device]
    worst = max(found, key=lambda one: (not one.is_tolerated, one.share))
    steps = [one.steps for one in found if one.steps is not None]
    return Parity(
        top1_agreement=_agreement(device, host),
        max_abs_error=max(one.largest for one in found),
        samples=_rows(device),
        max_steps=max(steps, default=None),
        reference_agreement=_agreement(device, reference) if reference else None,
        max_share=round(worst.share, 6),
        tolerated=all(one.is_tolerated for one in found),
    )


def worst_rows(device: Mapping[str, Array], host: Mapping[str, Array], count: int) -> tuple[int, ...]:
    """The samples in which device and host lie furthest apart, the worst first."""
    distance = np.zeros(_rows(device))
    for name, ours in device.items():
        theirs = host[name]
        largest = np.zeros(len(ours))
        low, high = np.inf, -np.inf
        for part in row_pieces(ours):
            wanted = theirs[part].astype(np.float64)
            with np.errstate(invalid="ignore"):
                apart = np.nan_to_num(np.abs(ours[part] - wanted), nan=0.0, posinf=0.0)
            largest[part] = apart.reshape(len(apart), -1).max(axis=1, initial=0.0)
            finite = wanted[np.isfinite(wanted)]
            if finite.size:
                low, high = min(low, float(finite.min())), max(high, float(finite.max()))
        distance = np.maximum(distance, largest / (high - low if high > low else 1.0))
    return tuple(int(row) for row in np.argsort(-distance, kind="stable")[:count])


def top_classes(outputs: Mapping[str, Array]) -> Array | None:
    """The number of each sample's largest score [N]; None where there are several outputs, or one score a sample."""
    if len(outputs) != 1:
        return None
    (scores,) = outputs.values()
    rows = scores.reshape(len(scores), -1)
    found: Array | None = rows.argmax(axis=1) if rows.shape[1] > 1 else None
    return found


def _agreement(one: Mapping[str, Array], other: Mapping[str, Array]) -> float | None:
    ours, theirs = top_classes(one), top_classes(other)
    return None if ours is None or theirs is None else float(np.mean(ours == theirs))


def _rows(outputs: Mapping[str, Array]) -> int:
    return len(next(iter(outputs.values())))
