"""A check as a CI server reads it: JUnit's XML and a Markdown summary, from `check` itself or from its document."""

from __future__ import annotations

import dataclasses
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_documents import checked, quantized

import edgepack
from edgepack.cli.main import run
from edgepack.documents import to_json_value
from edgepack.errors import InputError
from edgepack.report.summaries import junit, markdown


def parsed(text: str) -> ElementTree.Element:
    """The root of an XML document."""
    return ElementTree.fromstring(text)  # noqa: S314 - our own


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_each_gate_is_a_test_case() -> None:
    """A gate that fails is a failure, one that is inconclusive is skipped, each with its reason."""
    root = parsed(junit(checked()))
    suite = root.find("testsuite")
    assert root.tag == "testsuites"
    assert suite is not None
    assert {key: suite.get(key) for key in ("tests", "failures", "errors", "skipped")} == {
        "tests": "3", "failures": "1", "errors": "0", "skipped": "1",
    }  # fmt: skip
    cases = {case.get("name"): case for case in suite.iter("testcase")}
    assert set(cases) == {"p95_ms", "max_accuracy_drop", "model_bytes"}
    assert all(case.get("classname") == "edgepack.check.kws" for case in cases.values())
    failure, skipped = cases["p95_ms"].find("failure"), cases["max_accuracy_drop"].find("skipped")
    assert failure is not None
    assert skipped is not None
    assert failure.get("message") == "kws: p95 latency is 9.1 ms, more than 9 ms."
    assert skipped.get("message") == "inconclusive: kws: top1 drops by 0.05."
    assert [child.tag for child in cases["model_bytes"]] == ["system-out"]


def test_a_check_without_gates_still_has_its_verdict() -> None:
    """The document of an older edgepack has reasons alone."""
    older = dataclasses.replace(checked(), gates=())
    case = parsed(junit(older)).find("testsuite/testcase")
    assert case is not None
    assert case.get("name") == "verdict"
    assert case.find("failure") is not None
    assert "| verdict | ❌ fail | kws is too slow. |" in markdown(older)


def test_a_summary_has_the_verdict_the_gates_and_the_numbers() -> None:
    """What a reviewer wants to see beside the change."""
    text = markdown(checked())
    assert "## ❌ FAIL: kws kws-1.0.0-0123456789ab" in text
    assert "| p95\\_ms | ❌ fail | kws: p95 latency is 9.1 ms, more than 9 ms. |" in text
    assert "| latency p95 | 9.100 ms |" in text
    assert "| top1 drop | \\+0.0500 |" in text
    assert "| p50 over that of kws-0.9.0 | 1.030 (1.010 to 1.050) |" in text


@given(st.text(st.characters(), max_size=80))
def test_no_name_breaks_a_summary(name: str) -> None:
    """Any text stays in its cell and in its attribute: XML that parses, and tables of whole rows."""
    document = checked(8, 0, name)
    root = parsed(junit(document))
    assert len(root.findall("testsuite/testcase")) == 3
    lines = [line for line in markdown(document).split("\n") if line.startswith("| p95")]
    assert len(lines) == 1
    assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", lines[0])) == 4


def test_what_markdown_would_make_of_a_name_is_not_made() -> None:
    """No link, no picture, no HTML, no address that somebody could be led to."""
    text = markdown(checked(8, 0, "![x](http://evil) <b>`a|b` www.evil"))
    assert "\\!\\[x\\](http:\\/\\/evil) \\<b\\>\\`a\\|b\\` www\\.evil" in text


def test_report_writes_summaries_of_a_kept_check(capsys: pytest.CaptureFixture[str]) -> None:
    """With or without a page; again is no error; a job's empty summary file may be written."""
    Path("kept.json").write_text(json.dumps(to_json_value(checked())))
    Path("summary").touch()
    for _ in range(2):
        assert run(["report", "kept.json", "--junit", "gates.xml", "--markdown", "summary"]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == ["wrote gates.xml", "wrote summary"]
    assert Path("gates.xml").read_text() == junit(checked())
    assert Path("summary").read_text() == markdown(checked())
    made = edgepack.report(checked(), output="all.html", junit="gates.xml", dry_run=True)
    assert (made.path, made.junit, made.markdown) == ("all.html", "gates.xml", None)
    assert not Path("all.html").exists()


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({}, "usage"),
        ({"junit": "gates.txt"}, "bad-output"),
        ({"junit": "mine.xml"}, "bad-output"),
        ({"markdown": "mine.md"}, "bad-output"),
        ({"output": "a.html", "markdown": "a.html"}, "bad-output"),
        ({"junit": "none/gates.xml"}, "bad-output"),
    ],
)
def test_a_summary_is_never_written_over_anything_else(options: dict[str, str], code: str) -> None:
    """Somebody's own XML or notes, a folder that is not there, one file for two things."""
    Path("mine.xml").write_text("<mine/>")
    Path("mine.md").write_text("# mine")
    with pytest.raises(InputError) as caught:
        edgepack.report(checked(), **options)  # type: ignore[arg-type]
    assert caught.value.code == code
    assert Path("mine.xml").read_text() == "<mine/>"
    assert Path("mine.md").read_text() == "# mine"
    assert sorted(path.name for path in Path().iterdir()) == ["mine.md", "mine.xml"]


def test_what_is_no_check_has_no_gates() -> None:
    """A quantized model has a page, and no summary for CI."""
    with pytest.raises(InputError) as caught:
        edgepack.report(quantized(), junit="gates.xml")
    assert caught.value.code == "no-gates"
    assert not Path("gates.xml").exists()
