"""The page of a report: everything that was found is on it, in one bounded file that loads and runs nothing."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_documents import ACCURACY, broken, candidate, layers, quantized, tuned

from edgepack.cli import render
from edgepack.documents import Conformance, Finding, QuantizeSetDocument
from edgepack.report.markup import escaped, shortened, tag
from edgepack.report.page import MOST_BYTES, Reportable, page

VOID = {"meta", "br"}
EVIL = "</title></style></script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&\x00\u202e\ud800"


class Reader(HTMLParser):
    """Reads a page strictly: each element is closed in its turn; keeps elements, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, name: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element begins."""
        self.tags.append(name)
        self.attributes += attrs
        if name not in VOID:
            self.open.append(name)

    def handle_endtag(self, name: str) -> None:
        """An element ends: it has to be the one that began last."""
        assert self.open.pop() == name

    def handle_data(self, data: str) -> None:
        """Text; the style's is not for people."""
        if self.open and self.open[-1] != "style":
            self.text.append(data)


def words_on(document: Reportable) -> str:
    """All text of the document's page, tooltips included, in one line."""
    return " ".join(" ".join(Reader(page(document)).text).split())


def test_sizes_accuracy_layers_and_findings_are_on_the_page() -> None:
    """One look tells how small the model became, what that cost, how sure that is, and which layer is to blame."""
    told = words_on(quantized())
    assert "52.5 KB" in told
    assert "300.0 KB" in told
    assert "top1 0.9000 → 0.8500, drop +0.0500 over 400 samples. 95% interval of the drop: +0.0300 to +0.0700." in told
    assert "About 300 samples settle" in told
    assert "first bad layer" in told
    assert "bad-layer net/conv net/conv is spoiled. Leave net/conv in float." in told
    assert "98.7% of the bytes are int8" in told
    assert "2 layers have no equal in the float model" in told


def test_nothing_is_said_of_int8_where_the_scheme_makes_none() -> None:
    """A float16 model is as it was asked for: "0.0% are int8" would read as a failure, on the page and the screen."""
    document = quantized()
    model = dataclasses.replace(document.model, scheme="float16")
    conformance = dataclasses.replace(document.conformance, int8_weight_share=0.0)
    half = dataclasses.replace(document, model=model, conformance=conformance)
    assert "int8" not in words_on(half)
    assert "int8" not in render.quantized(half)
    assert "98.7% of the bytes are int8" in render.quantized(document)


def test_each_layer_has_its_bar_in_order_and_the_worst_their_histograms() -> None:
    """The strip reads as the model runs; the five worst show how their values lie in both models."""
    text = page(quantized(20))
    bars = re.findall(r"<title>CONV_2D net/conv_(\d+): ([\d.]+) dB</title>", text)
    assert [int(number) for number, _ in bars] == list(range(20))
    assert text.count('aria-label="Histogram of') == 5
    assert text.index("Histogram of CONV_2D net/conv_19") < text.index("Histogram of CONV_2D net/conv_15")


def test_the_pareto_front_and_every_candidate_are_on_the_page() -> None:
    """Of a search: what was chosen and why, the front by size and by latency, and why the others are none."""
    told = words_on(tuned())
    assert "Chosen int8-2 : int8-2 keeps the drop." in told
    assert "3: int8-2, drop +0.0333, 68.0 KB" in told
    assert "3: int8-2, drop +0.0333, 2.7 ms" in told
    assert "chosen; in float: int8/dense" in told
    assert "not for this target; int8 is float." in told
    first, *rest = tuned().candidates
    wide = dataclasses.replace(first, int16_layers=("conv_3",), inconclusive="throttled at 0x4")
    told = words_on(dataclasses.replace(tuned(), candidates=(wide, *rest)))
    assert "throttled at 0x4; in 16 bits: conv_3" in told
    assert "budget 0.05" in told
    assert "measured on pi@kitchen" in told
    untimed = tuple(dataclasses.replace(one, latency_ms=None) for one in tuned().candidates)
    assert page(tuned()).count("<polyline") == 0
    assert page(dataclasses.replace(tuned(), candidates=untimed)).count("<polyline") == 1


@pytest.mark.parametrize(
    ("within", "said"), [(True, "kept"), (False, "NOT kept"), (None, "whether it is kept is not known")]
)
def test_the_budget_and_whether_it_was_kept_are_on_the_page(within: bool | None, said: str) -> None:
    """Whoever reads the page need not remember what was asked."""
    asked = dataclasses.replace(quantized(), max_drop=0.02, within_budget=within)
    assert f"Budget: a drop of at most 0.02; {said} ." in words_on(asked)
    assert "Budget: a drop of at most 0.05; kept ." in words_on(tuned())
    assert "Budget" not in words_on(quantized())


def test_a_budget_that_nothing_keeps_is_told_as_that() -> None:
    """First that it failed, then what came nearest and what to do, then everything that was tried."""
    told = words_on(broken())
    assert "The budget is not kept Budget: top1 may drop by at most 0.01. No candidate keeps it." in told
    assert "The nearest, int8-2, loses 0.0333. Allow --max-drop 0.034." in told
    assert "not for this target; int8 is float." in told
    assert "These are the layers of the nearest candidate." in told
    assert "Chosen" not in told


def test_what_was_not_measured_is_said() -> None:
    """Without samples to judge by, or layers, the page says that instead of showing an empty drawing."""
    told = words_on(dataclasses.replace(quantized(0), accuracy=None, conformance=Conformance(True)))
    assert "Not measured: there were no labelled samples." in told
    assert "No layer was compared; --diagnose does it." in told
    assert "Findings None." in told
    alone = dataclasses.replace(tuned(), candidates=(candidate(0, chosen=True),), layers=())
    assert "Pareto" not in words_on(alone)
    no_reference = dataclasses.replace(ACCURACY, reference=None, drop=None)
    assert "without a reference" in words_on(dataclasses.replace(quantized(), accuracy=no_reference))


def test_an_error_that_grows_is_told_as_one() -> None:
    """Of a mean absolute error less is better: it grows, it does not drop."""
    grown = dataclasses.replace(ACCURACY, metric="mae", smaller_is_better=True)
    assert "→ 0.8500, grows by +0.0500" in words_on(dataclasses.replace(quantized(), accuracy=grown))


def test_several_targets_have_a_section_each() -> None:
    """One page for one run, in the order in which the targets were named."""
    both = QuantizeSetDocument((quantized(target="coral-usb"), quantized(target="generic-gpu")), 1.0)
    told = words_on(both)
    assert told.index("For coral-usb") < told.index("For generic-gpu")


@pytest.mark.parametrize(
    "document", [quantized(9, EVIL), tuned(5, EVIL), broken(5, EVIL)], ids=["quantize", "tune", "broken"]
)
def test_no_name_breaks_out_of_the_page(document: Reportable) -> None:
    """A tensor, file or candidate called <script> is shown as that text: no element, no attribute comes of it."""
    text = page(document)
    reader = Reader(text)
    assert not {"script", "img", "iframe", "link", "object"} & set(reader.tags)
    assert not [name for name, _ in reader.attributes if name.startswith("on") or name in ("src", "href")]
    assert "<script>alert(1)</script>" in " ".join(reader.text)
    assert not {"\x00", "\u202e", "\ud800"} & set(text)
    assert text.encode()


def test_the_page_needs_no_network_and_no_script() -> None:
    """No address, no import, no script; and the browser is told to load and run nothing."""
    for document in (quantized(), tuned(), broken()):
        text = page(document)
        assert "://" not in text
        assert "@import" not in text
        assert "url(" not in text
        assert "default-src 'none'" in Reader(text).attributes[2 + 3][1]  # type: ignore[operator]
        assert "prefers-color-scheme:dark" in text


LONG = "a/" * 400
MANY_FINDINGS = Conformance(True, tuple(Finding(LONG, "note", LONG, LONG * 9, LONG * 9) for _ in range(900)))


@pytest.mark.parametrize(
    "document",
    [
        quantized(5_000),
        quantized(5_000, "model/block/" * 40),
        quantized(5_000, "\"'" * 300),
        tuned(5_000, "<&" * 300),
        broken(5_000, "<&" * 300),
        dataclasses.replace(quantized(5_000), conformance=MANY_FINDINGS),
        QuantizeSetDocument((quantized(5_000, "ü" * 300),) * 12, 1.0),
        QuantizeSetDocument((dataclasses.replace(quantized(2_000, '"' * 999), conformance=MANY_FINDINGS),) * 200, 1.0),
        dataclasses.replace(tuned(900, '"' * 9_999), layers=layers(3_000, "'" * 9_999)),
    ],
    ids=["layers", "names", "escapes", "candidates", "broken", "findings", "targets", "too-many-targets", "all"],
)
def test_a_page_stays_below_500_kb(document: Reportable) -> None:
    """Whatever a document holds, its page can be mailed; it still reads from top to bottom."""
    text = page(document)
    assert len(text.encode()) < MOST_BYTES
    Reader(text)


def test_of_thousands_of_layers_the_worst_are_named() -> None:
    """A bar stands for the worst of its neighbours, so no bad layer hides, and the caption says so."""
    made = list(layers(5_000))
    made[1_234] = dataclasses.replace(made[1_234], sqnr_db=-3.0, tensor="net/the_bad_one")
    told = words_on(dataclasses.replace(quantized(), layers=tuple(made), first_bad_layer="net/the_bad_one"))
    assert "CONV_2D net/the_bad_one: -3.0 dB" in told
    assert "first bad layer" in told
    assert "Each bar is the worst of 14 layers" in told
    assert "the worst 200 of 5000 layers" in told


def test_the_same_document_gives_the_same_bytes() -> None:
    """A page carries no time and no place: it can be kept in version control."""
    assert page(quantized()) == page(quantized())


@settings(max_examples=60)
@given(st.floats(allow_nan=True, allow_infinity=True), st.floats(allow_nan=True, allow_infinity=True))
def test_no_number_breaks_a_drawing(sqnr: float, edge: float) -> None:
    """Whatever was measured, every coordinate is a number that a browser can draw."""
    made = tuple(dataclasses.replace(layer, sqnr_db=sqnr, low=edge) for layer in layers(6))
    accuracy = dataclasses.replace(ACCURACY, drop=edge)
    reader = Reader(page(dataclasses.replace(quantized(), layers=made, accuracy=accuracy)))
    drawn = {"x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "width", "height"}
    numbers = [value for name, value in reader.attributes if name in drawn]
    assert all(re.fullmatch(r"-?\d+(\.\d+)?(e[+-]\d+)?", value or "") for value in numbers)


@given(st.text(st.characters(), max_size=60))
def test_every_text_is_read_back_as_it_was(text: str) -> None:
    """Escaping loses nothing but what no page can show, in text and in attributes."""
    shown = Reader(tag("p", text, title=text))
    clean = Reader(tag("p", escaped(text))).text
    assert shown.tags == ["p"]
    assert shown.text == clean
    allowed = "".join(clean)
    assert shown.attributes[0][1] == allowed
    if text.isascii() and text.isprintable():
        assert allowed == text


@given(st.text(max_size=50), st.integers(1, 40))
def test_a_long_name_keeps_both_ends(text: str, most: int) -> None:
    """What is cut is cut in the middle, marked, and never longer than asked for."""
    cut = shortened(text, most)
    assert len(cut) <= max(most, 0)
    if len(text) <= most:
        assert cut == text
    elif most > 4:
        assert cut[0] == text[0]
        assert cut[-1] == text[-1]
        assert "…" in cut
