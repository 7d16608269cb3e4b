"""The candidates as documents and errors tell them; pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgepack.documents import TunedCandidate
from edgepack.quantize.tune.pareto import Point, pareto_front
from edgepack.quantize.tune.trial import Made, Trial, made_of


def told(trials: Sequence[Trial], chosen: Trial | None = None) -> tuple[TunedCandidate, ...]:
    """Each trial with its costs, in the same order, and which of them are on the Pareto front."""
    legal = [trial for trial in made_of(trials) if trial.legal]
    front = pareto_front([Point(trial.drop, trial.bytes, trial.latency_ms) for trial in legal])
    best = {trial.candidate for trial, on_front in zip(legal, front, strict=True) if on_front}
    return tuple(_told(trial, on_front=trial.candidate in best, chosen=trial is chosen) for trial in trials)


def _told(trial: Trial, *, on_front: bool, chosen: bool) -> TunedCandidate:
    conversion = trial.candidate.conversion
    made = trial if isinstance(trial, Made) else None
    measured = made.measurement if made else None
    return TunedCandidate(
        name=trial.candidate.name,
        scheme=str(conversion.scheme),
        engine=conversion.engine,
        bytes=made.bytes if made else None,
        drop=made.drop if made and math.isfinite(made.drop) else None,
        interval=made.accuracy.interval if made else None,
        latency_ms=measured.latency_ms if measured else None,
        legal=made is not None and made.legal,
        reason=trial.reason,
        on_front=on_front,
        chosen=chosen,
        float_layers=conversion.float_layers,
        int16_layers=conversion.int16_layers,
        inconclusive=measured.inconclusive if measured else None,
    )
