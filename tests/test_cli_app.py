"""Which app a command is about: --app, EDGEPACK_APP, the bundle's own name, edgepack.toml; a contradiction is told."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from deploying import TINY, tiny_bundle

from edgepack.cli.main import run


@pytest.fixture
def where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """This machine as a device that holds nothing yet, seen from an empty folder."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("EDGEPACK_APP", raising=False)
    return [f"local:{tmp_path}/device", "--python", sys.executable]


def answer(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> tuple[int, dict[str, object]]:
    """The exit code and the document of one command line, or its error."""
    code = run([*arguments, "--json"])
    document = json.loads(capsys.readouterr().out)
    return code, document.get("error", document)


@pytest.mark.parametrize("verb", ["push", "deploy"])
@pytest.mark.parametrize("by", ["--app", "EDGEPACK_APP"])
def test_a_bundle_of_another_app_is_refused(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: list[str],
    verb: str,
    by: str,
) -> None:
    """Neither push nor deploy takes a bundle of another app than the one that was named, in whichever way it was."""
    path, _ = tiny_bundle(tmp_path, budget={"p50_ms": 500.0})
    places = [where[0], str(path)] if verb == "deploy" else [str(path), where[0]]
    arguments = [verb, *places, *where[1:]]
    if by == "--app":
        arguments += ["--app", "other"]
    else:
        monkeypatch.setenv("EDGEPACK_APP", "other")
    code, error = answer(capsys, arguments)
    assert code == 2
    assert "of the app tiny, not of other" in str(error["message"])
    assert not (tmp_path / "device").exists()


def test_deploy_takes_the_app_s_name_from_app(capsys: pytest.CaptureFixture[str], where: list[str]) -> None:
    """--app names what is built, as --name does; two names are a contradiction."""
    code, error = answer(capsys, ["deploy", where[0], str(TINY), *where[1:], "--app", "kws"])
    assert code == 2
    assert str(error["message"]) == "--target, --version are missing."
    code, error = answer(capsys, ["deploy", where[0], str(TINY), *where[1:], "--app", "kws", "--name", "tiny"])
    assert code == 2
    assert "--name says tiny, --app (or EDGEPACK_APP) says kws" in str(error["message"])


def test_another_app_s_hooks_and_budget_are_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, where: list[str]
) -> None:
    """In the folder of kws no command runs kws's hooks or holds kws's budget for another app; reading is free."""
    path, _ = tiny_bundle(tmp_path, budget={"p50_ms": 500.0})
    assert answer(capsys, ["push", str(path), *where])[0] == 0
    toml = '[app]\nname = "kws"\n[hooks]\nafter_activate = ["true"]\n[budget]\np95_ms = 9.0\n'
    Path("edgepack.toml").write_text(toml, encoding="utf-8")
    for arguments in (
        ["deploy", where[0], str(path), *where[1:]],
        ["check", *where, "--app", "tiny"],
        ["activate", *where, "--app", "tiny", "--unchecked"],
        ["rollback", *where, "--app", "tiny"],
    ):
        code, error = answer(capsys, arguments)
        assert (code, error["code"]) == (2, "other-app"), arguments
        assert "tiny" in str(error["hint"])
    code, status = answer(capsys, ["status", *where, "--app", "tiny"])
    assert (code, status["current"]) == (0, None)


def test_probe_takes_no_app(capsys: pytest.CaptureFixture[str], where: list[str]) -> None:
    """What a device is, is no app's: an option that could change nothing is not there."""
    code, error = answer(capsys, ["probe", *where, "--app", "kws"])
    assert code == 2
    assert "--app" in str(error["message"])
