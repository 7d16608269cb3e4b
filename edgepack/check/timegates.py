"""The gates of times: percentiles of latency, loading, the first inference; pure.

1. By ``gate = "point"`` the percentile decides, and its 95 % interval stands beside it.
2. By ``gate = "confident"`` a percentile beyond its limit fails, and one within it passes only where the upper end of
   its interval is within it too; otherwise it is inconclusive, and the reason says how many runs would settle it.
   Without an interval it is inconclusive.
3. What is measured once (loading, the first inference) has no interval: both kinds of gate hold its value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from edgepack.checkdocuments import Gate, Interval
from edgepack.statistics import MIN_RUNS, latency_intervals, percentile, runs_to_settle
from edgepack.target import Budget
from edgepack.words import shown_number

PASS, FAIL, INCONCLUSIVE = "pass", "fail", "inconclusive"
ONCE = {
    "load_ms": ("Loading", "The time to load"),
    "cold_load_ms": ("Loading with cold file caches", "The time to load with cold file caches"),
    "first_ms": ("The first inference", "The time of the first inference"),
}
"""What is measured once, by the budget's keys: the words for what takes the time, and for the time."""

Untold = Callable[[str, str], Gate | None]


def latency_gates(latency_ms: Sequence[float], budget: Budget, untold: Untold) -> list[Gate]:
    """One gate a limit. ``untold(shown, key)`` is the gate of a time that says nothing about the device, else None."""
    limits = {p: limit for p in MIN_RUNS if (limit := getattr(budget, f"p{p}_ms")) is not None}
    intervals = latency_intervals(latency_ms) if limits and len(latency_ms) >= min(MIN_RUNS.values()) else None
    sure = budget.gate == "confident"
    return [
        _latency_gate(latency_ms, p, limit, getattr(intervals, f"p{p}", None), untold, sure=sure)
        for p, limit in limits.items()
    ]


def once_gates(times_ms: Mapping[str, float | None], budget: Budget, untold: Untold) -> list[Gate]:
    """One gate a limit of what is measured once; ``times_ms`` has every key of :data:`ONCE`."""
    limits = {key: limit for key in ONCE if (limit := getattr(budget, key)) is not None}
    return [_once_gate(key, times_ms[key], limit, untold) for key, limit in limits.items()]


def _latency_gate(
    latency_ms: Sequence[float], p: int, limit_ms: float, interval: Interval | None, untold: Untold, *, sure: bool
) -> Gate:
    name, key, runs, needed = f"p{p} latency", f"p{p}_ms", len(latency_ms), MIN_RUNS[p]
    if runs < needed:
        reason = f"{name} is not known: {runs} runs were made, {needed} are needed (raise --max-seconds)."
        return Gate(key, INCONCLUSIVE, reason)
    if not all(math.isfinite(sample) and sample >= 0 for sample in latency_ms):
        return Gate(key, INCONCLUSIVE, f"{name} is not known: the device reported latencies that are no times.")
    value = percentile(latency_ms, p)
    shown = f"{shown_number(value, 3, limit_ms)} ms"
    if (void := untold(f"{name} was {shown} (limit {limit_ms:g} ms)", key)) is not None:
        return void
    middle = runs // 2
    first, second = (percentile(half, p) for half in (latency_ms[:middle], latency_ms[middle:]))
    if (first <= limit_ms) != (second <= limit_ms):
        reason = (
            f"{name} is unstable: {shown_number(first, 3, limit_ms)} ms in the first half of {runs} runs, "
            f"{shown_number(second, 3, limit_ms)} ms in the second, on both sides of the limit of {limit_ms:g} ms."
        )
        return Gate(key, INCONCLUSIVE, reason)
    told = f"{name} is {shown} over {runs} runs{_between(interval, limit_ms)}"
    point = _at_most(key, told, value, limit_ms)
    if not sure or point.outcome == FAIL:
        return point
    return _sure(point, told, interval, limit_ms, lambda: runs_to_settle(latency_ms, p, limit_ms))


def _sure(point: Gate, told: str, interval: Interval | None, limit_ms: float, more: Callable[[], int | None]) -> Gate:
    """What passes by its percentile, held by the upper end of its interval as well."""
    if interval is None:
        reason = (
            f"{told}, but no interval holds, and gate = confident asks for one: the runs depend on each other for too "
            "long, or too few lie beyond the percentile (raise --min-seconds)."
        )
        return Gate(point.name, INCONCLUSIVE, reason)
    if interval.high <= limit_ms:
        return Gate(point.name, PASS, f"{told}, all of it within {limit_ms:g} ms.")
    runs = more()
    settled = "no number of runs is known to settle it" if runs is None else f"about {runs:,} more runs would settle it"
    reason = (
        f"{told}, and the upper end of that interval is more than {limit_ms:g} ms: {settled} (raise --min-seconds)."
    )
    return Gate(point.name, INCONCLUSIVE, reason)


def _once_gate(key: str, value: float | None, limit_ms: float, untold: Untold) -> Gate:
    doing, name = ONCE[key]
    if value is None or not math.isfinite(value):
        return Gate(key, INCONCLUSIVE, f"{name} was not measured (limit {limit_ms:g} ms).")
    shown = f"{shown_number(value, 1, limit_ms)} ms"
    void = untold(f"{doing} took {shown} (limit {limit_ms:g} ms)", key)
    return void or _at_most(key, f"{doing} takes {shown}", value, limit_ms)


def _between(interval: Interval | None, limit_ms: float) -> str:
    if interval is None:
        return ""
    low, high = (shown_number(end, 3, limit_ms) for end in (interval.low, interval.high))
    return f" ({interval.confidence:.0%} interval {low} to {high} ms)"


def _at_most(key: str, shown: str, value: float, limit_ms: float) -> Gate:
    """A plain limit; a value that is no number never keeps to one."""
    if value <= limit_ms:
        return Gate(key, PASS, f"{shown}, within {limit_ms:g} ms.")
    return Gate(key, FAIL, f"{shown}, more than {limit_ms:g} ms.")
