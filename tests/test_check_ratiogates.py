"""The gates on the ratio to the active release: pure, tested with plain values."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.check.verdict import FAIL, INCONCLUSIVE, PASS, Measured, judge
from edgepack.checkdocuments import Ratio
from edgepack.target import Budget

RATIO = Ratio(1.02, 1.01, 1.03, 0.99, "p95", 24, "1.4.0-0123456789ab")
MEASURED = Measured((1.0,) * 200, 1.0, 1000, 1000, ratios=(RATIO,))


@pytest.mark.parametrize(
    ("limit", "gate", "verdict", "says"),
    [
        (1.05, "point", PASS, "within 1.05"),
        (1.025, "point", PASS, "do not settle the ratio of p95"),
        (1.015, "point", FAIL, "more than 1.015"),
        (1.05, "confident", PASS, "within 1.05"),
        (1.025, "confident", INCONCLUSIVE, "pairs would settle it"),
        (1.015, "confident", INCONCLUSIVE, "lies in that interval"),
        (1.0, "confident", FAIL, "more than 1"),
    ],
)
def test_the_estimate_decides_or_the_interval(limit: float, gate: str, verdict: str, says: str) -> None:
    """The gate "point" holds the estimate and warns where it is not settled; "confident" wants the whole interval."""
    found = judge(MEASURED, None, None, Budget(max_p95_ratio=limit, gate=gate))
    assert found.verdict == verdict
    assert any(says in reason for reason in found.reasons)
    assert "p95 is 1.020 times that of 1.4.0-0123456789ab (99% interval 1.010 to 1.030" in found.reasons[0]


@pytest.mark.parametrize(
    ("measured", "says"),
    [
        (replace(MEASURED, ratios=()), "check --against current"),
        (replace(MEASURED, ratios=(replace(RATIO, statistic="p50"),)), "too few pairs of blocks"),
        (replace(MEASURED, emulated=True), "emulated device"),
        (replace(MEASURED, throttled=True), "throttled"),
    ],
)
def test_a_ratio_that_is_not_known_never_passes(measured: Measured, says: str) -> None:
    """Nothing compared, too few blocks, a device that was not itself: inconclusive, with the reason."""
    found = judge(measured, None, None, Budget(max_p95_ratio=1.05))
    assert found.verdict == INCONCLUSIVE
    assert says in found.reasons[0]


@given(estimate=st.floats(0.1, 10), spread=st.floats(1.0001, 2), limit=st.floats(0.1, 10))
def test_confident_is_never_milder_than_point(estimate: float, spread: float, limit: float) -> None:
    """What passes with "confident" passes with "point", and what "confident" fails "point" fails too."""
    ratio = replace(RATIO, estimate=estimate, low=estimate / spread, high=estimate * spread)
    measured = replace(MEASURED, ratios=(ratio,))
    point, sure = (
        judge(measured, None, None, Budget(max_p95_ratio=limit, gate=gate)).verdict for gate in ("point", "confident")
    )
    assert sure != PASS or point == PASS
    assert sure != FAIL or point == FAIL
