"""What a verdict says of parity: the device's outputs against those that the host computed; pure."""

from __future__ import annotations

from edgepack.documents import Gate, Parity
from edgepack.target import Budget


def parity_gates(parity: Parity | None, why_none: str, budget: Budget) -> list[Gate]:
    """The gates of what the budget says of parity, or a warning where it says nothing and the difference is too large.

    ``why_none`` is why there is no parity, where there is none.
    """
    gates = []
    if budget.max_parity_steps is not None:
        gates.append(_steps_gate(parity, why_none, budget.max_parity_steps))
    if budget.min_top1_agreement is not None:
        gates.append(_agreement_gate(parity, why_none, budget.min_top1_agreement))
    if not gates and parity is not None and not parity.tolerated:
        gates.append(Gate("parity", "pass", f"Warning: {_apart(parity)}{_told(parity)}."))
    return gates


def _steps_gate(parity: Parity | None, why_none: str, limit: float) -> Gate:
    key = "max_parity_steps"
    if parity is None or parity.max_steps is None:
        why = "no output is known to be an integer" if parity is not None else why_none
        return Gate(key, "inconclusive", f"Parity in quantization steps is not known (limit {limit:g}): {why}.")
    if parity.max_steps <= limit:
        return Gate(key, "pass", f"{_capital(_apart(parity))}, within {limit:g}.")
    return Gate(key, "fail", f"{_capital(_apart(parity))}, more than {limit:g}{_told(parity)}.")


def _agreement_gate(parity: Parity | None, why_none: str, least: float) -> Gate:
    key = "min_top1_agreement"
    if parity is None or parity.top1_agreement is None:
        why = "there are no classes to compare" if parity is not None else why_none
        return Gate(
            key, "inconclusive", f"The agreement with the host is not known (at least {least:g} is asked): {why}."
        )
    shown = f"Device and host name the same class in {parity.top1_agreement:.4f} of {parity.samples} samples"
    if parity.top1_agreement >= least:
        return Gate(key, "pass", f"{shown}, at least {least:g}.")
    return Gate(key, "fail", f"{shown}, less than {least:g}{_told(parity)}.")


def _apart(parity: Parity) -> str:
    if parity.max_steps is None:
        return f"device and host are up to {parity.max_abs_error:g} apart over {parity.samples} samples"
    return f"device and host are up to {parity.max_steps:g} quantization steps apart over {parity.samples} samples"


def _told(parity: Parity) -> str:
    """What was found when the layer was looked for, for the end of the sentence."""
    if parity.diverging is not None:
        return f"; the first layer that differs is {parity.diverging}"
    return f": {parity.cause}" if parity.cause else ""


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
