"""What commands answer, to people and to scripts: where a value comes from, what a dry run was, what was meant."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bundle_models import write_model
from deploying import tiny_bundle

import edgepack
from edgepack.bundle.build import build_bundle
from edgepack.cli.main import run
from edgepack.cli.progress import Progress
from edgepack.errors import InputError
from edgepack.events import Event
from edgepack.target import load_target
from edgepack.target.find import builtin_folder
from edgepack.target.written import profile_toml


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        """What a terminal says."""
        return True


def answer(capsys: pytest.CaptureFixture[str], *line: str, code: int = 0) -> dict[str, Any]:
    """The JSON document of a command."""
    assert run([*line, "--json"]) == code, line
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_dry_run_s_document_says_that_it_is_one(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A script that reads `--dry-run --json` cannot take it for what was done; the real run's has no such word."""
    path, document = tiny_bundle(tmp_path)
    where = [f"local:{tmp_path}/device", "--python", sys.executable]
    bundle = ["bundle", str(write_model(tmp_path)), "-t", "generic-cpu", "--name", "a", "--version", "1"]
    bundle += ["--without-runtime", "-o", str(tmp_path / "o.edgepack")]
    for line in ([*bundle], ["push", str(path), *where], ["init", str(tmp_path / "new")]):
        assert answer(capsys, *line, "--dry-run")["dry_run"] is True
    assert "dry_run" not in answer(capsys, "push", str(path), *where)
    for line in (["activate", *where, "--unchecked"], ["gc", *where], ["deploy", where[0], str(path), *where[1:]]):
        assert answer(capsys, *line, "--dry-run")["dry_run"] is True
    done = answer(capsys, "activate", *where, "--unchecked")
    assert (done["previous"], done["changed"]) == (None, True)
    again = answer(capsys, "activate", *where, "--unchecked")
    assert (again["changed"], again["current"]) == (False, document.release)
    assert again["previous"] is None is answer(capsys, "status", *where)["previous"]


def test_a_terminal_shows_a_verdict_once(tmp_path: Path) -> None:
    """The verdict's sentences are in the answer: progress does not say them before it; an events file has them."""
    terminal = Terminal()
    log = tmp_path / "events.jsonl"
    with Progress(terminal, quiet=False, events=log) as report:
        report(Event("check", "measuring"))
        report(Event("check", "pass: p95 is kept.", concludes=True))
    assert terminal.getvalue() == "check: measuring\n"
    assert "pass: p95 is kept." in log.read_text()


def test_a_diff_sees_signatures_and_keeps_types(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A counter is a number and what is absent is null for scripts; who signed is a change, too."""
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    model = write_model(tmp_path)
    for name, more in (("plain", {}), ("signed", {"sign_key": key, "counter": 7})):
        build_bundle(
            model, target=load_target("generic-cpu"), name="a", version="1", output=tmp_path / name,
            with_runtime=False, **more,  # type: ignore[arg-type]
        )  # fmt: skip
    line = ["inspect", "--diff", str(tmp_path / "plain"), str(tmp_path / "signed")]
    changes = {one["what"]: (one["before"], one["after"]) for one in answer(capsys, *line)["changes"]}
    assert changes["counter"] == (None, 7)
    before, after = changes["signature.fingerprint"]
    assert before is None
    assert after.startswith("SHA256:")
    assert run(line) == 0
    shown = capsys.readouterr().out
    assert re.search(r"counter +absent +7\n", shown)
    assert re.search(r"signature.fingerprint +absent +SHA256:", shown)


@pytest.mark.parametrize("name", sorted(path.stem for path in builtin_folder().glob("*.toml")))
def test_a_profile_is_shown_as_one_to_copy(name: str, tmp_path: Path) -> None:
    """`targets show --toml` prints a profile that is complete: read again, it is the same target."""
    found = load_target(name)
    copy = tmp_path / "copy.toml"
    copy.write_text(profile_toml(found))
    assert dataclasses.replace(load_target(copy), name=name) == found
    options = dataclasses.replace(
        found, delegate=dataclasses.replace(found.delegate, library="x.so", options=(("a b", '"1"'), ("c", "2")))
    )
    copy.write_text(profile_toml(options))
    assert dataclasses.replace(load_target(copy), name=name) == options


def test_targets_say_where_they_come_from(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Built in, from ./targets or from the user's folder: a copy that hides a built-in profile is seen as one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for folder, name in ((Path("targets"), "coral-usb"), (tmp_path / "config/edgepack/targets", "mine")):
        folder.mkdir(parents=True)
        assert run(["targets", "show", "--toml", "generic-cpu"]) == 0
        (folder / f"{name}.toml").write_text(capsys.readouterr().out)
    found = {one["name"]: one["origin"] for one in answer(capsys, "targets", "list")["targets"]}
    assert (found["coral-usb"], found["generic-cpu"]) == ("./targets", "built in")
    assert found["mine"] == str(tmp_path / "config/edgepack/targets")
    assert answer(capsys, "targets", "show", "targets/coral-usb.toml")["origin"] == "./targets/coral-usb.toml"
    assert run(["targets", "show", "coral-usb"]) == 0
    assert "./targets" in capsys.readouterr().out
    assert run(["targets", "show", "./no.toml"]) == 2
    assert "The file ./no.toml does not exist." in capsys.readouterr().err


def test_a_program_that_is_no_python_is_named_as_that(capsys: pytest.CaptureFixture[str]) -> None:
    """`--python /bin/ls` and a path that is not there: exit 5 both, and nothing of edgepack's own source."""
    for program in ("/bin/ls", "/bin/echo", "/usr/bin/nope"):
        assert run(["probe", "local:", "--python", program]) == 5, program
        said = capsys.readouterr().err
        assert program in said
        assert "import sys" not in said
        assert "zlib" not in said


@pytest.mark.parametrize(
    ("line", "option"),
    [
        (["verify", ""], "file"),
        (["bundle", "m.tflite", "-t", "x", "--sign", ""], "--sign"),
        (["bundle", "m.tflite", "-o", ""], "--output"),
    ],
)
def test_an_empty_file_name_is_told(capsys: pytest.CaptureFixture[str], line: list[str], option: str) -> None:
    """An unset variable in a script is exit 2 with the option's name, and not the current folder."""
    assert run(line) == 2
    assert f"{option}: empty file name" in capsys.readouterr().err


def test_what_is_no_file_of_signers_is_refused_as_that(tmp_path: Path) -> None:
    """A public key, /etc/passwd, an empty file, a private key: exit 2 with what a line is, not "foreign signature"."""
    path, _ = tiny_bundle(tmp_path)
    (tmp_path / "id.pub").write_text("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOm me@here\n")
    (tmp_path / "empty").touch()
    (tmp_path / "id").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n" + "b3Blbn\n" * 40)
    for place in ("id.pub", "empty", "id", "/etc/passwd"):
        with pytest.raises(InputError, match="is no file of allowed signers") as caught:
            edgepack.verify(path, allowed_signers=tmp_path / place)
        assert caught.value.code == "bad-allowed-signers"
        assert caught.value.message.count("line ") <= 3
    with pytest.raises(InputError, match=r"and 38 more\."):
        edgepack.verify(path, allowed_signers=tmp_path / "id")
