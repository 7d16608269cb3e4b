"""What came of trying a candidate, as a value."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from edgepack.documents import Accuracy, LatencyMs, LayerError
from edgepack.quantize.tune.candidates import Candidate


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a device said about a model: its latency, and the accuracy drop there (None without labels or reference).

    ``refused`` is why the device, or a limit of its profile, does not take the model; None where it does.
    ``inconclusive`` is why a latency that was measured says nothing; ``latency_ms`` is None then.
    """

    latency_ms: LatencyMs | None
    drop: float | None = None
    refused: str | None = None
    inconclusive: str | None = None

    @property
    def typical_ms(self) -> float | None:
        """The median, or the mean where the runs were too few for one."""
        if self.latency_ms is None:
            return None
        return self.latency_ms.mean if self.latency_ms.p50 is None else self.latency_ms.p50


Measure = Callable[[Path], Measurement]
"""Measures a .tflite, which has its check set beside it, on the device that it is for."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A candidate that cannot be made, or that the target does not take, and the ``reason``."""

    candidate: Candidate
    reason: str


@dataclass(frozen=True, slots=True)
class Made:
    """A candidate that was made for the target and evaluated here, and measured on the device where that was wanted.

    ``layers`` are the errors of its layers where accuracy was beyond the budget. ``oversize`` and ``too_poor`` say how
    it breaks the budget's ``model_bytes`` and ``min_accuracy``; None where it does not.
    """

    candidate: Candidate
    bytes: int
    sha256: str
    accuracy: Accuracy
    layers: tuple[LayerError, ...] = ()
    measurement: Measurement | None = None
    oversize: str | None = None
    too_poor: str | None = None

    @property
    def refused(self) -> str | None:
        """Why the device does not take it; None where it does, or was not asked."""
        return self.measurement.refused if self.measurement else None

    @property
    def reason(self) -> str | None:
        """Why the target cannot have it, however accurate: it is too large, or the device does not take it."""
        return self.oversize or self.refused

    @property
    def legal(self) -> bool:
        """Whether the device takes it, as far as it was asked, and its size is allowed."""
        return self.reason is None

    @property
    def drop(self) -> float:
        """How much accuracy it costs: on this machine, or on the device where that is more."""
        found = [self.accuracy.drop, self.measurement.drop if self.measurement else None]
        return max((drop for drop in found if drop is not None), default=float("inf"))

    @property
    def latency_ms(self) -> float | None:
        """On the device, in milliseconds; None where it was not measured, or the measurement says nothing."""
        return self.measurement.typical_ms if self.measurement else None

    def within(self, max_drop: float) -> bool:
        """Whether it costs no more accuracy than that, here and on the device, and has the least that is asked."""
        return self.too_poor is None and self.drop <= max_drop + ROUNDING

    def keeps(self, max_drop: float) -> bool:
        """Whether the target can have it within the budget."""
        return self.legal and self.within(max_drop)


Trial = Made | Refused
"""What came of trying a candidate."""


def made_of(trials: Iterable[Trial]) -> list[Made]:
    """Those that could be made."""
    return [trial for trial in trials if isinstance(trial, Made)]


# A drop is the difference of two shares: 0.9 - 0.89 is a little more than 0.01.
ROUNDING = 1e-9
