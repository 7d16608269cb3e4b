"""Which faults another try may mend, and how long to wait before it: pure, but for the clock and the dice."""

from __future__ import annotations

import random
import time

from edgepack.errors import EdgepackError

# The line broke, or carries nothing.
_BROKEN = frozenset({"connection-dropped", "connection-lost", "stalled"})
# The network is away: worth another try only where the device was there a moment ago. Else the address is wrong.
_AWAY = frozenset(
    {
        "connect-failed", "connect-timeout", "connection-refused", "jump-failed", "no-answer", "no-route",
        "proxy-failed", "unknown-host-name",
    }
)  # fmt: skip
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 15.0


def is_fault_of_the_line(error: EdgepackError, *, reached: bool) -> bool:
    """Whether the network is to blame, and nobody has refused anything; ``reached``: the device was there before."""
    return error.code in _BROKEN or (reached and error.code in _AWAY)


class Tries:
    """How often a broken line is tried again: ``retries`` times, and as often as one likes in the first ``grace_s``.

    Each pause is up to twice as long as the one before, drawn at random: a hundred controllers that a router has cut
    off do not come back in the same instant.
    """

    def __init__(self, retries: int, grace_s: float = 0.0) -> None:
        self.retries = retries
        self.made = 0
        self._grace_ends = time.monotonic() + grace_s

    def next_pause_s(self) -> float | None:
        """How long to wait before the next try; None where there is none."""
        if self.made >= self.retries and time.monotonic() > self._grace_ends:
            return None
        longest = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0**self.made)
        self.made += 1
        # S311: spreads the tries, guards nothing.
        return longest * random.uniform(0.5, 1.0)  # noqa: S311
