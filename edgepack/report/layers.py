"""What quantizing does to the layers: a strip of all of them in their order, the worst in a table and as histograms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from edgepack.documents import Histogram, LayerError
from edgepack.report.charts import WIDTH, Scale, drawing, line, words
from edgepack.report.markup import joined, shortened, tag

_TOP_DB = 60.0  # ten bits; more is no worse to look at
_BAD_DB, _POOR_DB = 10.0, 20.0  # where edgepack.quantize.layers draws its lines too
_LEFT, _BOTTOM = 44.0, 150.0
_MOST_BINS = 256
_FIRST_BAD = "first bad layer"


@dataclass(frozen=True, slots=True)
class Detail:
    """How much a page shows: bars of a strip, rows of a table, histograms, characters of a text."""

    bars: int
    rows: int
    histograms: int
    text: int


def layers_part(layers: Sequence[LayerError], bad: str | None, left_out: int, detail: Detail) -> Markup:
    """Strip, table of the worst, histograms of those that have one."""
    worst = sorted(layers, key=lambda layer: layer.sqnr_db)
    drawn = [layer for layer in worst if layer.histogram is not None and _is_drawable(layer.histogram)]
    drawn = drawn[: detail.histograms]
    return joined(
        (
            strip([Bar(_name(one, detail), one.sqnr_db, one.tensor == bad) for one in layers], detail.bars, _FIRST_BAD),
            tag("p", _caption(len(layers), left_out, detail), class_="note"),
            _table(worst[: detail.rows], len(layers), detail),
            *([tag("h3", "Values in the worst layers")] if drawn else []),
            tag("div", *(_histogram(layer, detail) for layer in drawn), class_="grid") if drawn else "",
        )
    )


def _caption(count: int, left_out: int, detail: Detail) -> str:
    lot = _lot(count, detail.bars)
    told = [_STRIP]
    if lot > 1:
        told.append(f"Each bar is the worst of {lot} layers that follow each other.")
    if left_out:
        told.append(f"{left_out} layers have no equal in the float model and are not shown.")
    return " ".join(told)


_STRIP = (
    "Signal to quantization noise of each layer's output against the float model, in decibels, in the order of "
    "execution. Taller is better: 6 dB are a bit, and below 10 dB a layer is bad."
)


def _lot(count: int, most_bars: int) -> int:
    return max(1, math.ceil(count / most_bars))


@dataclass(frozen=True, slots=True)
class Bar:
    """One layer in a strip: its name, how good it is (None is as good as can be), and whether it is the one meant."""

    name: str
    sqnr_db: float | None
    marked: bool


def strip(layers: Sequence[Bar], most_bars: int, meant: str) -> Markup:
    """The layers in the order of execution, each bar the worst of several where there are many; ``meant`` is marked."""
    lot = _lot(len(layers), most_bars)
    lots = [layers[first : first + lot] for first in range(0, len(layers), lot)]
    scale = Scale(0, _TOP_DB, _BOTTOM, 12)
    step = (WIDTH - _LEFT) / len(lots)
    parts = []
    for place, together in enumerate(lots):
        layer = min(together, key=_decibels)
        top = min(scale(min(max(_decibels(layer), 0.0), _TOP_DB)), _BOTTOM - 2)
        left = _LEFT + place * step
        title = tag("title", f"{layer.name}: {_shown(layer)}")
        bar = {"x": left, "y": top, "width": max(step * 0.8, 0.5), "height": _BOTTOM - top}
        parts.append(tag("rect", title, class_=_grade(_decibels(layer)), **bar))
        if any(one.marked for one in together):
            parts.append(_marked(left + step * 0.4, meant))
    for level in (_BAD_DB, _POOR_DB, 40.0, _TOP_DB):
        parts += [line(_LEFT, scale(level), WIDTH, scale(level), "grid-line")]
        parts += [words(_LEFT - 4, scale(level) + 4, f"{level:g} dB", "end", "small")]
    worst = min(layers, key=_decibels)
    return drawing(_BOTTOM + 18, f"{len(layers)} layers; the worst has {_shown(worst)}", *parts)


def _decibels(layer: Bar) -> float:
    return math.inf if layer.sqnr_db is None else layer.sqnr_db


def _shown(layer: Bar) -> str:
    return "no noise" if layer.sqnr_db is None else f"{layer.sqnr_db:.1f} dB"


def _marked(middle: float, meant: str) -> Markup:
    """An arrow below the bar there, its words on the side where there is room."""
    if middle < WIDTH * 0.8:
        return words(middle - 5, _BOTTOM + 14, f"▲ {meant}", "start", "small")
    return words(middle + 5, _BOTTOM + 14, f"{meant} ▲", "end", "small")


def _grade(sqnr_db: float) -> str:
    return "bad" if sqnr_db < _BAD_DB else "poor" if sqnr_db < _POOR_DB else "good"


def _name(layer: LayerError, detail: Detail) -> str:
    """Operator and tensor; of a fused layer ("a;b;c") the first name."""
    return f"{shortened(layer.operator, 40)} {shortened(layer.tensor.split(';', 1)[0], detail.text)}"


def _table(worst: Sequence[LayerError], count: int, detail: Detail) -> Markup:
    rows = [
        tag(
            "tr",
            tag("td", f"{layer.sqnr_db:.1f} dB", class_=f"number text-{_grade(layer.sqnr_db)}"),
            tag("td", "—" if layer.input_sqnr_db is None else f"{layer.input_sqnr_db:.1f} dB", class_="number"),
            tag("td", tag("code", _name(layer, detail))),
            tag("td", f"{layer.low:.3g} to {layer.high:.3g}", class_="number"),
            tag("td", f"{layer.elements:,}", class_="number"),
        )
        for layer in worst
    ]
    head = tag("tr", *(tag("th", name) for name in ("SQNR", "of what it reads", "layer", "range", "numbers compared")))
    shown = "every layer" if len(rows) == count else f"the worst {len(rows)} of {count} layers"
    return tag(
        "details",
        tag("summary", f"In numbers: {shown}, the worst first"),
        tag("div", tag("table", tag("thead", head), tag("tbody", *rows)), class_="scroll"),
    )


def _is_drawable(histogram: Histogram) -> bool:
    """Whether it has as many bins as edgepack makes, or not many more: somebody else may have written the document."""
    return max(len(histogram.reference), len(histogram.quantized)) <= _MOST_BINS


def _histogram(layer: LayerError, detail: Detail) -> Markup:
    assert layer.histogram is not None  # noqa: S101 - the caller picked those that have one
    name = _name(layer, detail)
    return tag(
        "figure",
        tag("figcaption", tag("code", name), f" {layer.sqnr_db:.1f} dB"),
        _histogram_drawing(layer.histogram, name),
        tag(
            "p",
            tag("span", "■", class_="text-float"),
            " float, ",
            tag("span", "—", class_="text-quantized"),
            f" quantized; {layer.histogram.low:.3g} to {layer.histogram.high:.3g}, counts in logarithms",
            class_="note",
        ),
    )


def _histogram_drawing(histogram: Histogram, name: str) -> Markup:
    width, height = 340.0, 120.0
    bins = max(len(histogram.reference), len(histogram.quantized), 1)
    most = max([*histogram.reference, *histogram.quantized, 1])
    up = Scale(0, math.log1p(most), height, 6)
    step = width / bins

    def outline(counts: Sequence[int]) -> str:
        places = [(place * step, (place + 1) * step, up(math.log1p(count))) for place, count in enumerate(counts)]
        return "".join(f"L{left:.1f},{top:.1f}H{right:.1f}" for left, right, top in places)

    start = f"M0,{height:g}"
    return drawing(
        height + 2,
        f"Histogram of {name}",
        tag("path", d=f"{start}{outline(histogram.reference)}V{height:g}Z", class_="float"),
        tag("path", d=f"{start}{outline(histogram.quantized)}V{height:g}", class_="quantized"),
        line(0, height, width, height, "axis"),
        width=width,
    )
