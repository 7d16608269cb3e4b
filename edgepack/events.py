"""What happens while a long command runs, as values; whoever calls decides how to show them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened in a running step.

    ``step`` is the verb ("quantize", "push", ...), ``message`` a short phrase for a person, ``done`` and ``total``
    count ``unit`` ("samples", "bytes", "runs") where the step can be counted; ``total`` is None where no end is known.
    ``concludes``: the command's answer says the same, so that a terminal shows it once.
    """

    step: str
    message: str
    done: int | None = None
    total: int | None = None
    unit: str = ""
    concludes: bool = False


Reporter = Callable[[Event], None]
"""Receives events, in the order they happened, on the thread that does the work."""


def ignore_events(event: Event) -> None:
    """A reporter that shows nothing."""
