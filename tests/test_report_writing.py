"""Getting a report: beside a model, or from a document that was kept; never over what is not a report."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deploying import TINY
from report_documents import checked, quantized, tuned

import edgepack
from edgepack.cli.main import run
from edgepack.documents import QuantizeSetDocument, to_json, to_json_value
from edgepack.errors import InputError
from edgepack.hostruntime import HostModel
from edgepack.report.page import page
from edgepack.report.reading import read_document
from edgepack.tflite import read_model

SEVERAL = QuantizeSetDocument((quantized(), quantized(0)), 1.0)


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def kept(document: Any, name: str = "kept.json") -> Path:
    """A document as ``--json`` prints it, in a file."""
    path = Path(name)
    path.write_text(to_json(to_json_value(document)), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "document", [quantized(), tuned(), SEVERAL, checked()], ids=["quantize", "tune", "several", "check"]
)
def test_a_kept_document_gives_the_same_page_as_its_value(document: Any) -> None:
    """JSON loses nothing that a report shows."""
    path = kept(document)
    assert read_document(path) == document
    assert run(["report", str(path), "-o", "kept.html", "--quiet"]) == 0
    assert Path("kept.html").read_text(encoding="utf-8") == page(document)
    assert edgepack.report(document, output="value.html").bytes == Path("kept.html").stat().st_size
    assert Path("value.html").read_bytes() == Path("kept.html").read_bytes()


def test_a_document_is_read_from_standard_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`quantize --json | report -` needs no file between; what is no document is refused as one in a file is."""
    for content, code in ((to_json(to_json_value(quantized())), 0), ("no", 2)):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
        assert run(["report", "-", "-o", "kept.html", "--quiet"]) == code
    assert Path("kept.html").read_text(encoding="utf-8") == page(quantized())
    assert "standard input cannot be read as a document: it is no JSON" in capsys.readouterr().err


def test_a_document_of_a_later_edgepack_is_read() -> None:
    """Fields that it does not know are left alone, fields with a default may be missing."""
    value = to_json_value(quantized()) | {"later": {"a": 1}}
    del value["report"], value["layers_left_out"]
    Path("later.json").write_text(json.dumps(value))
    assert page(read_document(Path("later.json"))) != page(quantized())  # two layers fewer are left out
    assert read_document(Path("later.json")).layers == quantized().layers  # type: ignore[union-attr]


GOOD = to_json_value(quantized(3))


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [
        ("", "bad-document", "it is no JSON"),
        ("[" * 100_000, "bad-document", "it is no JSON"),
        ("[]", "bad-document", "it is no document of edgepack"),
        ('{"model": 1}', "bad-document", "it is no document of edgepack"),
        ('{"schema": 1, "verdict": "pass", "reasons": []}', "no-report", "kept.json is no document of quantize"),
        ('{"schema": 2, "models": []}', "bad-document", "its schema is 2"),
        ('{"schema": 1, "models": 3, "seconds": 1}', "bad-document", "models is no list"),
        ('{"schema": 1, "models": [{}], "seconds": 1}', "bad-document", "models[0].model is missing"),
        (GOOD | {"model": []}, "bad-document", "model is no object"),
        (GOOD | {"target": 7}, "bad-document", "target is no str"),
        (GOOD | {"seconds": True}, "bad-document", "seconds is no float"),
        (GOOD | {"seconds": 10**400}, "bad-document", "seconds is no float"),
        (json.dumps(GOOD).replace('"seconds": 1.0', '"seconds": 1e999'), "bad-document", "seconds is no float"),
        (json.dumps(GOOD).replace('"seconds": 1.0', '"seconds": NaN'), "bad-document", "it is no JSON"),
        (GOOD | {"layers_left_out": 1.5}, "bad-document", "layers_left_out is no int"),
        (b"\xff\xfe\x00", "bad-document", "it is no JSON"),
    ],
)  # fmt: skip
def test_what_is_no_such_document_is_refused_by_name(content: Any, code: str, said: str) -> None:
    """What is wrong, and at which field; no page is left."""
    data = content if isinstance(content, (str, bytes)) else json.dumps(content)
    Path("kept.json").write_bytes(data if isinstance(data, bytes) else data.encode())
    with pytest.raises(InputError) as caught:
        edgepack.report("kept.json", output="kept.html")
    assert caught.value.code == code
    assert said in caught.value.message
    assert "--json" in caught.value.hint
    assert not Path("kept.html").exists()


def test_a_value_that_is_no_such_document_is_refused() -> None:
    """In Python as on the command line."""
    with pytest.raises(InputError, match="A dict is no document of quantize, tune or check"):
        edgepack.report({}, output="kept.html")  # type: ignore[arg-type]


def test_a_document_that_is_not_there_is_refused() -> None:
    """A slip in the name is one sentence."""
    with pytest.raises(InputError, match=r"none\.json cannot be read"):
        edgepack.report("none.json", output="kept.html")


@pytest.mark.parametrize("name", ["mine.html", "kept.json", "folder.html", "missing/out.html", "out.txt"])
def test_a_report_is_never_written_over_anything_else(name: str) -> None:
    """A page of somebody else's, the document itself, a folder, no folder, another kind of name."""
    path = kept(quantized())
    Path("mine.html").write_text("<!doctype html><title>mine</title>")
    Path("folder.html").mkdir()
    with pytest.raises(InputError) as caught:
        edgepack.report(path, output=name)
    assert caught.value.code == "bad-output"
    assert Path("mine.html").read_text() == "<!doctype html><title>mine</title>"
    assert read_document(path) == quantized()


def test_a_report_replaces_a_report_and_a_dry_run_writes_none(capsys: pytest.CaptureFixture[str]) -> None:
    """The same command again is no error."""
    path = kept(quantized())
    assert run(["report", str(path), "-o", "kept.html", "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert not Path("kept.html").exists()
    for _ in range(2):
        assert run(["report", str(path), "-o", "kept.html"]) == 0
    size = Path("kept.html").stat().st_size
    assert {key: value for key, value in told.items() if value is not None} == {
        "schema": 1, "path": "kept.html", "bytes": size, "dry_run": True,
    }  # fmt: skip
    assert "wrote kept.html" in capsys.readouterr().out
    assert sorted(path.name for path in Path().iterdir()) == ["kept.html", "kept.json"]


@pytest.fixture
def tiny(tmp_path: Path) -> list[str]:
    """A command line that quantizes a small float .tflite without TensorFlow."""
    pytest.importorskip("ai_edge_litert")
    pytest.importorskip("litert_quantizer")
    shutil.copyfile(TINY.with_name("tiny_spiky.float.tflite"), tmp_path / "m.tflite")
    random = np.random.default_rng(0)
    np.savez(tmp_path / "s.npz", x=random.normal(size=(220, 6)).astype(np.float32), y=np.arange(220) % 4)
    return ["quantize", "m.tflite", "--calibration", "s.npz#0:110", "--eval", "s.npz#110:220"]


def test_quantize_writes_a_page_with_its_layers(tiny: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """``--report`` looks into the layers, says where the page is, and the page is that of the document."""
    assert run([*tiny, "-t", "generic-cpu", "-o", "o.tflite", "--report", "o.html", "--json", "--quiet"]) == 0
    Path("o.json").write_text(capsys.readouterr().out)
    document = read_document(Path("o.json"))
    assert document.report == "o.html"  # type: ignore[union-attr]
    assert document.layers  # type: ignore[union-attr]
    assert Path("o.html").read_text(encoding="utf-8") == page(document)


def test_the_shares_of_the_model_are_told(tiny: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """What is in 8 bits and what the accelerator takes stand in the document and on the page."""
    assert run([*tiny, "-t", "stm32mp25-npu", "-o", "o.tflite", "--report", "o.html", "--json", "--quiet"]) == 0
    conformance = json.loads(capsys.readouterr().out)["conformance"]
    assert conformance["int8_weight_share"] == 1.0
    assert conformance["delegated_share"] == 1.0
    assert "takes 100.0% of the operators" in Path("o.html").read_text(encoding="utf-8")


def test_several_targets_share_a_page_and_a_dry_run_has_none(
    tiny: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Each target's document names the one page; in a dry run it is only said where it would be."""
    both = [*tiny, "-t", "generic-cpu", "-t", "generic-gpu", "-o", "{target}.tflite", "--report", "both.html"]
    assert run([*both, "--dry-run", "--quiet"]) == 0
    assert "both.html" in capsys.readouterr().out
    assert not Path("both.html").exists()
    assert run([*both, "--quiet"]) == 0
    text = Path("both.html").read_text(encoding="utf-8")
    assert "For generic-cpu" in text
    assert "For generic-gpu" in text


@pytest.mark.parametrize("command", ["quantize", "tune"])
def test_a_place_that_cannot_be_is_told_before_anything_is_done(
    tiny: list[str], command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """No minutes of conversion for a page that cannot be written."""
    Path("mine.html").write_text("mine")
    words = [command, *tiny[1:], "-t", "generic-cpu", "-o", "o.tflite", "--report", "mine.html"]
    assert run([*words, *(["--max-drop", "0.5"] if command == "tune" else [])]) == 2
    assert "mine.html exists and is not a report of edgepack" in " ".join(capsys.readouterr().err.split())
    assert not Path("o.tflite").exists()
    assert Path("mine.html").read_text() == "mine"


def test_tune_writes_a_page_with_its_candidates(tiny: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """``--report`` of a search has every candidate that was tried."""
    words = ["tune", *tiny[1:], "-t", "generic-gpu", "-o", "o.tflite", "--max-drop", "0.9", "--report", "o.html"]
    assert run([*words, "--json", "--quiet"]) == 0
    Path("o.json").write_text(capsys.readouterr().out)
    assert Path("o.html").read_text(encoding="utf-8") == page(read_document(Path("o.json")))
    assert "float16" in Path("o.html").read_text(encoding="utf-8")


def test_a_search_that_keeps_no_budget_has_its_page(tiny: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 1 all the same; the page says it plainly, the error where the page is, and the kept error gives it again."""
    with np.load("s.npz") as samples:
        x = samples["x"]
    (name, tensor), *_ = read_model(Path("m.tflite")).named_inputs
    host = HostModel(Path("m.tflite"))
    labels = [next(iter(host.run({name: row.reshape(tensor.shape)}).values())).argmax() for row in x]
    np.savez("s.npz", x=x, y=np.array(labels))
    words = ["tune", *tiny[1:], "-t", "stm32mp25-npu", "-o", "o.tflite", "--max-drop", "0", "--report", "o.html"]
    assert run([*words, "--json", "--quiet"]) == 1
    Path("o.json").write_text(capsys.readouterr().out)
    error = json.loads(Path("o.json").read_text())["error"]
    assert (error["code"], error["details"]["report"]) == ("no-candidate-keeps-budget", "o.html")
    assert "What was tried: o.html." in error["hint"]
    text = Path("o.html").read_text(encoding="utf-8")
    assert "may drop by at most 0. No candidate keeps it." in text
    assert error["details"]["nearest"]["name"] in text
    assert not Path("o.tflite").exists()
    assert run(["report", "o.json", "-o", "again.html"]) == 0
    assert "No candidate keeps it." in Path("again.html").read_text(encoding="utf-8")
