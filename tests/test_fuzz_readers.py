"""The readers of what strangers write: a short seed of what benchmarks/fuzz.py does 100,000 times."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fuzzing import GUARD, ROOMS, Room
from hypothesis import HealthCheck, Phase, given, settings


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_hostile_input_ends_in_a_named_error(room: Room, tmp_path: Path) -> None:
    """Whatever a bundle, a wheel or the other side says: a named error, nothing started, nothing written elsewhere."""

    @settings(
        max_examples=60,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    @given(room.cases)
    def run(case: Any) -> None:
        with GUARD.on(tmp_path):
            room.try_case(case, tmp_path)

    run()
