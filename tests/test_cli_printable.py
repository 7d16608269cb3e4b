"""What a bundle or a device says reaches a terminal as text, and does nothing there."""

from __future__ import annotations

import dataclasses
import inspect
import io
import json
import logging
import shlex
import subprocess
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from bundle_tiny import FILES, manifest_value, write_tiny
from hypothesis import given
from hypothesis import strategies as st

from edgepack import demo, doctor, documents
from edgepack.cli import render, render_bundle, render_device, render_probe, tune
from edgepack.cli.main import run
from edgepack.cli.progress import Progress
from edgepack.documents import canonical_json
from edgepack.errors import InputError
from edgepack.events import Event
from edgepack.report.page import page
from edgepack.target import Platform
from edgepack.target.lock import shipped_wheels
from edgepack.target.refusal import Surroundings, numpy_mend, python_option, ways_out
from edgepack.words import printable, printable_lines

NASTY = "\x1b[2J\x1b]0;title\x07kws\r\nforged  alice@example.com\u2028forged\x9b31m\u202edrowssap\x7f"

# What strangers can write where a document holds any values.
SAID: dict[str, Any] = {
    "facts": {
        "model": NASTY, "hostname": NASTY, "arch": NASTY, "python": NASTY, "libc": NASTY, "os": NASTY, "release": NASTY,
        "executable": NASTY, "governor": NASTY, "python_versions": {NASTY: NASTY}, "installed": {NASTY: NASTY},
        "delegates": [NASTY], "delegate_paths": {NASTY: NASTY}, "cpu": [NASTY], "cpus": 4,
        "power": [{"name": NASTY, "capacity": NASTY}], "openssh": {"server": NASTY, "client": NASTY},
    },
    "missing": ({"target": NASTY, "missing": NASTY, "mend": NASTY},),
    "warnings": ({"what": NASTY, "mend": NASTY},),
    "device": {"model": NASTY, "arch": NASTY, "python": NASTY, "libc": NASTY},
    "runtime": {"package": NASTY, "version": NASTY},
    "conditions": {"governor": NASTY, "nice": NASTY},
    "releases": ({"release": NASTY, "bytes": 1, "verdict": NASTY, "rechecked": NASTY, "bad": True},),
    "history": ({"at": NASTY, "verb": NASTY, "from": NASTY, "to": NASTY, "outcome": NASTY, "by": NASTY},),
    "platforms": (
        {"python": NASTY, "arch": NASTY, "libc": NASTY, "runtime": {"package": NASTY, "version": NASTY, "wheels": []}},
        {"python": NASTY, "arch": NASTY, "libc": NASTY, "runtime": {"wheels": [], "enough": {NASTY: NASTY}}},
    ),
    "provenance": {"source": {"kind": NASTY, "bytes": 1, "sha256": NASTY}, "libraries": {"tensorflow": NASTY}},
}  # fmt: skip


def said(kind: Any, name: str = "", nasty: str = NASTY, truth: bool = False) -> Any:
    """A value of that type, every text in it nasty, every yes or no the same."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if type(None) in inner:
        return said(next(one for one in inner if one is not type(None)), name, nasty, truth)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return kind(
            **{field.name: said(hints[field.name], field.name, nasty, truth) for field in dataclasses.fields(kind)}
        )  # type: ignore[operator]
    if name in SAID and kind is not str:
        return SAID[name]
    if origin is tuple:
        return (said(inner[0], name, nasty, truth),)
    if origin is not None and issubclass(origin, Mapping):
        return {NASTY: 1} if inner[1] is int else {"hook": NASTY, "code": NASTY, "scheme": NASTY, "bytes": 1}
    return {str: nasty, bool: truth, int: 1, float: 1.0}[kind]


def renderers() -> Iterator[tuple[str, Callable[[], str]]]:
    """Every function that makes text for people of one document, with a nasty one."""
    for module in (render, render_bundle, render_device, render_probe, tune):
        for name, function in inspect.getmembers(module, inspect.isfunction):
            parameters = list(inspect.signature(function).parameters.values())
            if function.__module__ != module.__name__ or name.startswith("_") or not parameters:
                continue
            told = parameters[0].annotation.split(" | ")[0].split(".")[-1]
            kind = next((getattr(home, told) for home in (documents, demo, doctor) if hasattr(home, told)), None)
            if kind is None or not told.endswith("Document") or name == "quantize_exit_code":
                continue
            options: dict[str, Any] = {"dry_run": False} if "dry_run" in str(parameters) else {}
            options |= {"verb": "activated"} if "verb" in [one.name for one in parameters] else {}
            for truth in (False, True):
                document = said(kind, truth=truth)
                yield f"{module.__name__}.{name}", lambda f=function, d=document, o=options: f(d, **o)
    lines = [{"name": NASTY, "what": "values", "before": NASTY, "after": NASTY}]
    kinds = {"kind": NASTY, "type": NASTY, "shape": NASTY, "name": NASTY}
    model = {
        "inputs": lines, "outputs": lines, "operators": {"added": [kinds], "removed": [kinds], "changed": lines},
        "tensors": {"added": [kinds], "removed": [kinds], "changed": lines, "unchanged": 1},
    }  # fmt: skip
    changes = [{"what": NASTY, "before": NASTY, "after": NASTY}]
    for one in (model, {"unreadable": NASTY}):
        yield "bundle_diff", lambda one=one: render_bundle.bundle_diff({"changes": changes, "model": one})


RENDERERS = list(renderers())


@pytest.mark.parametrize("render_nasty", [pytest.param(call, id=name) for name, call in RENDERERS])
def test_no_renderer_lets_a_stranger_s_text_through(render_nasty: Callable[[], str]) -> None:
    """Escape sequences, ends of lines and turned writing in any text of a document are blanks in what is shown."""
    text = render_nasty()
    assert all(line.isprintable() for line in text.split("\n"))
    assert not any(line.startswith("forged") for line in text.split("\n"))


def test_every_document_for_people_was_tried() -> None:
    """The renderers of all verbs that show what a bundle or a device says are among those that are tried."""
    tried = {name.rpartition(".")[2] for name, _ in RENDERERS}
    assert tried >= {
        "inspected", "verified", "bundled", "bundle_diff", "probed", "status", "history", "checked", "pushed",
        "activated", "collected", "trusted", "deployed", "tuned", "quantized", "demo", "doctor",
    }  # fmt: skip


def test_inspect_and_verify_cannot_be_made_to_forge_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A target's name with a forged signature in it stays on its line; --json tells it exactly as it is."""
    monkeypatch.chdir(tmp_path)
    name = "\x1b[1Ax\nsignature  alice@example.com"
    value = manifest_value(FILES, target={"name": name}, provenance={"libraries": {"tensorflow": NASTY}})
    path = str(write_tiny(tmp_path / "b.edgepack", FILES, manifest=canonical_json(value)))
    assert run(["inspect", path]) == 0
    text = capsys.readouterr().out
    assert [line for line in text.splitlines() if line.startswith("signature")] == ["signature  none"]
    assert printable_lines(text) == text
    assert run(["verify", path]) == 0
    assert run(["inspect", "--diff", path, str(write_tiny(tmp_path / "c.edgepack"))]) == 0
    text = capsys.readouterr().out
    assert printable_lines(text) == text
    assert run(["inspect", "--json", path]) == 0
    assert json.loads(capsys.readouterr().out)["target"] == name


def test_progress_errors_and_logs_are_printable_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a device says while a command runs does nothing to a terminal; the file of --events has it exactly."""
    stream = io.StringIO()
    with Progress(stream, quiet=False, events=tmp_path / "e.jsonl") as progress:
        progress(Event("push", NASTY))
    assert stream.getvalue() == f"push: {printable(NASTY)}\n"
    assert json.loads((tmp_path / "e.jsonl").read_text())["message"] == NASTY

    def fail(*_: object, **__: object) -> None:
        logging.getLogger("paramiko").warning("Banner: %s", NASTY)
        raise InputError("odd", NASTY, hint=NASTY)

    monkeypatch.setattr("edgepack.inspect", fail, raising=False)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    assert run(["inspect", "-vv", "x.edgepack"]) == 2
    said = capsys.readouterr().err
    assert "paramiko: Banner: " in said
    assert printable_lines(said) == said
    assert "\x1b" not in said
    assert f"edgepack: {printable(NASTY)}\n" in said


@pytest.mark.parametrize("kind", ["QuantizeDocument", "TuneDocument", "BrokenBudget"])
def test_a_page_shows_a_device_s_words_and_nothing_else_of_them(kind: str) -> None:
    """Markup, escape sequences and turned writing in any text of a document are harmless on the page made of it."""
    document = said(getattr(documents, kind), nasty="<script>alert(1)</script>" + NASTY)
    made = page(document)
    assert "<script" not in made
    assert not set(made) & set("\x1b\x07\x9b\x7f\u202e")


@given(st.text())
def test_printable_text_is_left_as_it_is(text: str) -> None:
    """One line comes out, as long as the text; what was printable is as it was."""
    made = printable(text)
    assert made.isprintable()
    assert [one for one, old in zip(made, text, strict=True) if one != old] == [
        " " for char in text if not char.isprintable()
    ]


def test_a_device_s_path_is_quoted_where_a_command_is_advised(tmp_path: Path) -> None:
    """A Python whose folder has blanks and dollars in its name can be pasted, and starts nothing."""
    python = f"/home/pi/my envs/a$(touch {tmp_path}/run)/bin/python3.11"
    platform = Platform("3.14", "aarch64", "glibc-2.36")
    around = Surroundings(executable=python, pythons=(python,))
    advised = next(way for way in ways_out(platform, shipped_wheels(), around) if "--python" in way)
    assert advised.endswith(python_option(python))
    for command in (python_option(python), numpy_mend("tflite-runtime", platform, None, around).partition(": ")[2]):
        words = subprocess.run(
            ["bash", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        assert python in words
        assert python in shlex.split(command)
    assert not (tmp_path / "run").exists()
