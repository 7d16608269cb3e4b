"""One offline HTML page from a document of ``check``, with the data that its verdict is computed from again. Pure.

The page stays below :data:`MOST_CHECK_BYTES`. Drawings show less where there is much; data are whole or, where they
cannot fit, left out: the page then says so, and ``recheck`` refuses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from edgepack.checkdocuments import CheckDocument, Evidence
from edgepack.jsonvalues import to_json_value
from edgepack.report import latencycharts, outputcharts
from edgepack.report.charts import drop_line
from edgepack.report.frame import frame
from edgepack.report.markup import filled, shortened
from edgepack.report.packing import data_block, packed_document
from edgepack.words import shown_number, size

MOST_CHECK_BYTES = 300_000
_PERCENTILES = (50, 90, 95, 99)
_MARKS = {"pass": "✓", "fail": "✗", "inconclusive": "?"}


@dataclass(frozen=True, slots=True)
class _Detail:
    """How much a page shows: characters of a text, gates, rows of a table of facts, bars of the strip of layers."""

    text: int
    rows: int
    bars: int


_DETAILS = (_Detail(1000, 200, 360), _Detail(200, 60, 120), _Detail(80, 20, 40))


def check_page(document: CheckDocument) -> str:
    """The page, with all of its data or, where these do not fit, without the samples, or without any."""
    value = to_json_value(document)
    blocks = [data_block(packed_document(value))]
    if document.evidence is not None:
        blocks.append(data_block({**value, "evidence": None, "left_out": ["evidence"]}))
    blocks.append(data_block({"schema": value["schema"], "left_out": ["everything"]}))
    for block in blocks:
        if len(block) < MOST_CHECK_BYTES:
            for detail in _DETAILS:
                made = _page(document, detail, block, whole=block is blocks[0])
                if len(made.encode()) < MOST_CHECK_BYTES:
                    return made
    return _page(document, _Detail(40, 5, 10), blocks[-1], whole=False)


def _page(document: CheckDocument, detail: _Detail, block: Markup, *, whole: bool) -> str:
    def short(text: object) -> str:
        return shortened(str(text), detail.text)

    gates = [(gate.name, gate.outcome, short(gate.reason)) for gate in document.gates[: detail.rows]]
    return filled(
        "check.html",
        title=f"{document.verdict.upper()}: {short(document.app)} {short(document.release)}",
        document=document,
        mark=_MARKS.get(document.verdict, "?"),
        gates=gates,
        gates_left_out=len(document.gates) - len(gates),
        reasons=[short(reason) for reason in document.reasons[: detail.rows]],
        device=short(document.device.get("model") or document.device.get("hostname") or "a device"),
        latency=_latency_rows(document),
        charts=_charts(document, detail),
        conditions=_conditions(document.conditions, detail),
        provenance=_provenance(document, detail),
        whole=whole,
        block=block,
        short=short,
        size=size,
        number=shown_number,
        **frame(),
    )


def _latency_rows(document: CheckDocument) -> list[tuple[str, str, str, str]]:
    """Name, value, interval and limit of each percentile; the mean and the fastest run have neither of the latter."""
    rows = []
    for p in _PERCENTILES:
        value, limit = getattr(document.latency_ms, f"p{p}"), _number(document.budget.get(f"p{p}_ms"))
        found = getattr(document.intervals, f"p{p}") if document.intervals else None
        shown = "too few runs" if value is None else f"{shown_number(value, 3, limit)} ms"
        interval = "—" if found is None else f"{found.low:.3f} to {found.high:.3f} ms ({found.confidence:.0%})"
        rows.append((f"p{p}", shown, interval, "—" if limit is None else f"{limit:g} ms"))
    for name in ("mean", "min"):
        value = getattr(document.latency_ms, name)
        rows.append((name, "—" if value is None else f"{shown_number(value, 3)} ms", "—", "—"))
    return rows


def _charts(document: CheckDocument, detail: _Detail) -> dict[str, Markup | None]:
    """Each drawing by its name; None where there is nothing to draw."""
    evidence, ratio = document.evidence, document.ratio
    limits = [(f"p{p}", limit) for p in _PERCENTILES if (limit := _number(document.budget.get(f"p{p}_ms"))) is not None]
    accuracy, classes = document.accuracy, evidence.classes if evidence else None
    diverging = document.parity.diverging if document.parity else None
    times = _times(document.evidence, limits)
    return {
        **times,
        "drop": None
        if accuracy is None or accuracy.drop is None
        else drop_line(accuracy, _number(document.budget.get("max_accuracy_drop"))),
        "confusion": outputcharts.confusion(classes) if classes and classes.labels else None,
        "layers": outputcharts.parity_strip(evidence.layers, diverging, detail.bars)
        if evidence and evidence.layers
        else None,
        "operators": outputcharts.operator_bars(evidence.operators) if evidence and evidence.operators else None,
        "ratio": None if ratio is None else latencycharts.ratio_line(ratio, _ratio_limits(document)),
    }


def _times(evidence: Evidence | None, limits: latencycharts.Limits) -> dict[str, Markup | None]:
    if evidence is None or not evidence.latency_ns:
        return dict.fromkeys(("ecdf", "over_time", "spread", "turns"))
    latency, warmup, current = (
        [nanoseconds / 1e6 for nanoseconds in told]
        for told in (evidence.latency_ns, evidence.warmup_ns, evidence.current_ns)
    )
    return {
        "ecdf": latencycharts.ecdf(latency, limits),
        "over_time": latencycharts.over_time(latency, warmup, limits, evidence.series),
        "spread": latencycharts.spread(latency, limits),
        "turns": latencycharts.in_turns(evidence.blocks, latency, current),
    }


def _ratio_limits(document: CheckDocument) -> list[tuple[str, float]]:
    """The limits of the budget that are ratios to the current release."""
    found = [(key, _number(value)) for key, value in document.budget.items() if key.endswith("_ratio")]
    return [(key, limit) for key, limit in found if limit is not None]


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _conditions(conditions: Mapping[str, Any], detail: _Detail) -> list[tuple[str, str]]:
    return _flat(conditions, detail)[: detail.rows]


def _provenance(document: CheckDocument, detail: _Detail) -> list[tuple[str, list[tuple[str, str]]]]:
    release = {
        "app": document.app,
        "release": document.release,
        "model": size(document.model_bytes),
        "checked for": f"{document.seconds:g} s",
    }
    parts = {"Release": release, "Device": document.device, "Runtime": document.runtime, "Budget": document.budget}
    return [(name, _flat(told, detail)[: detail.rows]) for name, told in parts.items()]


def _flat(told: Mapping[str, Any], detail: _Detail, within: str = "") -> list[tuple[str, str]]:
    """Names and values as text, those of a mapping in it under both names, what is not known left out."""
    rows = []
    for key, value in told.items():
        name = f"{within}{str(key).replace('_', ' ')}"
        if isinstance(value, Mapping) and len(within) < detail.text:
            rows += _flat(value, detail, f"{name} · ")
        elif value is not None and value not in ({}, [], ()):
            rows.append((shortened(name, detail.text), shortened(_said(value, str(key)), detail.text)))
    return rows


def _said(value: object, key: str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and key.endswith("bytes"):
        return size(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
