"""Whether what quantizing cost keeps to the budget: pure, and as the verdict of ``check`` has it.

A drop beyond the limit by its point estimate breaks the budget. Where the budget says ``gate = "confident"`` and only
the one-sided 95 % bound of the drop is beyond it, nothing is settled: neither kept nor broken.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgepack.documents import Finding
from edgepack.metric import Drop
from edgepack.statistics import DROP_ROUNDING, ONE_SIDED_95

OVER_BUDGET = "over-budget"
UNSETTLED = "budget-unsettled"


@dataclass(frozen=True, slots=True)
class DropGate:
    """``within`` the budget, or None where that is not known; and the notes that say why."""

    within: bool | None = None
    findings: tuple[Finding, ...] = ()


def judge_drop(drop: Drop | None, limit: float | None, *, confident: bool) -> DropGate:
    """Hold a drop against the limit; where there is neither or one of them only, nothing is known."""
    if drop is None or limit is None:
        return DropGate()
    shown = f"{'growth' if drop.metric.smaller_is_better else 'drop'} {drop.value:+.4f} of {drop.metric.name}"
    if not drop.value <= limit + DROP_ROUNDING:
        cure = "edgepack tune looks for a model that keeps to it; the layers' errors say where it is lost."
        return DropGate(False, (_note(OVER_BUDGET, drop, f"{shown} is more than {limit:g}.", cure),))
    if not confident:
        return DropGate(True)
    bounds = drop.interval(ONE_SIDED_95)
    if bounds is not None and math.isfinite(bounds.high) and bounds.high <= limit + DROP_ROUNDING:
        return DropGate(True)
    bound = "has no confidence bound" if bounds is None else f"has the 95 % upper bound {bounds.high:+.4f}"
    needed = drop.needed_samples(limit)
    cure = f"About {needed:,} evaluation samples would settle it." if needed else "Evaluate on more samples."
    message = f"{shown} {bound}, and gate = confident asks for one of at most {limit:g}."
    return DropGate(None, (_note(UNSETTLED, drop, message, cure),))


def _note(code: str, drop: Drop, message: str, cure: str) -> Finding:
    return Finding(code, "note", drop.metric.name, message[0].upper() + message[1:], cure)
