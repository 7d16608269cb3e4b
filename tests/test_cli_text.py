"""What commands print for people: short, with units, nothing that is normal."""

from __future__ import annotations

from typing import Any

import pytest

from edgepack.cli import render
from edgepack.documents import CheckDocument, LatencyMs, StatusDocument


def checked(conditions: dict[str, Any]) -> str:
    """The line on conditions of a check that was made under them."""
    latency = LatencyMs(None, None, None, None, None, None, 0)
    document = CheckDocument(
        verdict="pass", reasons=(), app="kws", release="1-0", latency_ms=latency, load_ms=None, peak_rss_bytes=None,
        model_bytes=1, accuracy=None, parity=None, device={}, runtime={}, conditions=conditions, budget={}, seconds=1.0,
    )  # fmt: skip
    return next(line for line in render.checked(document).splitlines() if line.startswith("conditions")).split("  ")[-1]


@pytest.mark.parametrize(
    ("conditions", "told"),
    [
        ({"load1": 4.07, "memory_available_bytes": 23828123648, "emulated": False}, "load 4.1, 23.8 GB free"),
        (
            {"throttled": False, "throttled_before": 0, "throttled_after": 0, "temperature_c": 51.5, "load1": 0.0},
            "not throttled, 52 °C, load 0.0",
        ),
        ({"throttled": True, "governor": "powersave", "emulated": True}, "throttled, governor powersave, emulated"),
        ({"throttled": None, "emulated": False}, "none could be read"),
    ],
)
def test_conditions_are_told_for_people(conditions: dict[str, Any], told: str) -> None:
    """Units and short numbers; what is normal, or could not be read, is left out."""
    assert checked(conditions).strip() == told


def test_a_check_that_could_not_tell_stands_beside_the_pass() -> None:
    """`status` shows both words of an active release that was checked again without a result."""
    releases = ({"release": "1-0", "bytes": 1, "verdict": "pass", "rechecked": "inconclusive"},)
    assert "pass, later inconclusive" in render.status(StatusDocument("kws", "1-0", None, None, releases, None))
