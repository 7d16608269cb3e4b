"""The main job by its commands, as a person types them and as a script reads them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from deploying import tiny_bundle

from edgepack.cli.main import run


def test_the_release_life_by_commands(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each command answers people in text and scripts with one JSON document, and exits 0 where all went well."""
    monkeypatch.chdir(tmp_path)
    first, _ = tiny_bundle(tmp_path / "one", version="1", budget={"p50_ms": 500.0})
    second, _ = tiny_bundle(tmp_path / "two", version="2", budget={"p50_ms": 500.0})
    where = [f"local:{tmp_path}/device", "--python", sys.executable]
    lines = [
        *([verb, str(first)] for verb in ("inspect", "verify")),
        ["inspect", "--diff", str(first), str(second)],
        ["probe", *where],
        *(
            [verb, *bundle, *where]
            for bundle in ([str(first)], [str(second)])
            for verb, bundle in (("push", bundle), ("check", []), ("activate", []))
        ),
        *([verb, *where] for verb in ("status", "history", "rollback", "status", "gc")),
        ["deploy", where[0], str(second), *where[1:]],
        ["targets", "list"],
        ["targets", "show", "coral-usb"],
        ["init", "project"],
    ]
    for line in lines:
        assert run(line) == 0, line
        assert capsys.readouterr().out.strip(), line
        again = [*line, "--force"] if line[0] == "init" else line
        if line[0] != "rollback":  # there is nothing further back
            assert run([*again, "--json"]) == 0, line
            assert json.loads(capsys.readouterr().out)["schema"] == 1, line
