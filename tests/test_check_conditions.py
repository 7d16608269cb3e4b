"""What the conditions of a measurement say about it."""

from __future__ import annotations

import math
from typing import Any

import pytest

from edgepack.check.conditions import instability, require_sound, unsound
from edgepack.errors import DeviceFailure

GOOD: dict[str, Any] = {
    "latency_ns": [1000, 1100],
    "warmup_ns": [],
    "series": [{"at_s": 0.5, "run": 1, "clock_khz": 1_500_000, "under_voltage": False}],
    "conditions": {"throttled": None, "clock_jump_s": 0.0, "slept_s": 0.0, "swap_used_bytes": 0},
    "delegate": None,
    "load_ms": 1.5,
}


def clocks(*megahertz: int, governor: str = "ondemand") -> dict[str, Any]:
    """A measurement whose clock went so, look after look; the look before the first run does not count."""
    looks = [{"run": run, "clock_khz": each * 1000} for run, each in enumerate((4000, *megahertz))]
    return {"series": looks, "conditions": {"governor": governor}}


def test_a_quiet_device_gives_no_reason() -> None:
    """Where nothing was told, or all of it is as it should be, there is nothing to say."""
    assert unsound(GOOD) == unsound({}) == instability(GOOD) == instability({}) == ()
    require_sound(GOOD, "pi")
    require_sound({}, "pi")


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"conditions": {"clock_jump_s": -37.25}}, "clock was set by -37.2 s"),
        ({"conditions": {"slept_s": 12.0}}, "slept for 12.0 s"),
        ({"latency_ns": [0, 1000, 0]}, "2 of 3 runs took no time at all"),
    ],
)
def test_what_voids_a_measurement_has_a_reason_of_its_own(found: dict[str, Any], said: str) -> None:
    """A clock that jumps, a device that slept and an invoke that takes no time are told apart."""
    (reason,) = unsound(found)
    assert said in reason


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (clocks(1800, 1800, 1800, 1800, 1200, 1200), "fell from 1,800 to 1,200 MHz"),
        (clocks(1800, 600, 1800, 1800, 600, 1800), ""),
        (clocks(600, 600, 1800, 1800, 1800, 1800), ""),
        (clocks(1800, 1800, 600, 600, 600), ""),
        ({"conditions": {"swap_used_before_bytes": 0, "swap_used_bytes": 9 << 20, "major_faults": 4}}, "swapped"),
        ({"conditions": {"swap_used_before_bytes": 0, "swap_used_bytes": 9 << 20, "major_faults": 0}}, ""),
    ],
)
def test_a_clock_that_falls_and_a_device_that_swaps_are_unsteady(found: dict[str, Any], said: str) -> None:
    """A clock that goes up and down, or ran up at the start, is no reason; one that falls for good is."""
    reasons = instability(found)
    assert len(reasons) == bool(said)
    assert said in "".join(reasons)


@pytest.mark.parametrize(
    "wrong",
    [
        {"latency_ns": "fast"},
        {"latency_ns": [1.5]},
        {"latency_ns": [True]},
        {"latency_ns": [-1]},
        {"latency_ns": [1 << 70]},
        {"warmup_ns": {"0": 1}},
        {"series": [[1]]},
        {"series": [{"clock_khz": "1500000"}]},
        {"load_ms": math.nan},
        {"cold_load_ms": "1"},
        {"peak_rss_bytes": -5},
        {"conditions": []},
        {"conditions": {"throttled": "no"}},
        {"conditions": {"throttled_by": 7}},
        {"conditions": {"clock_jump_s": "later"}},
        {"delegate": {"operators": "all"}},
        {"runtime": "tflite"},
    ],
)
def test_rubbish_from_a_loader_is_a_named_failure(wrong: dict[str, Any]) -> None:
    """A measurement whose fields are not what they should be is no measurement: it names the field and never passes."""
    with pytest.raises(DeviceFailure, match=f"its {next(iter(wrong))}.* is .* instead of") as caught:
        require_sound({**GOOD, **wrong}, "pi")
    assert (caught.value.code, caught.value.exit_code) == ("measure-failed", 7)
