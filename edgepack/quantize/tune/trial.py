"""What came of trying a candidate, as a value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgepack.documents import Accuracy, LatencyMs, LayerError
from edgepack.quantize.tune.candidates import Candidate


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a device said about a model: its latency, and the accuracy drop there (None without labels or reference).

    ``refused`` is why the device, or a limit of its profile, does not take the model; None where it does.
    """

    latency_ms: LatencyMs | None
    drop: float | None = None
    refused: str | None = None

    @property
    def typical_ms(self) -> float | None:
        """The median, or the mean where the runs were too few for one."""
        if self.latency_ms is None:
            return None
        return self.latency_ms.mean if self.latency_ms.p50 is None else self.latency_ms.p50


Measure = Callable[[Path], Measurement]
"""Measures a .tflite, which has its check set beside it, on the device that it is for."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A candidate that was made and evaluated, or the ``reason`` why the target cannot have it.

    ``layers`` are the errors of its layers where the drop was more than the budget.
    """

    candidate: Candidate
    reason: str | None = None
    bytes: int = 0
    sha256: str = ""
    accuracy: Accuracy | None = None
    layers: tuple[LayerError, ...] = ()
    measurement: Measurement | None = None

    @property
    def refusal(self) -> str | None:
        """Why neither the target nor the device can have it; None where they can."""
        return self.reason or (self.measurement.refused if self.measurement else None)

    @property
    def legal(self) -> bool:
        """Whether the target takes it."""
        return self.refusal is None

    @property
    def drop(self) -> float:
        """How much accuracy it costs: on this machine, or on the device where that is more."""
        found = [self.accuracy.drop if self.accuracy else None, self.measurement.drop if self.measurement else None]
        return max((drop for drop in found if drop is not None), default=float("inf"))

    @property
    def latency_ms(self) -> float | None:
        """On the device, in milliseconds; None where it was not measured."""
        return self.measurement.typical_ms if self.measurement else None

    def keeps(self, max_drop: float) -> bool:
        """Whether the target can have it within the budget."""
        return self.legal and self.drop <= max_drop + ROUNDING


# A drop is the difference of two shares: 0.9 - 0.89 is a little more than 0.01.
ROUNDING = 1e-9
