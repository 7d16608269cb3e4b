"""Latencies as drawings: how they are spread, over the runs with the device's conditions, and against another release.

Pure. Of many runs a drawing shows fewer points, but always the slowest and the fastest; the data on the page are whole.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from markupsafe import Markup

from edgepack.checkdocuments import Ratio
from edgepack.report.axes import Axis, axis, below, beside, near
from edgepack.report.charts import WIDTH, Scale, drawing, line, words
from edgepack.report.markup import tag

_LEFT, _RIGHT = 56.0, WIDTH - 16
_HEIGHT = 230.0
_MOST_STEPS, _TAIL = 300, 24
_MOST_DOTS, _COLUMNS = 1_500, 320
_FEWEST_BINS, _MOST_BINS = 8, 60

Limits = Sequence[tuple[str, float]]


def ecdf(latency_ms: Sequence[float], limits: Limits) -> Markup:
    """The share of runs that took at most so long, with each limit where it cuts the curve."""
    ordered, count = sorted(latency_ms), len(latency_ms)
    shown = near(limits, ordered)
    across = axis([*ordered, *(limit for _, limit in shown)], _LEFT, _RIGHT)
    up = Axis(Scale(0, 1, _HEIGHT, 24), (0, 0.25, 0.5, 0.75, 0.9, 1))
    stride = max(1, count // _MOST_STEPS)
    places = sorted({*range(0, count, stride), *range(max(0, count - _TAIL), count)})
    steps = "".join(f"H{across(ordered[place]):.1f}V{up((place + 1) / count):.1f}" for place in places)
    parts = [*below(across, 24, _HEIGHT, _unit(across)), *beside(up, _LEFT, _RIGHT, "{:.0%}")]
    parts.append(tag("path", d=f"M{_LEFT:g},{_HEIGHT:g}{steps}H{_RIGHT:g}", class_="curve"))
    for name, limit in shown:
        within = sum(one <= limit for one in ordered) / count
        parts += _upright(across(limit), 24, _HEIGHT, f"{name} {limit:g} ms")
        dot = tag("title", f"{within:.1%} of the runs took at most {limit:g} ms")
        parts.append(tag("circle", dot, cx=across(limit), cy=up(within), r=5, class_="dot"))
    middle = ordered[(count - 1) // 2]
    said = f"From {ordered[0]:.3f} ms to {ordered[-1]:.3f} ms; half of {count:,} runs took at most {middle:.3f} ms."
    return drawing(_HEIGHT + 36, "Share of the runs by latency", *parts, described=said)


def spread(latency_ms: Sequence[float], limits: Limits) -> Markup:
    """How many runs took how long."""
    shown = near(limits, latency_ms)
    across = axis([*latency_ms, *(limit for _, limit in shown)], _LEFT, _RIGHT)
    bins = min(_MOST_BINS, max(_FEWEST_BINS, math.isqrt(len(latency_ms))))
    counts = [0] * bins
    for one in latency_ms:
        share = (across(one) - across.scale.start) / (across.scale.end - across.scale.start)
        counts[min(int(share * bins), bins - 1)] += 1
    up = axis([0, max(counts)], _HEIGHT, 24, stretch=False)
    up = Axis(Scale(0, up.scale.high, _HEIGHT, 24), tuple(tick for tick in up.ticks if tick >= 0 and tick % 1 == 0))
    step = (_RIGHT - _LEFT) / bins
    parts = [*below(across, 24, _HEIGHT, _unit(across)), *beside(up, _LEFT, _RIGHT, "{:,.0f}")]
    for place, count in enumerate(counts):
        if count:
            top = min(up(count), _HEIGHT - 2)  # a single outlier is seen too
            low, high = across.value(place / bins), across.value((place + 1) / bins)
            title = tag("title", f"{count:,} runs from {low:.3f} to {high:.3f} ms")
            box = {"x": _LEFT + place * step, "y": top, "width": max(step - 1, 1.0), "height": _HEIGHT - top}
            parts.append(tag("rect", title, class_="bar", **box))
    for name, limit in shown:
        parts += _upright(across(limit), 24, _HEIGHT, f"{name} {limit:g} ms")
    return drawing(_HEIGHT + 36, "Histogram of the latencies", *parts, described="Runs by how long they took.")


def over_time(
    latency_ms: Sequence[float], warmup_ms: Sequence[float], limits: Limits, series: Sequence[Mapping[str, Any]]
) -> Markup:
    """Each run in its order, the warm-up before the first; below it temperature and clock, where they were read."""
    shown = near(limits, latency_ms)
    across = axis([-len(warmup_ms), len(latency_ms)], _LEFT, _RIGHT, stretch=False)
    early = [one for one in warmup_ms if one <= max(latency_ms)]
    up = axis([*latency_ms, *early, *(limit for _, limit in shown)], _HEIGHT - 20, 24)
    strips = [
        ("temperature_c", "°C", 1.0, "temperature"),
        ("clock_khz", "MHz", 1e-3, "clock"),
    ]
    found = [
        (told, unit, name)
        for key, unit, factor, name in strips
        if len(told := [(one["run"], one[key] * factor) for one in series if _is(one, "run") and _is(one, key)]) > 1
    ]
    foot = _HEIGHT - 20 + 76.0 * len(found)
    parts = [*_throttled(series, across, foot), *beside(up, _LEFT, _RIGHT), *below(across, 24, foot, "run")]
    parts += [words(_LEFT, 14, "ms (in logarithms)" if up.logarithmic else "ms", "middle", "small")]
    parts += _runs([(place - len(warmup_ms), one) for place, one in enumerate(warmup_ms)], across, up, "warm-up")
    parts += _runs(list(enumerate(latency_ms)), across, up, "run")
    if warmup_ms:
        parts.append(line(across(0), 24, across(0), foot, "axis"))
    for name, limit in shown:
        parts.append(line(_LEFT, up(limit), _RIGHT, up(limit), "limit"))
        parts.append(words(_RIGHT, up(limit) - 4, f"{name} {limit:g} ms", "end", "small"))
    for place, (told, unit, name) in enumerate(found):
        parts += _strip(told, f"{name}, {unit}", across, _HEIGHT - 8 + 76.0 * place)
    said = f"{len(warmup_ms)} runs of warm-up, then {len(latency_ms):,} timed runs."
    return drawing(foot + 36, "Latency of each run in its order", *parts, described=said)


def ratio_line(ratio: Ratio, limits: Limits) -> Markup:
    """How many times as long as the other release it takes, and how far that may be off."""
    shown = near(limits, [ratio.low, ratio.high, 1.0])
    across = axis([1.0, ratio.low, ratio.high, *(limit for _, limit in shown)], 30, WIDTH - 30, stretch=False)
    parts = [line(30, 56, WIDTH - 30, 56, "axis"), line(across(1.0), 34, across(1.0), 72, "axis")]
    parts.append(words(across(1.0), 88, "as fast", "middle", "small"))
    for name, limit in shown:
        parts += _upright(across(limit), 24, 72, f"{name} {limit:g}×")
    parts += [line(across(ratio.low), 56, across(ratio.high), 56, "whisker")]
    parts += [line(across(end), 48, across(end), 64, "whisker") for end in (ratio.low, ratio.high)]
    parts += [words(across(end), 44, f"{end:.3f}×", "middle", "small") for end in (ratio.low, ratio.high)]
    parts.append(tag("circle", cx=across(ratio.estimate), cy=56, r=6, class_="dot"))
    label = f"{ratio.statistic}: {ratio.estimate:.3f} times the other, {ratio.low:.3f} to {ratio.high:.3f}"
    return drawing(94, label, *parts)


def in_turns(
    blocks: Sequence[tuple[str, int]], candidate_ms: Sequence[float], current_ms: Sequence[float]
) -> Markup | None:
    """The median of each block in the order in which both releases ran; None where the blocks are not those runs."""
    rest = {"candidate": list(candidate_ms), "current": list(current_ms)}
    medians = []
    for who, runs in blocks:
        taken = rest.get(who, [])[:runs]
        if runs < 1 or len(taken) != runs:
            return None
        del rest[who][:runs]
        medians.append((who, median(taken)))
    if len(medians) < 2 or any(rest.values()):
        return None
    up = axis([value for _, value in medians], 130, 16)
    step = (_RIGHT - _LEFT) / len(medians)
    parts = [*beside(up, _LEFT, _RIGHT), line(_LEFT, 130, _RIGHT, 130, "axis")]
    for place, (who, value) in enumerate(medians):
        title = tag("title", f"block {place + 1}, {who}: {value:.3f} ms")
        kind = "dot" if who == "candidate" else "dot beaten"
        parts.append(tag("circle", title, cx=_LEFT + (place + 0.5) * step, cy=up(value), r=4.5, class_=kind))
    parts.append(words(_RIGHT, 148, "blocks in their order; filled: this release, hollow: the other", "end", "small"))
    parts.append(words(_LEFT, 8, "ms", "middle", "small"))
    return drawing(154, "Median latency by block of runs, both releases in turns", *parts)


def _runs(told: Sequence[tuple[int, float]], across: Axis, up: Axis, kind: str) -> list[Markup]:
    """A dot for each run, or of many the range and the median of each column of them."""
    if len(told) <= _MOST_DOTS:
        dots = "".join(f"M{across(run):.1f},{up(value):.1f}h0" for run, value in told)
        return [tag("path", d=dots, class_=f"dots {kind}")] if dots else []
    lot = math.ceil(len(told) / _COLUMNS)
    columns = [told[first : first + lot] for first in range(0, len(told), lot)]
    bars, medians = [], []
    for column in columns:
        values = [value for _, value in column]
        at = across(column[len(column) // 2][0])
        bars.append(f"M{at:.1f},{up(min(values)):.1f}V{up(max(values)):.1f}")
        medians.append(f"{at:.1f},{up(median(values)):.1f}")
    return [
        tag("path", d="".join(bars), class_=f"range {kind}"),
        tag("polyline", points=" ".join(medians), class_=f"middle {kind}"),
    ]


def _strip(told: Sequence[tuple[float, float]], name: str, across: Axis, top: float) -> list[Markup]:
    values = [value for _, value in told]
    up = axis(values, top + 60, top + 18, stretch=False)
    kept = _fewer(told, _COLUMNS)
    path = " ".join(f"{across(run):.1f},{up(value):.1f}" for run, value in kept)
    ends = [min(values), max(values)] if max(values) > min(values) else [values[0]]
    return [
        words(_LEFT + 4, top + 12, name, class_="small"),
        *(words(_LEFT - 6, up(end) + 4, f"{end:.0f}" if end >= 100 else f"{end:.3g}", "end", "small") for end in ends),
        *(line(_LEFT, up(end), _RIGHT, up(end), "grid-line") for end in ends),
        tag("polyline", points=path, class_="condition"),
    ]


def _fewer(told: Sequence[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """Of many points the lowest and the highest of each lot, in their order."""
    if len(told) <= most:
        return list(told)
    lot = math.ceil(2 * len(told) / most)
    kept: list[tuple[float, float]] = []
    for first in range(0, len(told), lot):
        points = told[first : first + lot]
        kept += sorted({min(points, key=lambda one: one[1]), max(points, key=lambda one: one[1])})
    return kept


def _throttled(series: Sequence[Mapping[str, Any]], across: Axis, foot: float) -> list[Markup]:
    """A band from each look at which the device was throttled (bits 0 to 3 of get_throttled) to the next one."""
    bands = []
    looks = [one for one in series if _is(one, "run")]
    for one, following in zip(looks, [*looks[1:], looks[-1]] if looks else [], strict=True):
        bits = one.get("throttled_bits")
        if isinstance(bits, int) and bits & 0xF:
            left, right = across(one["run"]), across(following["run"])
            box = {"x": left, "y": 24.0, "width": max(right - left, 2.0), "height": foot - 24}
            bands.append(tag("rect", tag("title", f"throttled: {bits:#x}"), class_="throttled", **box))
    return bands


def _is(row: Mapping[str, Any], key: str) -> bool:
    value = row.get(key)
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _upright(x: float, top: float, bottom: float, text: str) -> list[Markup]:
    """A limit as an upright line, its words on the side where there is room."""
    anchor, gap = ("end", -4) if x > WIDTH / 2 else ("start", 4)
    return [line(x, top - 8, x, bottom, "limit"), words(x + gap, top - 8, text, anchor, "small")]


def _unit(across: Axis) -> str:
    return "latency in ms (in logarithms) →" if across.logarithmic else "latency in ms →"
