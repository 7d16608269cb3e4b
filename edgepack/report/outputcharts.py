"""What came out of the model, as drawings and tables: classes against labels, layers against the host's. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from edgepack.checkdocuments import ClassEvidence, LayerParity
from edgepack.report.charts import WIDTH, Scale, drawing, words
from edgepack.report.layers import Bar, strip
from edgepack.report.markup import joined, shortened, tag

_LARGEST_MATRIX = 20
_MOST_PAIRS = 15
_MOST_OPERATORS = 24


def confusion(classes: ClassEvidence) -> Markup:
    """A matrix of labels against what the device said; of many classes the pairs that are most often mixed up."""
    pairs = Counter(zip(classes.labels, classes.device, strict=False))
    names = sorted({*classes.labels, *classes.device})
    return _matrix(pairs, names) if len(names) <= _LARGEST_MATRIX else _mixed_up(pairs, len(names))


def _matrix(pairs: Mapping[tuple[int, int], int], names: Sequence[int]) -> Markup:
    head = tag("tr", tag("td"), *(tag("th", str(name), scope="col") for name in names))
    rows = []
    for label in names:
        total = sum(pairs.get((label, said), 0) for said in names)
        cells = [_cell(pairs.get((label, said), 0), total, label == said) for said in names]
        rows.append(tag("tr", tag("th", str(label), scope="row"), *cells))
    caption = tag("caption", "Samples by label (rows) and by what the device said (columns). The diagonal is right.")
    return tag("table", caption, tag("thead", head), tag("tbody", *rows), class_="matrix")


def _cell(count: int, total: int, right: bool) -> Markup:
    share = count / total if total else 0.0
    kind = "right" if right else "wrong"
    return tag("td", str(count) if count else "·", class_=f"{kind} share-{round(share * 10)}" if count else "none")


def _mixed_up(pairs: Mapping[tuple[int, int], int], classes: int) -> Markup:
    wrong = sorted(((-count, pair) for pair, count in pairs.items() if pair[0] != pair[1]))
    rows = [
        tag("tr", *(tag("td", text, class_="number") for text in (str(label), str(said), f"{-count:,}")))
        for count, (label, said) in wrong[:_MOST_PAIRS]
    ]
    if not rows:
        return tag("p", f"Not one of the samples, of {classes} classes, was taken for another class.")
    text = f"The pairs of {classes} classes that are most often mixed up ({len(rows)} of {len(wrong)})."
    head = tag("tr", *(tag("th", name, scope="col") for name in ("label", "the device said", "samples")))
    return tag("table", tag("caption", text), tag("thead", head), tag("tbody", *rows))


def parity_strip(layers: Sequence[LayerParity], diverging: str | None, most_bars: int) -> Markup:
    """How near each layer on the device is to the host's, in the order of execution."""
    return strip([Bar(_told(one), one.sqnr_db, one.name == diverging) for one in layers], most_bars, "diverging layer")


def _told(layer: LayerParity) -> str:
    name = f"{shortened(layer.operator, 40)} {shortened(layer.name.split(';', 1)[0], 120)}"
    return name if layer.max_steps is None else f"{name}, at most {layer.max_steps:g} steps apart"


def operator_bars(operators: Sequence[Mapping[str, Any]]) -> Markup:
    """The time that each operator takes, the longest first."""
    timed = [(str(one.get("name") or one.get("operator") or "?"), one["ms"]) for one in operators if _is_time(one)]
    ordered = sorted(timed, key=lambda one: -one[1])
    shown, total = ordered[:_MOST_OPERATORS], sum(time for _, time in timed)
    if len(ordered) > len(shown):
        shown.append((f"{len(ordered) - len(shown)} others", total - sum(time for _, time in shown)))
    scale = Scale(0, max((time for _, time in shown), default=1.0), 0, WIDTH - 400)
    rows = []
    for place, (name, time) in enumerate(shown):
        top, length = 24.0 * place, max(1.0, scale(time))
        share = f"{time:.3f} ms, {time / total:.1%}" if total else f"{time:.3f} ms"
        label = words(250, top + 15, shortened(name, 36), "end", "small")
        bar = tag("rect", tag("title", shortened(name, 200)), x=260, y=top + 3, width=length, height=16, class_="bar")
        rows.append(joined((label, bar, words(266 + length, top + 15, share, class_="small"))))
    return drawing(24.0 * len(rows) + 4, f"Time by operator, {total:.3f} ms together", *rows)


def _is_time(row: Mapping[str, Any]) -> bool:
    return isinstance(row.get("ms"), (int, float)) and row["ms"] >= 0
