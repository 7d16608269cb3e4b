"""A wrong command line: a sentence that says what to do, the right exit code, nothing changed."""

from __future__ import annotations

import inspect
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgepack import errors
from edgepack.cli.main import commands, run


def error_of(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> tuple[int, dict[str, object]]:
    """The exit code and the error document of one command line."""
    code = run([*arguments, "--json"])
    document = json.loads(capsys.readouterr().out)
    assert set(document["error"]) == {"code", "message", "hint", "details"}
    return code, document["error"]


@pytest.mark.parametrize(
    ("arguments", "exit_code", "words"),
    [
        (["frobnicate"], 2, "frobnicate"),
        (["push"], 2, "FILE.edgepack"),
        (["push", "no-such.edgepack", "local:"], 2, "no-such.edgepack"),
        (["quantize", "model", "-o", "out.tflite"], 2, "--target"),
        (["quantize", "no-such-model", "--target", "x86-64", "-o", "out.tflite"], 2, "no-such-model"),
        (["quantize", "m", "--target", "raspbery-pi-4", "-o", "out.tflite"], 2, "raspberry-pi-4"),
        (["targets", "show", "corall-usb"], 2, "coral-usb"),
        (["bundle", "m.tflite", "--target", "x86-64", "--name", "a/b", "--version", "1", "-o", "b.edgepack"], 2, ""),
        (["inspect", "a", "b"], 2, "one bundle"),
        (["verify", "no-such.edgepack"], 2, "no-such.edgepack"),
        (["status", "local:/no/such/root"], 2, ""),
        (["check", "local:", "--budget", "p95=3"], 2, "p95"),
        (["status", "nobody@127.0.0.1:1", "--connect-timeout", "2"], 4, "127.0.0.1"),
        (["status", "http://somewhere"], 2, "http"),
        (["tune", "m", "-t", "x86-64", "-t", "generic-cpu"], 2, "--target is given 2 times"),
        (["quantize", "m", "--eval", "a.npz", "--eval=b.npz"], 2, "--eval is given 2 times"),
        (["quantize", "m", "--no-cache", "--cache"], 2, "--cache/--no-cache is given 2 times"),
        (["emulate", "start", "pi-bookworm64", "--mirror", "a", "--mirror", "b"], 2, "--mirror is given 2"),
        (["quantize", "m", "-t", "x86-64", "-t", "nowhere", "-o", "out", "-v", "-v", "--json"], 2, "nowhere"),
        (["quantize", "m", "-t", "x86-64", "-o", "o.tflite", "--metric", "top1"], 2, "--metric is about"),
        (["quantize", "m", "-t", "x86-64", "-o", "o.tflite", "--max-drop", "0.1"], 2, "--max-drop is about"),
        (["push", "x.edgepack", "local:", "--events", "/no/such/folder/events"], 2, "/no/such/folder"),
    ],
)
def test_a_wrong_command_line_says_what_is_wrong(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    exit_code: int,
    words: str,
) -> None:
    """Each mistake gets its exit code and a message that names what was wrong, and leaves no file behind."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    code, error = error_of(capsys, arguments)
    assert code == exit_code
    assert words in f"{error['message']} {error['hint']}"
    assert error["hint"], "a tired person wants to know what to do next"
    assert list(tmp_path.iterdir()) == []


def test_an_error_for_people_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """Without --json stdout stays empty on a failure, so that pipes never see an error as data."""
    assert run(["verify", "no-such.edgepack"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "no-such.edgepack" in shown.err
    assert "Traceback" not in shown.err


def test_a_traceback_only_with_two_v(capsys: pytest.CaptureFixture[str]) -> None:
    """Only -vv shows where in edgepack an error came from."""
    run(["verify", "no-such.edgepack", "-vv"])
    assert "Traceback" in capsys.readouterr().err


def test_every_error_has_its_exit_code() -> None:
    """The exit codes that scripts depend on are those of the contract."""
    codes = {
        name: kind.exit_code
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.EdgepackError)
    }
    assert codes == {
        "EdgepackError": 70,
        "GateFailed": 1,
        "InputError": 2,
        "InconclusiveError": 3,
        "UnreachableError": 4,
        "MisfitError": 5,
        "IntegrityError": 6,
        "DeviceFailure": 7,
        "LockedError": 8,
        "InternalError": 70,
    }


def test_errors_travel_between_processes() -> None:
    """A worker process hands its error to the parent whole."""
    import pickle

    error = errors.MisfitError("no-wheel", "No wheel.", hint="Take another.", python="3.14")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes, made in this line
    assert (type(copy), copy.code, copy.message, copy.hint, copy.details) == (
        errors.MisfitError, "no-wheel", "No wheel.", "Take another.", {"python": "3.14"},
    )  # fmt: skip


GROUPS = {"targets": ("list", "show"), "emulate": ("start", "stop", "list", "remove")}
EVERY_COMMAND = [
    *sorted(set(commands) - set(GROUPS)),
    *(f"{group} {command}" for group, members in GROUPS.items() for command in members),
]


@pytest.mark.parametrize("command", EVERY_COMMAND)
def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str], command: str) -> None:
    """--help of each command says in a sentence what it does, and explains each of its options."""
    assert run([*command.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    usage, sentence, *_ = (part.strip() for part in shown.split("\n\n") if part.strip())
    assert usage.startswith("Usage:")
    assert sentence[0].isupper()
    assert "--json" in shown
    bare = [line.strip() for line in shown.splitlines() if re.fullmatch(r"\s+(-\w, )?--[a-z-]+( [^ ]+)?", line)]
    assert [line for line in bare if len(line) < 30] == [], "an option without its explanation"


def test_completion_offers_commands_and_profiles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """TAB completes profile names and the hosts of the user's SSH configuration."""
    from edgepack.cli.complete import device_names, target_names

    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text("Host kiosk-1 kiosk-2\nHost *.lan\n", encoding="utf-8")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert device_names("kio") == ["kiosk-1", "kiosk-2"]
    assert "raspberry-pi-4" in target_names("raspberry-pi-4")
    assert device_names("lo") == ["local:"]


def test_one_broken_profile_hides_no_other(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`targets list` shows the sound profiles and says which file of the user's was left out, and why."""
    (tmp_path / "targets").mkdir()
    (tmp_path / "targets" / "mine.toml").write_text('extends = "generic-cpu"\ncolour = "red"\n', encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert run(["targets", "list"]) == 0
    shown = capsys.readouterr()
    assert "raspberry-pi-4" in shown.out
    assert "mine.toml" in shown.err
    assert "colour" in shown.err


def test_a_name_from_edgepack_toml_is_told_as_such(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who never typed an app's name learns that it came from the project's file."""
    (tmp_path / "edgepack.toml").write_text('[app]\nname = "kws"\n', encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    code, error = error_of(capsys, ["status", f"local:{tmp_path}/device"])
    assert code == 2
    assert "edgepack.toml" in str(error["hint"])


@pytest.mark.parametrize("delay_seconds", [0.02, 0.1, 0.3])
def test_an_interrupt_while_starting_is_quiet(delay_seconds: float) -> None:
    """Ctrl-C right after the return key ends in exit 130, by the signal, or comes too late: no traceback of ours.

    On a busy machine it may come before Python itself has started, which then says so and ends with 1.
    """
    code = "import sys; from edgepack.cli import entry; sys.argv = ['edgepack', 'targets', 'list']; entry()"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    time.sleep(delay_seconds)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    python_was_not_up = process.returncode == 1 and b"edgepack" not in said
    assert process.returncode in (0, 130, -signal.SIGINT) or python_was_not_up, said
    assert b"edgepack/cli" not in said


def _listing_targets(interrupted_at: int) -> subprocess.CompletedProcess[str]:
    """`targets list --json` in a process that sends itself Ctrl-C at the Nth import; stderr ends with their number."""
    code = (
        "import atexit, os, signal, sys\n"
        "seen = 0\n"
        "def count(event, values):\n"
        "    global seen\n"
        "    seen += event == 'import'\n"
        f"    if event == 'import' and seen == {interrupted_at}:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "atexit.register(lambda: sys.stderr.write(f'{seen}'))\n"
        "from edgepack.cli import entry\n"
        "sys.argv = ['edgepack', 'targets', 'list', '--json']\n"
        "sys.addaudithook(count)\n"
        "entry()"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def imports_in_all() -> int:
    """How many imports there are in this environment where nothing interrupts them."""
    return int(_listing_targets(0).stderr)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.7, 0.9])
def test_an_interrupt_of_an_import_is_one_document_or_none(share: float, imports_in_all: int) -> None:
    """Ctrl-C at any import, with --json: exit 130 with the error as the one document, or nothing; no traceback."""
    done = _listing_targets(1 + int(share * imports_in_all))
    assert done.returncode == 130
    assert "Traceback" not in done.stderr
    assert not done.stdout or json.loads(done.stdout)["error"]["code"] == "interrupted"


@pytest.mark.parametrize("end", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_an_interrupt_is_exit_130(end: str) -> None:
    """Ctrl-C, `kill` and a closed terminal are told in a word, on stderr, with the exit code that shells expect."""
    code = (
        "import os, signal, sys, edgepack.target as target\n"
        f"def interrupted(*given):\n    os.kill(os.getpid(), signal.{end})\n    return ()\n"
        "target.list_targets = interrupted\n"
        "from edgepack.cli import entry; sys.argv = ['edgepack', 'targets', 'list']; entry()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in (130, -signal.SIGINT)
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(("words", "kept"), [([], "to go on"), (["--no-cache"], "nothing is kept")])
def test_an_interrupt_says_what_the_same_command_will_find(
    words: list[str], kept: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --no-cache there is nothing to go on with, and it is not promised."""

    def interrupted(*_: object, **__: object) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr("edgepack.tune", interrupted)
    command = ["tune", "m", "-t", "generic-cpu", "--eval", "e.npz", "-o", "o.tflite", *words]
    assert run(command) == 130
    assert kept in capsys.readouterr().err


def test_nohup_outlives_the_terminal() -> None:
    """Where SIGHUP is ignored on purpose, the command goes on."""
    code = (
        "import os, signal, sys, edgepack.target as target\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "def closed(*given):\n    os.kill(os.getpid(), signal.SIGHUP)\n    return ()\n"
        "target.list_targets = closed\n"
        "from edgepack.cli import entry; sys.argv = ['edgepack', 'targets', 'list']; entry()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
