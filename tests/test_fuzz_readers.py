"""The readers of what strangers write: a short seed of what benchmarks/fuzz.py does 100,000 times."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzzing import ROOMS, Room, try_room
from fuzzing_pinned import PINNED, signatures


@pytest.fixture(scope="module", autouse=True)
def _signed() -> None:
    """What takes programs is made before none may be started."""
    signatures()


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("room", [*ROOMS, PINNED], ids=lambda room: room.name)
def test_hostile_input_ends_in_a_named_error(room: Room, tmp_path: Path) -> None:
    """Whatever a bundle, a wheel or the other side says: a named error, nothing started, nothing written elsewhere."""
    try_room(room, tmp_path, 60)
