"""The gates on the ratio of a release's latency to that of the active one; pure.

1. By ``gate = "point"`` the estimate decides; where the interval reaches beyond the limit all the same, it passes with
   a warning.
2. By ``gate = "confident"`` the interval decides: all of it within the limit passes, all of it beyond fails, and with
   the limit inside of it the check is inconclusive.
3. A ratio that is not known is inconclusive, never a pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from edgepack.check.against import pairs_to_settle
from edgepack.checkdocuments import Gate, Ratio
from edgepack.target import Budget
from edgepack.words import shown_number

PASS, FAIL, INCONCLUSIVE = "pass", "fail", "inconclusive"


def ratio_limits(budget: Budget) -> dict[str, float]:
    """Which statistics have a limit: "p50" or "p95", to the largest ratio that is allowed."""
    limits = {"p50": budget.max_p50_ratio, "p95": budget.max_p95_ratio}
    return {statistic: limit for statistic, limit in limits.items() if limit is not None}


def ratio_gates(ratios: Sequence[Ratio], budget: Budget, untold: Callable[[str, str], Gate | None]) -> list[Gate]:
    """One gate a limit. ``untold(shown, key)`` is the gate of a time that says nothing about the device, else None."""
    by_statistic: Mapping[str, Ratio] = {ratio.statistic: ratio for ratio in ratios}
    gates = []
    for statistic, limit in ratio_limits(budget).items():
        key, ratio = f"max_{statistic}_ratio", by_statistic.get(statistic)
        if ratio is None:
            why = "too few pairs of blocks were run (raise --max-seconds)" if ratios else "check --against current"
            reason = f"The ratio of {statistic} to that of the active release is not known (limit {limit:g}): {why}."
            gates.append(Gate(key, INCONCLUSIVE, reason))
            continue
        void = untold(f"{statistic} was {_times(ratio, limit)} (limit {limit:g})", key)
        gates += [void] if void is not None else _held(key, ratio, limit, sure=budget.gate == "confident")
    return gates


def _held(key: str, ratio: Ratio, limit: float, *, sure: bool) -> list[Gate]:
    low, high = shown_number(ratio.low, 3, limit), shown_number(ratio.high, 3, limit)
    interval = f"{ratio.confidence:.0%} interval {low} to {high}, {ratio.pairs} pairs of blocks"
    shown = f"{ratio.statistic} is {_times(ratio, limit)} ({interval})"
    within, beyond = f"{shown}, within {limit:g}.", f"{shown}, more than {limit:g}."
    if sure and ratio.low <= limit < ratio.high:
        return [
            Gate(key, INCONCLUSIVE, f"{shown}: the limit of {limit:g} lies in that interval; {_more(ratio, limit)}.")
        ]
    if ratio.estimate > limit:
        return [Gate(key, FAIL, beyond)]
    passed = Gate(key, PASS, within)
    if ratio.high <= limit:
        return [passed]
    warning = (
        f"Warning: {ratio.pairs} pairs of blocks do not settle the ratio of {ratio.statistic}, whose interval reaches"
        f" to {high}, beyond {limit:g}: {_more(ratio, limit)} (gate = confident would not pass it)."
    )
    return [passed, Gate(f"{key}_pairs", PASS, warning)]


def _times(ratio: Ratio, limit: float) -> str:
    return f"{shown_number(ratio.estimate, 3, limit)} times that of {ratio.release}"


def _more(ratio: Ratio, limit: float) -> str:
    pairs = pairs_to_settle(ratio, limit)
    if pairs is None:
        return "no number of pairs settles it, so near to the limit the ratio lies"
    return f"about {pairs:,} pairs would settle it (raise --min-seconds)"
