"""Axes of drawings: where a value lies, straight or in logarithms, and which values are written beside it. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from edgepack.report.charts import Scale, line, words

# Where the largest of values is so many times their median, a straight axis would show it and nothing else.
_STRETCHED = 12.0
# A limit farther away than this is told beside the drawing: an axis that reached it would squeeze the data.
_FAR = 2.5


@dataclass(frozen=True, slots=True)
class Axis:
    """A scale with its ticks; ``logarithmic`` where equal steps are equal factors."""

    scale: Scale
    ticks: tuple[float, ...]
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """The place of a value; what lies beyond an end is at the end."""
        at = math.log10(max(value, 1e-9)) if self.logarithmic else value
        return self.scale(min(max(at, self.scale.low), self.scale.high))

    def value(self, share: float) -> float:
        """The value that lies that share of the way from the low end to the high one."""
        at = self.scale.low + share * (self.scale.high - self.scale.low)
        return float(10**at) if self.logarithmic else at


def axis(values: Sequence[float], start: float, end: float, *, stretch: bool = True) -> Axis:
    """An axis that has all of these finite values, with a little room; logarithmic where they are far apart."""
    low, high = min(values), max(values)
    middle = sorted(values)[len(values) // 2]
    if stretch and low > 0 and high > _STRETCHED * middle:
        ends = math.log10(low) - 0.02, math.log10(high) + 0.02
        powers = range(math.floor(ends[0]), math.ceil(ends[1]) + 1)
        marks = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
        found = tuple(mark for mark in marks if ends[0] <= math.log10(mark) <= ends[1])
        return Axis(Scale(*ends, start, end), found[:: math.ceil(len(found) / 8) or 1], logarithmic=True)
    room = (high - low) * 0.04 or abs(high) * 0.04 or 0.01
    return Axis(Scale(low - room, high + room, start, end), ticks(low - room, high + room))


def ticks(low: float, high: float, most: int = 7) -> tuple[float, ...]:
    """Round values between two, in steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / most
    if not rough > 0 or not math.isfinite(rough):
        return ()
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step)
    return tuple(round(place * step, 12) for place in range(first, math.floor(high / step) + 1))


def near(limits: Sequence[tuple[str, float]], values: Sequence[float]) -> list[tuple[str, float]]:
    """The named limits that a drawing of the values has room for, those of the same number together."""
    low, high = min(values), max(values)
    names: dict[float, list[str]] = {}
    for name, limit in limits:
        names.setdefault(limit, []).append(name)
    return [(", ".join(told), limit) for limit, told in names.items() if low / _FAR <= limit <= high * _FAR]


def below(across: Axis, top: float, bottom: float, unit: str) -> list[Markup]:
    """An axis along the foot of a drawing, with its grid."""
    low, high = across.scale.start, across.scale.end
    parts = [line(low, bottom, high, bottom, "axis")]
    for tick in across.ticks:
        parts.append(line(across(tick), top, across(tick), bottom, "grid-line"))
        parts.append(words(across(tick), bottom + 16, f"{tick:g}", "middle", "small"))
    parts.append(words(high, bottom + 32, unit, "end", "small"))
    return parts


def beside(up: Axis, left: float, right: float, form: str = "{:g}") -> list[Markup]:
    """An axis along the left side of a drawing, with its grid."""
    parts = [line(left, up.scale.start, left, up.scale.end, "axis")]
    for tick in up.ticks:
        parts.append(line(left, up(tick), right, up(tick), "grid-line"))
        parts.append(words(left - 6, up(tick) + 4, form.format(tick), "end", "small"))
    return parts
