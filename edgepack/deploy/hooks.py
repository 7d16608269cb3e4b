"""What runs on the device after a switch, and decides whether it stays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Hooks:
    """Argument vectors that the device runs after ``current`` was swapped; None runs nothing.

    ``after_activate`` makes the user's program take up the release (say, restarts a service); ``health`` says whether
    it works then, tried again up to ``health_retries`` times. A hook that exits with anything but 0, or outlives its
    time, swaps back. Each run may take ``hook_timeout_s`` or ``health_timeout_s`` seconds.
    """

    after_activate: tuple[str, ...] | None = None
    health: tuple[str, ...] | None = None
    hook_timeout_s: float = 60.0
    health_timeout_s: float = 10.0
    health_retries: int = 3

    def to_json(self) -> Mapping[str, Any]:
        """The plain values that go to the device."""
        return {
            "after_activate": list(self.after_activate) if self.after_activate else None,
            "health": list(self.health) if self.health else None,
            "hook_timeout_s": self.hook_timeout_s,
            "health_timeout_s": self.health_timeout_s,
            "health_retries": self.health_retries,
        }
