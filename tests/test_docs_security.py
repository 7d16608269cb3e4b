"""docs/security.md claims nothing that no test shows."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "security.md"


def test_every_test_that_a_claim_rests_on_is_there() -> None:
    """A reader who looks a claim up finds the test of that name."""
    named = set(re.findall(r"`(test_\w+)`", PAGE.read_text()))
    there = {
        name for file in TESTS.rglob("test_*.py") for name in re.findall(r"^def (test_\w+)", file.read_text(), re.M)
    }
    assert len(named) > 20
    assert named <= there, named - there
