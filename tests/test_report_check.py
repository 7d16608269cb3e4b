"""The page of a check: the verdict first, everything that it rests on below, its samples whole, in one small file."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_documents import checked
from test_report_page import EVIL, Reader

from edgepack.documents import CheckDocument, Evidence, Gate, LatencyMs, to_json_value
from edgepack.report.checkpage import MOST_CHECK_BYTES
from edgepack.report.packing import UnpackingError, block_of, data_block, packed_document, unpacked_document
from edgepack.report.page import page

BARE = CheckDocument(
    "inconclusive", ("Not a single run was measured.",), "kws", "1.0.0-0123456789ab",
    LatencyMs(None, None, None, None, None, None, 0), None, None, 1, None, None, {}, {}, {}, {}, 0.0,
)  # fmt: skip


def words_on(document: CheckDocument) -> str:
    """All text of the document's page in one line, without its data."""
    return " ".join(" ".join(Reader(page(document).split("<script", 1)[0] + "</body></html>").text).split())


def document_on(text: str) -> Any:
    """The data of a page, unpacked."""
    return unpacked_document(json.loads(block_of(text)))


def test_the_verdict_comes_first_then_its_gates_then_what_they_rest_on() -> None:
    """Who reads one line knows the outcome; who reads on finds each number of the check, with its unit."""
    told = words_on(checked())
    order = ["FAIL", "p95_ms fail", "Latency and memory", "Against the current", "Accuracy", "Parity", "Conditions"]
    places = [told.index(words, told.index("Provenance") + 1) for words in order]
    assert places == sorted(places)
    for fact in (
        "p95 9.100 ms 9.000 to 9.200 ms (95%) 9 ms", "p99 too few runs", "12.3 ms", "80.0 ms", "34.0 MB", "50 %",
        "1.030 times", "1.010 to 1.050, from 4 pairs", "kws-0.9.0", "over 400 labelled samples", "99.00 %",
        "The first layer that differs beyond tolerance is kws/conv_7", "diverging layer", "kws/conv_1", "3.200 ms",
        "governor kws", "frequencies · wished khz 1", "tflite-runtime", "aarch64", "max accuracy drop 0.03",
        "temperature, °C", "clock, MHz", "throttled: 0x4",
    ):  # fmt: skip
        assert fact in told


def test_what_was_not_measured_is_one_sentence_and_no_empty_drawing() -> None:
    """A section without data says why; nothing is drawn for it."""
    told = words_on(BARE)
    assert "<svg" not in page(BARE)
    for sentence in (
        "No curve is drawn, because not a single run was timed.",
        "No other release ran beside this one; --against current does that.",
        "Not measured: the release carries no labelled check set",
        "Not compared: the release carries no outputs of the host",
        "The device's runtime tells no time by operator.",
        "The device told nothing about its conditions.",
    ):
        assert sentence in told
    older = dataclasses.replace(checked(), evidence=None)
    assert "this document holds no single runs: an older edgepack made it" in words_on(older)


@pytest.mark.parametrize("document", [checked(), checked(5_000, 0), BARE], ids=["whole", "many", "bare"])
def test_a_page_holds_its_document_whole(document: CheckDocument) -> None:
    """Each sample is in the page as it was measured, whatever the drawings leave out."""
    assert document_on(page(document)) == json.loads(json.dumps(to_json_value(document)))


def test_fifty_thousand_runs_and_ten_thousand_samples_fit_below_300_kb() -> None:
    """The longest check that a device makes can be mailed, and computed again."""
    text = page(checked(50_000, 10_000))
    assert len(text.encode()) < MOST_CHECK_BYTES
    assert len(document_on(text)["evidence"]["latency_ns"]) == 50_000
    Reader(text)


def test_what_cannot_fit_is_left_out_and_said() -> None:
    """The samples stay in the document; the page says that it has none, and stays small."""
    noise = tuple(pow(place, 5, (1 << 61) - 1) for place in range(50_000))
    document = dataclasses.replace(checked(), evidence=Evidence(noise))
    text = page(document)
    assert len(text.encode()) < MOST_CHECK_BYTES
    assert "The samples do not fit into this page and are left out" in text
    assert json.loads(block_of(text))["left_out"] == ["evidence"]
    long = dataclasses.replace(checked(), gates=tuple(Gate("x" * 999, "pass", "&" * 9_999) for _ in range(900)))
    text = page(long)
    assert len(text.encode()) < MOST_CHECK_BYTES
    assert "more gates are not shown" in text
    assert json.loads(block_of(text))["left_out"] == ["everything"]


def test_no_name_breaks_out_of_the_page_or_its_data() -> None:
    """A device, release, layer or governor called </script><script> is text, in the page and in its JSON."""
    document = checked(name=EVIL)
    text = page(document)
    reader = Reader(text)
    assert reader.tags.count("script") == 1
    assert not {"img", "iframe", "link", "object"} & set(reader.tags)
    assert not [name for name, value in reader.attributes if name.startswith("on") or name == "src"]
    assert all(value and value.startswith("#") for name, value in reader.attributes if name == "href")
    assert not {"\x00", "\u202e", "\ud800"} & set(text)
    assert document_on(text)["app"] == EVIL
    assert "://" not in text


def test_the_page_can_be_read_by_keyboard_and_by_ear() -> None:
    """One h1, landmarks, a caption for each table, a name for each drawing, a link to each section."""
    text = page(checked())
    assert text.count("<h1>") == text.count("<main>") == text.count("<nav ") == 1
    assert text.count("<table") == text.count("<caption>")
    drawings = re.findall(r"<svg[^>]*>", text)
    assert all('role="img"' in one and re.search(r'aria-label="[^"]+"', one) for one in drawings)
    links = re.findall(r'<li><a href="#(\w+)"', text)
    assert links == re.findall(r'<section id="(\w+)" aria-labelledby="\w+-heading"', text)
    assert len(links) == 8
    assert text.count('class="scroll"') == text.count('class="scroll" tabindex="0" role="region" aria-label="')


def test_of_many_classes_the_pairs_that_are_mixed_up_are_told() -> None:
    """A matrix of a thousand classes is no picture; the worst confusions are a table."""
    document = checked()
    assert document.evidence is not None
    labels = tuple(range(1000))
    classes = dataclasses.replace(document.evidence.classes, labels=labels, device=(7, *labels[1:]), reference=None)  # type: ignore[type-var]
    told = words_on(dataclasses.replace(document, evidence=dataclasses.replace(document.evidence, classes=classes)))
    assert (
        "The pairs of 1000 classes that are most often mixed up (1 of 1). label the device said samples 0 7 1" in told
    )


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, (1 << 63) - 1), min_size=1, max_size=80),
    st.floats(0, 1e12),
    st.lists(st.dictionaries(st.sampled_from(["run", "temperature_c", "clock_khz"]), st.floats(-9e9, 9e9)), max_size=9),
)  # fmt: skip
def test_no_number_breaks_a_drawing(latency: list[int], limit: float, series: list[dict[str, float]]) -> None:
    """Whatever was measured, every coordinate is a number that a browser can draw, and the data come back."""
    evidence = Evidence(tuple(latency), tuple(latency[:3]), series=tuple(series))
    document = dataclasses.replace(checked(), evidence=evidence, budget={"p50_ms": limit})
    text = page(document)
    drawn = {"x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "width", "height"}
    numbers = [value for name, value in Reader(text).attributes if name in drawn]
    assert all(re.fullmatch(r"-?\d+(\.\d+)?(e[+-]\d+)?", value or "") for value in numbers)
    assert "nan" not in "".join(re.findall(r' (?:d|points)="([^"]*)"', text))
    assert document_on(text)["evidence"]["latency_ns"] == latency


PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
JSON = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=60) | st.dictionaries(st.text(), inner))


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text().filter(lambda key: key != "packed"), JSON))
def test_packing_loses_nothing(evidence: dict[str, Any]) -> None:
    """Any JSON comes back as it was, through the page's own text."""
    if '"packed"' not in json.dumps(evidence):
        text = str(data_block(packed_document({"evidence": evidence})))
        assert unpacked_document(json.loads(block_of(text))) == {"evidence": evidence}


@pytest.mark.parametrize(
    ("packed", "said"),
    [
        ({"packed": "integers", "count": 1 << 40, "width": 8, "data": ""}, "how long"),
        ({"packed": "integers", "count": 3, "width": 9, "data": ""}, "how wide"),
        ({"packed": "integers", "count": 3, "width": 1, "data": "eJxjZGQCAAAOAAc="}, "holds 0 bytes|damaged|bytes"),
        ({"packed": "json", "count": 3, "data": "no base64!"}, "damaged"),
        ({"packed": "json", "count": 3, "data": "eJyLNgQAAOcAjQ=="}, "no JSON|damaged"),
        ({"packed": "json", "count": True, "data": ""}, "how long"),
    ],
)
def test_packed_data_that_lie_are_refused(packed: dict[str, Any], said: str) -> None:
    """A few bytes cannot claim to be gigabytes, nor anything else than they are."""
    with pytest.raises(UnpackingError, match=said):
        unpacked_document({"evidence": {"latency_ns": packed}})
