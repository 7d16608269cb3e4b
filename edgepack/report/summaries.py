"""A check in the forms that a CI server reads: JUnit's XML and a Markdown summary. Pure."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence

from edgepack.checkdocuments import CheckDocument, Gate
from edgepack.report.markup import shortened
from edgepack.words import shown_number, size

# What XML 1.0 lets no document hold, escaped or not: https://www.w3.org/TR/xml/#charsets
_UNWRITABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# What begins something in GitHub's and GitLab's Markdown: https://github.github.com/gfm/#backslash-escapes
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#+!|~&@$])|(?<=:)(//)|(?<=www)(\.)")
_LONGEST = 2000
_DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'
JUNIT_MARK = f'{_DECLARATION}<testsuites name="edgepack check"'
MARKDOWN_MARK = "<!-- edgepack check -->"
"""What each summary begins with: by it a file is known as one that may be written over."""
_MARKS = {"pass": "✅", "fail": "❌", "inconclusive": "⚠️"}


def junit(document: CheckDocument) -> str:
    """JUnit's XML, one test case a gate: a gate that fails is a failure, one that is inconclusive is skipped.

    The elements and attributes are those that Jenkins, GitLab and GitHub's actions read
    (https://github.com/testmoapp/junitxml).
    """
    gates = document.gates or tuple(Gate("verdict", document.verdict, reason) for reason in document.reasons)
    failed = sum(gate.outcome == "fail" for gate in gates)
    skipped = sum(gate.outcome == "inconclusive" for gate in gates)
    counts = {"tests": str(len(gates)), "failures": str(failed), "errors": "0", "skipped": str(skipped)}
    seconds = f"{document.seconds:.3f}"
    root = ElementTree.Element("testsuites", {"name": "edgepack check", **counts, "time": seconds})
    name = _writable(f"{document.app} {document.release}")
    suite = ElementTree.SubElement(root, "testsuite", {"name": name, **counts, "time": seconds})
    properties = ElementTree.SubElement(suite, "properties")
    for key, value in (("verdict", document.verdict), ("device", _device(document)), ("runs", document.latency_ms.n)):
        ElementTree.SubElement(properties, "property", {"name": key, "value": _writable(str(value))})
    for gate in gates:
        named = {"classname": f"edgepack.check.{_writable(document.app)}", "name": _writable(gate.name), "time": "0"}
        case = ElementTree.SubElement(suite, "testcase", named)
        reason = _writable(gate.reason)
        if gate.outcome == "fail":
            ElementTree.SubElement(case, "failure", {"message": reason, "type": "gate"}).text = reason
        elif gate.outcome == "inconclusive":
            ElementTree.SubElement(case, "skipped", {"message": f"inconclusive: {reason}"})
        else:
            ElementTree.SubElement(case, "system-out").text = reason
    ElementTree.indent(root)
    return f"{_DECLARATION}{ElementTree.tostring(root, encoding='unicode')}\n"


def markdown(document: CheckDocument) -> str:
    """A summary for a job's page: the verdict, a table of the gates, a table of the numbers."""
    verdict = document.verdict
    heading = f"## {_MARKS.get(verdict, '')} {verdict.upper()}: {_text(document.app)} {_text(document.release)}"
    gates = [(gate.name, f"{_MARKS.get(gate.outcome, '')} {gate.outcome}", gate.reason) for gate in document.gates]
    gates = gates or [("verdict", f"{_MARKS.get(verdict, '')} {verdict}", reason) for reason in document.reasons]
    return "\n".join(
        [
            MARKDOWN_MARK,
            heading,
            "",
            f"On {_text(_device(document))}, {document.latency_ms.n:,} timed runs.",
            "",
            *_table(("gate", "outcome", "why"), gates),
            "",
            *_table(("measured", "value"), _numbers(document)),
            "",
        ]
    )


def _numbers(document: CheckDocument) -> list[tuple[str, str]]:
    latency, accuracy, ratio = document.latency_ms, document.accuracy, document.ratio
    times = [
        *((f"latency {name}", getattr(latency, name)) for name in ("p50", "p90", "p95", "p99")),
        ("first inference", document.first_ms),
        ("loading", document.load_ms),
    ]
    rows = [(name, f"{shown_number(value, 3)} ms") for name, value in times if value is not None]
    if document.peak_rss_bytes is not None:
        rows.append(("peak memory", size(document.peak_rss_bytes)))
    rows.append(("model", size(document.model_bytes)))
    if accuracy is not None:
        rows.append((accuracy.metric, f"{shown_number(accuracy.quantized, 4)} over {accuracy.samples:,} samples"))
        if accuracy.drop is not None:
            rows.append((f"{accuracy.metric} drop", f"{accuracy.drop:+.4f}"))
    if ratio is not None:
        told = f"{ratio.estimate:.3f} ({ratio.low:.3f} to {ratio.high:.3f})"
        rows.append((f"{ratio.statistic} over that of {ratio.release}", told))
    return rows


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(heads)} |",
        f"|{' --- |' * len(heads)}",
        *(f"| {' | '.join(map(_text, row))} |" for row in rows),
    ]


def _device(document: CheckDocument) -> str:
    return str(document.device.get("model") or document.device.get("hostname") or "a device")


def _writable(text: str) -> str:
    return _UNWRITABLE.sub("\ufffd", shortened(text, _LONGEST))


def _text(text: str) -> str:
    """Somebody's text as one line of Markdown that shows it and does nothing else."""
    line = " ".join(_writable(text).split())
    return _SPECIAL.sub(lambda found: "\\/\\/" if found[2] else f"\\{found[0]}", line)
