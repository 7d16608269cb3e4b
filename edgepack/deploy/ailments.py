"""What is wrong with a device itself, whatever model it gets, and what mends it: pure functions of a probe's facts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

# A Raspberry Pi slows down from 80 °C on. https://www.raspberrypi.com/documentation/computers/processors.html
_HOT_C = 80.0
# What the loader and a small model need: the agent refuses to measure below the model's size and this.
_LITTLE_MEMORY_BYTES = 100_000_000
# ai-edge-litert and NumPy take some 100 MB unpacked, and while they are staged their wheels lie beside them.
_LITTLE_DISK_BYTES = 200_000_000
# Beyond this, a release's and a log's time mislead people; less comes from reading two clocks over a network.
_SKEW_S = 60.0

_SUPPLY = "use the power supply that the board's maker sells for it, and a short cable"
_COOLING = "give it a heat sink or a fan"
_THROTTLED = {
    "undervoltage": ("its supply voltage is too low", _SUPPLY),
    "frequency_capped": ("its clock rate is capped", _SUPPLY),
    "throttled": ("its firmware throttles it", _COOLING),
    "soft_temperature_limit": ("its soft temperature limit is reached", _COOLING),
}


def find_ailments(facts: Mapping[str, Any]) -> tuple[dict[str, str], ...]:
    """Each trouble as ``what`` and ``mend``, in the words of a person; none where nothing is known to be wrong."""
    pairs = [*_power(facts), *_heat(facts), *_room(facts), *_clock(facts)]
    return tuple({"what": what, "mend": mend} for what, mend in pairs)


def _power(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    told = facts.get("throttling") or {}
    now, before = told.get("now") or (), told.get("since_boot") or ()
    for name, (what, mend) in _THROTTLED.items():
        if name in now:
            yield f"{what} now: what is measured is not what the board can do", mend
        elif name in before:
            yield f"since it started, {what.replace(' is ', ' was ').replace('throttles', 'throttled')} at times", mend
    if facts.get("undervoltage") and "undervoltage" not in now:
        yield "its supply voltage is too low now", _SUPPLY
    if on_battery(facts.get("power") or ()):
        yield "it runs on battery, which may slow it down", "plug it in before a check"


def on_battery(supplies: Any) -> bool | None:
    """True where a battery is being emptied and no mains is connected; None where the kernel names no battery.

    Words of https://docs.kernel.org/power/power_supply_class.html.
    """
    batteries = [supply for supply in supplies if supply.get("type") == "Battery"]
    if not batteries:
        return None
    plugged = any(supply.get("type") != "Battery" and supply.get("online") == "1" for supply in supplies)
    return not plugged and any(supply.get("status") == "Discharging" for supply in batteries)


def hottest_c(facts: Mapping[str, Any]) -> float | None:
    """The highest temperature that the device's thermal zones tell."""
    degrees = [zone.get("temperature_c") for zone in facts.get("thermal") or ()]
    return max((one for one in degrees if one is not None), default=None)


def _heat(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    degrees = hottest_c(facts)
    if degrees is not None and degrees >= _HOT_C:
        yield f"it is {degrees:.0f} °C hot and may throttle", _COOLING


def _room(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    memory, disk = facts.get("memory_available_bytes"), facts.get("disk_free_bytes")
    if memory is not None and memory < _LITTLE_MEMORY_BYTES:
        yield f"only {memory / 1e6:.0f} MB of memory are free", "stop other programs on it"
    if disk is not None and disk < _LITTLE_DISK_BYTES:
        yield f"only {disk / 1e6:.0f} MB of disk are free", "edgepack gc DEVICE"


def _clock(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    clock = facts.get("clock") or {}
    skew_s = clock.get("skew_s")
    if skew_s is not None and abs(skew_s) > _SKEW_S + clock.get("within_s", 0.0):
        yield (
            f"its clock is {duration(abs(skew_s))} {'ahead of' if skew_s > 0 else 'behind'} this machine's",
            "sudo timedatectl set-ntp true",
        )


def duration(seconds: float) -> str:
    """A time span for people: ``0.2 s``, ``5 min``, ``3 h``, ``41 days``."""
    for unit, length_s in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
