"""Small SVG drawings: sizes, an interval, a Pareto front. Pure; colours come from the page's classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from edgepack.documents import Accuracy, TunedCandidate
from edgepack.report.markup import joined, shortened, tag
from edgepack.words import size

WIDTH = 720.0
_PAD = 0.08


@dataclass(frozen=True, slots=True)
class Scale:
    """A straight line from values to places: ``low`` lies at ``start``, ``high`` at ``end``."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The place of a value."""
        span = (self.high - self.low) or 1.0
        return self.start + (value - self.low) / span * (self.end - self.start)


def around(values: Sequence[float], start: float, end: float) -> Scale:
    """A scale that has all the values, with room on both sides."""
    low, high = min(values), max(values)
    room = (high - low) * _PAD or abs(high) * _PAD or 0.01
    return Scale(low - room, high + room, start, end)


def drawing(height: float, label: str, *parts: str, width: float = WIDTH, described: str | None = None) -> Markup:
    """A drawing that is as wide as the page lets it be; a screen reader says ``label``, then what is ``described``."""
    box = f"0 0 {width:g} {height:g}"
    told = "" if described is None else tag("desc", described)
    return tag("svg", told, *parts, viewBox=box, role="img", aria_label=label, style=f"max-width:{width:g}px")


def words(x: float, y: float, text: str, anchor: str | None = None, class_: str | None = None) -> Markup:
    """Text in a drawing."""
    return tag("text", text, x=x, y=y, text_anchor=anchor, class_=class_)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """A straight line."""
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def size_bars(bars: Sequence[tuple[str, int]]) -> Markup:
    """Named numbers of bytes under each other."""
    scale = Scale(0, max((count for _, count in bars), default=1), 0, WIDTH - 240)
    rows = [
        joined(
            (
                words(110, 28 * place + 18, name, "end"),
                tag("rect", x=120, y=28 * place + 4, width=max(1.0, scale(count)), height=20, class_="bar"),
                words(126 + scale(count), 28 * place + 18, size(count)),
            )
        )
        for place, (name, count) in enumerate(bars)
    ]
    told = ", ".join(f"{name} {size(count)}" for name, count in bars)
    return drawing(28.0 * len(bars), f"Sizes: {told}", *rows)


def drop_line(accuracy: Accuracy, budget: float | None) -> Markup:
    """Where the drop lies, how far it may be off, and where the budget ends."""
    drop = accuracy.drop or 0.0
    ends = [] if accuracy.interval is None else [accuracy.interval.low, accuracy.interval.high]
    scale = around([0.0, drop, *ends, *([] if budget is None else [budget])], 20, WIDTH - 20)
    parts = [line(20, 40, WIDTH - 20, 40, "axis"), line(scale(0), 26, scale(0), 54, "axis")]
    parts.append(words(scale(0), 70, "no drop", "middle", "small"))
    if budget is not None:
        parts += [line(scale(budget), 16, scale(budget), 54, "limit")]
        parts += [words(scale(budget), 12, f"budget {budget:g}", "middle", "small")]
    if ends:
        parts += [line(scale(ends[0]), 40, scale(ends[1]), 40, "whisker")]
        parts += [line(scale(end), 32, scale(end), 48, "whisker") for end in ends]
        parts += [words(scale(end), 26, f"{end:+.4f}", "middle", "small") for end in ends]
    parts.append(tag("circle", cx=scale(drop), cy=40, r=6, class_="dot"))
    return drawing(76, f"Accuracy drop {drop:+.4f}", *parts)


def pareto_chart(candidates: Sequence[TunedCandidate], budget: float, *, by_latency: bool) -> Markup | None:
    """What each candidate loses against what it costs, by its number; None where fewer than two have both figures."""
    found = [
        (number, one, one.drop, cost)
        for number, one in enumerate(candidates, 1)
        if one.drop is not None and one.legal and (cost := _cost(one, by_latency)) is not None
    ]
    if len(found) < 2:
        return None
    across = around([cost for *_, cost in found], 70, WIDTH - 20)
    up = around([budget, *(drop for _, _, drop, _ in found)], 250, 20)
    unit = "latency on the device, p50" if by_latency else "bytes"
    parts = [
        line(70, 250, WIDTH - 20, 250, "axis"),
        line(70, 20, 70, 250, "axis"),
        words(WIDTH - 20, 284, f"{unit} →", "end", "small"),
        words(64, 30, "drop ↑", "end", "small"),
        line(70, up(budget), WIDTH - 20, up(budget), "limit"),
        words(WIDTH - 20, up(budget) - 4, f"budget {budget:g}", "end", "small"),
        *(words(across(at), 266, _cost_text(at, by_latency), anchor, "small") for at, anchor in _ends(found)),
    ]
    if not any(one.latency_ms for one in candidates):  # else the front is a surface over two costs, and no line
        front = sorted((across(cost), up(drop)) for _, one, drop, cost in found if one.on_front)
        parts.append(tag("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in front), class_="front"))
    for number, one, drop, cost in found:
        kind = "dot chosen" if one.chosen else "dot" if one.on_front else "dot beaten"
        name = tag("title", f"{number}: {shortened(one.name, 80)}, drop {drop:+.4f}, {_cost_text(cost, by_latency)}")
        parts.append(tag("circle", name, cx=across(cost), cy=up(drop), r=7 if one.chosen else 5, class_=kind))
        parts.append(words(across(cost) + 9, up(drop) - 6, str(number), class_="small"))
    return drawing(290, f"Candidates by accuracy drop and {unit}", *parts)


def _cost(one: TunedCandidate, by_latency: bool) -> float | None:
    if by_latency:
        return one.latency_ms.p50 if one.latency_ms else None
    return one.bytes


def _ends(found: Sequence[tuple[int, TunedCandidate, float, float]]) -> list[tuple[float, str]]:
    costs = [cost for *_, cost in found]
    return [(min(costs), "middle"), (max(costs), "middle")] if max(costs) > min(costs) else [(costs[0], "middle")]


def _cost_text(cost: float, by_latency: bool) -> str:
    return f"{cost:.3g} ms" if by_latency else size(round(cost))
