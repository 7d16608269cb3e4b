"""One offline HTML page from a document. Pure: the same document gives the same page.

That of ``check`` is made in :mod:`edgepack.report.checkpage`, those of ``quantize`` and ``tune`` here.

The page needs no network and no JavaScript, follows the reader's dark or light colours, and forbids the browser to
load or run anything. It stays below :data:`MOST_BYTES` whatever the document holds: where it would not, it is made
again with less detail.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from markupsafe import Markup

from edgepack.documents import (
    Accuracy,
    BrokenBudget,
    CheckDocument,
    Conformance,
    Finding,
    ModelInfo,
    QuantizeDocument,
    QuantizeSetDocument,
    SourceInfo,
    TunedCandidate,
    TuneDocument,
)
from edgepack.report.charts import drop_line, pareto_chart, size_bars
from edgepack.report.checkpage import check_page
from edgepack.report.frame import frame
from edgepack.report.layers import Detail, layers_part
from edgepack.report.markup import filled, joined, shortened, tag
from edgepack.words import size, small_weights

Reportable = QuantizeDocument | QuantizeSetDocument | TuneDocument | BrokenBudget | CheckDocument

MOST_BYTES = 500_000
_DETAILS = (Detail(360, 200, 12, 1000), Detail(180, 50, 6, 400), Detail(60, 20, 3, 160), Detail(20, 5, 1, 80))
_MOST_SECTIONS = 40


def page(document: Reportable) -> str:
    """The page, in as much detail as fits."""
    if isinstance(document, CheckDocument):
        return check_page(document)
    for detail in _DETAILS:
        made = _page(document, detail)
        if len(made.encode()) < MOST_BYTES:
            return made
    return _page(document, _DETAILS[-1], most_sections=4)


def _page(
    document: QuantizeDocument | QuantizeSetDocument | TuneDocument | BrokenBudget,
    detail: Detail,
    most_sections: int = _MOST_SECTIONS,
) -> str:
    if isinstance(document, TuneDocument):
        title = f"{_file_name(document.model.path, detail)} tuned for {shortened(document.target, detail.text)}"
        sections = [_tune_section(document, detail)]
    elif isinstance(document, BrokenBudget):
        title = (
            f"{_file_name(document.source.path, detail)} keeps no budget on {shortened(document.target, detail.text)}"
        )
        sections = [_broken_section(document, detail)]
    else:
        models = document.models if isinstance(document, QuantizeSetDocument) else (document,)
        title = f"{_file_name(models[0].source.path, detail)} quantized" if models else "Nothing was quantized"
        sections = [_quantize_section(one, detail) for one in models[:most_sections]]
        if len(models) > most_sections:
            sections.append(tag("p", f"{len(models) - most_sections} more targets do not fit on this page."))
    return filled("sections.html", title=title, sections=sections, **frame())


def _quantize_section(document: QuantizeDocument, detail: Detail) -> Markup:
    return tag(
        "section",
        tag("h2", f"For {shortened(document.target, detail.text)}"),
        _facts(document.model, document.source, document.conformance, document.uncompiled, detail),
        _sizes(document.source, document.model),
        _accuracy(document.accuracy, document.max_drop),
        _budget(document.max_drop, document.within_budget, document.conformance.findings),
        _findings(document.conformance.findings, detail),
        tag("h3", "Layer by layer"),
        layers_part(document.layers, document.first_bad_layer, document.layers_left_out, detail)
        if document.layers
        else tag("p", "No layer was compared; ", tag("code", "--diagnose"), " does it.", class_="note"),
    )


def _tune_section(document: TuneDocument, detail: Detail) -> Markup:
    chosen = tag("p", tag("strong", shortened(document.chosen, detail.text)), ": ", shortened(document.reason, 2000))
    return tag(
        "section",
        tag("h2", "Chosen"),
        chosen,
        _facts(document.model, document.source, document.conformance, document.uncompiled, detail, document.device),
        _sizes(document.source, document.model),
        _accuracy(document.accuracy, document.max_drop),
        _budget(document.max_drop, within=True),
        tag("h3", "Candidates"),
        _pareto(document.candidates, document.max_drop, detail),
        _candidates(document.candidates, detail),
        _findings(document.conformance.findings, detail),
        tag("h3", "Layer by layer"),
        joined((tag("p", _WHOSE_LAYERS, class_="note"), layers_part(document.layers, None, 0, detail)))
        if document.layers
        else tag("p", "No candidate lost so much that its layers were compared.", class_="note"),
    )


_WHOSE_LAYERS = "These are the layers of the first candidate that lost more than the budget, not of the chosen model."


def _broken_section(document: BrokenBudget, detail: Detail) -> Markup:
    budget = f"Budget: {document.metric} may drop by at most {document.max_drop:g}. No candidate keeps it."
    return tag(
        "section",
        tag("h2", "The budget is not kept"),
        tag("p", tag("strong", budget, class_="text-bad")),
        tag("p", shortened(document.message, 4000)),
        tag("p", shortened(document.hint, 1000)),
        tag("h3", "Candidates"),
        _pareto(document.candidates, document.max_drop, detail),
        _candidates(document.candidates, detail),
        tag("h3", "Layer by layer"),
        joined((tag("p", _NEAREST_LAYERS, class_="note"), layers_part(document.spoiled, None, 0, detail)))
        if document.spoiled
        else tag("p", "No layer was compared.", class_="note"),
    )


_NEAREST_LAYERS = "These are the layers of the nearest candidate."


def _facts(
    model: ModelInfo,
    source: SourceInfo,
    conformance: Conformance,
    uncompiled: str | None,
    detail: Detail,
    device: str | None = None,
) -> Markup:
    rows = [
        ("model", f"{shortened(model.path, detail.text)} ({size(model.bytes)}, {model.scheme})"),
        ("sha256", model.sha256),
        ("source", f"{shortened(source.path, detail.text)} ({size(source.bytes)}, {source.kind})"),
    ]
    if uncompiled:
        rows.append(("uncompiled", shortened(uncompiled, detail.text)))
    if device:
        rows.append(("measured on", shortened(device, detail.text)))
    weights = small_weights(conformance.int8_weight_share, model.scheme)
    if weights is not None:
        rows.append(("weights", weights))
    if conformance.delegated_share is not None:
        rows.append(("accelerator", f"takes {conformance.delegated_share:.1%} of the operators"))
    rows.append(("conforms", "yes" if conformance.passed else "no"))
    shown = (tag("tr", tag("th", name, scope="row"), tag("td", shortened(text, 2000))) for name, text in rows)
    return tag("div", tag("table", tag("tbody", *shown)), class_="scroll")


def _sizes(source: SourceInfo, model: ModelInfo) -> Markup:
    ratio = f" The source is {source.bytes / model.bytes:.1f} times as large as the model." if model.bytes else ""
    bars = size_bars([("source", source.bytes), ("model", model.bytes)])
    return joined((tag("h3", "Size"), bars, tag("p", ratio, class_="note")))


def _accuracy(accuracy: Accuracy | None, budget: float | None) -> Markup:
    heading = tag("h3", "Accuracy")
    if accuracy is None:
        return joined((heading, tag("p", "Not measured: there were no labelled samples.", class_="note")))
    if accuracy.reference is None or accuracy.drop is None:
        told = f"{accuracy.metric} {accuracy.quantized:.4f} over {accuracy.samples:,} samples, without a reference."
        return joined((heading, tag("p", shortened(told, 400))))
    moves = "grows by" if accuracy.smaller_is_better else "drop"
    change = f"{accuracy.metric} {accuracy.reference:.4f} → {accuracy.quantized:.4f}, {moves} {accuracy.drop:+.4f}"
    sentences = [f"{change} over {accuracy.samples:,} samples."]
    if accuracy.interval is not None:
        interval = accuracy.interval
        sentences.append(
            f"{interval.confidence:.0%} interval of the drop: {interval.low:+.4f} to {interval.high:+.4f}."
        )
    if accuracy.p_value is not None:
        sentences.append(f"McNemar's p: {accuracy.p_value:.3g}.")
    if accuracy.needed_samples is not None:
        sentences.append(f"About {accuracy.needed_samples:,} samples settle whether it keeps to the budget.")
    return joined((heading, tag("p", shortened(" ".join(sentences), 800)), drop_line(accuracy, budget)))


def _budget(max_drop: float | None, within: bool | None, findings: Sequence[Finding] = ()) -> Markup:
    """Whether the limits that need no device are kept, and what is beyond them; nothing where there is none."""
    if max_drop is None and within is None:
        return Markup("")
    outcome = {True: "kept", False: "NOT kept", None: "whether it is kept is not known"}[within]
    told = tag("strong", outcome, class_="text-bad" if within is False else None)
    limit = "" if max_drop is None else f" a drop of at most {max_drop:g};"
    beyond = "".join(f" {found.message}" for found in findings if found.code == "over-budget")
    return tag("p", f"Budget:{limit} ", told, f".{shortened(beyond, 1000)}")


def _findings(findings: Sequence[Finding], detail: Detail) -> Markup:
    heading = tag("h3", "Findings")
    if not findings:
        return joined((heading, tag("p", "None.", class_="note")))
    rows = [
        tag(
            "tr",
            tag(
                "td", shortened(found.severity, 20), class_="number text-bad" if found.severity == "error" else "number"
            ),
            tag("td", tag("code", shortened(found.code, 60)), tag("br"), shortened(found.subject, detail.text)),
            tag("td", shortened(found.message, 2 * detail.text)),
            tag("td", shortened(found.cure, 2 * detail.text)),
        )
        for found in _errors_first(findings)[: detail.rows]
    ]
    return joined((heading, _table(("", "what, where", "why it matters", "what to do"), rows, len(findings))))


def _errors_first(findings: Sequence[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda found: found.severity != "error")


def _pareto(candidates: Sequence[TunedCandidate], max_drop: float, detail: Detail) -> Markup:
    shown = candidates[: detail.rows]
    charts = [pareto_chart(shown, max_drop, by_latency=fast) for fast in (False, True)]
    drawn = [chart for chart in charts if chart is not None]
    return joined((*drawn, tag("p", _LEGEND, class_="note"))) if drawn else Markup("")


_LEGEND = (
    "Numbers are those of the table. The large dot is the chosen one; filled dots are the Pareto front: no other "
    "candidate is as good in drop, bytes and latency and better in one of them."
)


def _candidates(candidates: Sequence[TunedCandidate], detail: Detail) -> Markup:
    timed = any(one.latency_ms for one in candidates)
    rows = [
        _candidate(number, one, timed, detail)
        for number, one in itertools.islice(enumerate(candidates, 1), max(detail.rows, 20))
    ]
    latency = ("p50", "p95") if timed else ()
    return _table(("", "candidate", "drop", "bytes", *latency, "what of it"), rows, len(candidates))


def _apart(one: TunedCandidate) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return ("in float", one.float_layers), ("in 16 bits", one.int16_layers)


def _candidate(number: int, one: TunedCandidate, timed: bool, detail: Detail) -> Markup:
    drop = "—" if one.drop is None else f"{round(one.drop, 4) + 0.0:+.4f}"
    if one.interval is not None:
        drop += f" [{one.interval.low:+.4f}, {one.interval.high:+.4f}]"
    verdict = "chosen" if one.chosen else "on the front" if one.on_front else "" if one.legal else "not for this target"
    apart = [f"{how}: {', '.join(layers)}" for how, layers in _apart(one) if layers]
    told = "; ".join(filter(None, (verdict, one.reason, one.inconclusive, *apart)))
    p50, p95 = (one.latency_ms.p50, one.latency_ms.p95) if one.latency_ms else (None, None)
    times = [tag("td", "—" if value is None else f"{value:.3f} ms", class_="number") for value in (p50, p95)]
    return tag(
        "tr",
        tag("td", str(number), class_="number"),
        tag("td", shortened(one.name, detail.text)),
        tag("td", drop, class_="number"),
        tag("td", "—" if one.bytes is None else f"{one.bytes:,}", class_="number"),
        *(times if timed else []),
        tag("td", shortened(told, detail.text)),
        class_="chosen" if one.chosen else None,
    )


def _table(heads: Iterable[str], rows: Sequence[Markup], count: int) -> Markup:
    """A table, and how many of its ``count`` rows are left out."""
    head = tag("thead", tag("tr", *(tag("th", name) for name in heads)))
    more = tag("p", f"{count - len(rows)} more are not shown.", class_="note") if count > len(rows) else ""
    return joined((tag("div", tag("table", head, tag("tbody", *rows)), class_="scroll"), more))


def _file_name(path: str, detail: Detail) -> str:
    return shortened(path.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1], detail.text)
