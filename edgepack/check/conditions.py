"""What a device's conditions say about its own times: whether they hold, and why not; pure.

What is asked here was recorded by the loader (docs/protocol.md, "A measurement"). A device that does not tell something
gives no sentence about it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any, NoReturn

from edgepack.errors import DeviceFailure

CLOCK_FALL = 0.85
"""A clock whose last third of looks is below this share of the first third's fell during the runs."""

FEWEST_LOOKS = 6
"""Fewer make no thirds to compare."""

_SWAPPED_BYTES = 1 << 20
_MOST_RUNS = 1_000_000
_LARGEST = 1 << 63


def unsound(measurement: Mapping[str, Any]) -> tuple[str, ...]:
    """In whole sentences, what voids a measurement whatever its budget asks for; empty where nothing does."""
    conditions = measurement.get("conditions") or {}
    slept, jump = conditions.get("slept_s") or 0.0, conditions.get("clock_jump_s") or 0.0
    times = measurement.get("latency_ns") or ()
    standing = sum(nanoseconds == 0 for nanoseconds in times)
    found = []
    if slept:
        found.append(f"The device slept for {slept:.1f} s during the measurement: check again.")
    if jump:
        found.append(
            f"The device's clock was set by {jump:+.1f} s during the measurement: check again once it stays right"
            " (`timedatectl` tells whether it is synchronized)."
        )
    if standing:
        found.append(
            f"{standing:,} of {len(times):,} runs took no time at all: the device's clock stands still or is too"
            " coarse, or the runtime did not run the model."
        )
    return tuple(found)


def instability(measurement: Mapping[str, Any]) -> tuple[str, ...]:
    """In whole sentences, why times of these minutes are not the device's own; empty where nothing says so."""
    conditions = measurement.get("conditions") or {}
    found = [_clock_fall(measurement.get("series") or (), conditions.get("governor"))]
    before, after = conditions.get("swap_used_before_bytes"), conditions.get("swap_used_bytes")
    if before is not None and after is not None and conditions.get("major_faults") and after - before > _SWAPPED_BYTES:
        found.append(f"The device swapped {after - before:,} bytes out during the runs: stop other programs.")
    return tuple(filter(None, found))


def _clock_fall(series: Sequence[Mapping[str, Any]], governor: object) -> str:
    clocks = [look["clock_khz"] for look in series if look.get("run") and look.get("clock_khz")]
    third = len(clocks) // 3
    if len(clocks) < FEWEST_LOOKS or median(clocks[-third:]) >= CLOCK_FALL * median(clocks[:third]):
        return ""
    first, last = (median(part) / 1000 for part in (clocks[:third], clocks[-third:]))
    return (
        f"The CPU's clock fell from {first:,.0f} to {last:,.0f} MHz during the runs"
        + (f" (governor {governor})" if governor else "")
        + ": cool the device, or fix its clock."
    )


def was_hot(measurement: Mapping[str, Any]) -> bool:
    """Whether waiting may help: a real device was throttled, or its clock fell."""
    conditions = measurement.get("conditions") or {}
    fell = bool(_clock_fall(measurement.get("series") or (), None))
    return (conditions.get("throttled") is True or fell) and conditions.get("emulated") is not True


def require_sound(measurement: Mapping[str, Any], device: str) -> None:
    """Raises DeviceFailure "measure-failed" where a field of a device's measurement is not of its kind."""
    parts = {"": measurement, **{f"{key}.": measurement.get(key) for key in ("conditions", "delegate", "runtime")}}
    for prefix, part in parts.items():
        if part is not None and not isinstance(part, Mapping):
            _refuse(device, prefix[:-1], part, "an object")
        for (where, key), (wanted, is_so) in _KINDS.items():
            value = part.get(key) if part is not None and where == prefix else None
            if value is not None and not is_so(value):
                _refuse(device, prefix + key, value, wanted)


def _refuse(device: str, name: str, value: object, wanted: str) -> NoReturn:
    raise DeviceFailure(
        "measure-failed",
        f"What {device} measured cannot be believed: its {name} is {str(value)[:60]!r} instead of {wanted}.",
        hint="Push the bundle again, then check again: the loader on the device may be damaged.",
    )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -_LARGEST < value < _LARGEST


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < _LARGEST


def _are_times(value: object) -> bool:
    return isinstance(value, list) and len(value) <= _MOST_RUNS and all(map(_is_count, value))


def _are_looks(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(look, Mapping) and all(isinstance(one, bool) or _is_number(one) for one in look.values())
        for look in value
    )


def _are_words(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) and len(word) < 80 for word in value)


_TIMES = ("times in nanoseconds", _are_times)
_NUMBER = ("a number", _is_number)
_COUNT = ("a count", _is_count)
_KINDS: Mapping[tuple[str, str], tuple[str, Callable[[object], bool]]] = {
    ("", "latency_ns"): _TIMES,
    ("", "warmup_ns"): _TIMES,
    ("", "series"): ("looks at the device", _are_looks),
    **{("", key): _NUMBER for key in ("load_ms", "cold_load_ms", "first_ms", "import_ms")},
    ("", "peak_rss_bytes"): _COUNT,
    ("", "every"): _COUNT,
    ("conditions.", "throttled"): ("true or false", lambda value: isinstance(value, bool)),
    ("conditions.", "throttled_by"): ("a list of words", _are_words),
    **{("conditions.", key): _NUMBER for key in ("clock_jump_s", "slept_s", "temperature_c", "load1")},
    **{("conditions.", key): _COUNT for key in ("major_faults", "swap_used_before_bytes", "swap_used_bytes")},
    ("delegate.", "operators"): _COUNT,
    ("delegate.", "share"): _NUMBER,
}
