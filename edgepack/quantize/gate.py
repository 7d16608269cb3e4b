"""Whether a model keeps to the limits of its budget that are known without a device: pure, as ``check`` judges them.

A drop beyond the limit by its point estimate breaks the budget, and so do an accuracy below ``min_accuracy`` and a file
larger than ``model_bytes``. Where the budget says ``gate = "confident"`` and only the one-sided 95 % bound of the drop
is beyond its limit, nothing is settled: neither kept nor broken.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgepack.documents import Accuracy, Finding
from edgepack.metric import Drop
from edgepack.statistics import DROP_ROUNDING, ONE_SIDED_95
from edgepack.target import Budget
from edgepack.words import settled_by, shown_number

OVER_BUDGET = "over-budget"
UNSETTLED = "budget-unsettled"


@dataclass(frozen=True, slots=True)
class BudgetGate:
    """``within`` the limits, or None where that is not known; and the notes that say why."""

    within: bool | None = None
    findings: tuple[Finding, ...] = ()


def judge_budget(
    model_bytes: int, drop: Drop | None, accuracy: Accuracy | None, budget: Budget, max_drop: float | None
) -> BudgetGate:
    """Hold a model of ``model_bytes`` against every limit; ``max_drop`` is that of the drop.

    One that is broken breaks the budget, else one that is not known leaves it unknown; without a limit nothing is
    known. ``accuracy`` and ``drop`` are None where nothing was measured.
    """
    gates = []
    if max_drop is not None:
        gates.append(judge_drop(drop, max_drop, confident=budget.gate == "confident"))
    if budget.min_accuracy is not None:
        gates.append(judge_floor(accuracy, budget.min_accuracy))
    if budget.model_bytes is not None:
        gates.append(judge_size(model_bytes, budget.model_bytes))
    outcomes = {gate.within for gate in gates}
    within = next((outcome for outcome in (False, None, True) if outcome in outcomes), None)
    return BudgetGate(within, tuple(found for gate in gates for found in gate.findings))


def judge_drop(drop: Drop | None, limit: float | None, *, confident: bool) -> BudgetGate:
    """Hold a drop against the limit; where there is neither or one of them only, nothing is known."""
    if drop is None or limit is None:
        return BudgetGate()
    shown = f"{'growth' if drop.metric.smaller_is_better else 'drop'} {drop.value:+.4f} of {drop.metric.name}"
    if not drop.value <= limit + DROP_ROUNDING:
        return _broken(drop.metric.name, f"{shown} is more than {limit:g}.", _LOST)
    if not confident:
        return BudgetGate(True)
    bounds = drop.interval(ONE_SIDED_95)
    if bounds is not None and math.isfinite(bounds.high) and bounds.high <= limit + DROP_ROUNDING:
        return BudgetGate(True)
    if bounds is None:
        bound, cure = "has no confidence bound", "Evaluate on more samples."
    else:
        bound, cure = (
            f"has the 95 % upper bound {bounds.high:+.4f}",
            f"{_sentence(settled_by(drop.needed_samples(limit)))}.",
        )
    message = f"{shown} {bound}, and gate = confident asks for one of at most {limit:g}."
    return BudgetGate(None, (_note(UNSETTLED, drop.metric.name, message, cure),))


def judge_floor(accuracy: Accuracy | None, floor: float | None) -> BudgetGate:
    """Hold an accuracy against the least that is asked; an error, of which less is better, settles nothing."""
    if accuracy is None or floor is None:
        return BudgetGate()
    value = accuracy.quantized
    shown = f"accuracy {shown_number(round(value, 9), 4, floor)} of {accuracy.metric}"
    if accuracy.smaller_is_better:
        message = f"{shown}: less of it is better, so that min_accuracy {floor:g} says nothing."
        return BudgetGate(None, (_note(UNSETTLED, "min_accuracy", message, "Use max_accuracy_drop."),))
    if value >= floor - DROP_ROUNDING:
        return BudgetGate(True)
    message, reference = f"{shown} is less than min_accuracy {floor:g}", accuracy.reference
    if reference is None or reference >= floor - DROP_ROUNDING:
        return _broken("min_accuracy", f"{message}.", _LOST)
    had = shown_number(round(reference, 9), 4, floor)
    cure = "Train a better model, or lower min_accuracy in [budget]."
    return _broken("min_accuracy", f"{message}, and the float model itself has {had}.", cure)


def judge_size(model_bytes: int, limit: int | None) -> BudgetGate:
    """Hold the size of what the device gets against the most that is allowed."""
    if limit is None:
        return BudgetGate()
    if model_bytes <= limit:
        return BudgetGate(True)
    message = f"{model_bytes:,} bytes are more than model_bytes {limit:,}."
    return _broken("model_bytes", message, "Train a smaller model, or raise model_bytes in [budget].")


_LOST = "edgepack tune looks for a model that keeps to it; the layers' errors say where it is lost."


def _broken(subject: str, message: str, cure: str) -> BudgetGate:
    return BudgetGate(False, (_note(OVER_BUDGET, subject, message, cure),))


def _note(code: str, subject: str, message: str, cure: str) -> Finding:
    return Finding(code, "note", subject, _sentence(message), cure)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]
