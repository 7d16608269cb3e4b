"""Which candidates are worth having: those that no other one beats in everything; pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Point:
    """What a candidate costs: accuracy, bytes and milliseconds; less is better in each.

    A latency that was not measured counts as the largest: nobody claims that it is fast.
    """

    drop: float
    bytes: int
    latency_ms: float | None = None

    @property
    def costs(self) -> tuple[float, float, float]:
        """The three numbers to compare."""
        return self.drop, self.bytes, math.inf if self.latency_ms is None else self.latency_ms


def dominates(one: Point, other: Point) -> bool:
    """Whether ``one`` is as good in everything, and better in something."""
    pairs = list(zip(one.costs, other.costs, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def pareto_front(points: Sequence[Point]) -> tuple[bool, ...]:
    """For each point whether it is on the front: no other one dominates it. Of equal points all are."""
    return tuple(not any(dominates(other, point) for other in points) for point in points)
