"""What a command writes over, and where it writes at all: never a thing that edgepack did not make itself."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from deploying import TINY, tiny_bundle, tiny_model

import edgepack
from edgepack.cli.main import run

BUNDLE = ["bundle", "--target", "x86-64", "--name", "app", "--version", "1", "--without-runtime"]
QUANTIZE = ["quantize", "--target", "generic-cpu"]


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """What stands on stderr, in one line."""
    return " ".join(capsys.readouterr().err.split())


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A .tflite in the current folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(TINY, tmp_path / "m.tflite")
    return Path("m.tflite")


def writing_commands(output: str) -> list[list[str]]:
    """Every command with an output option, each with everything else that it needs."""
    return [
        [*BUNDLE, "m.tflite", "-o", output],
        [*QUANTIZE, "m.tflite", "-o", output],
        [*QUANTIZE, "m.tflite", "-o", output, "--dry-run"],
        ["check", "local:", "-o", output],
        ["check", "local:", "--events", output],
    ]


def make_pipe(path: Path) -> None:
    """A named pipe."""
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    """A socket that listens."""
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def make_link_to_device(path: Path) -> None:
    """A link to a device node, which the test must not put at risk itself."""
    path.symlink_to("/dev/null")


@pytest.mark.parametrize("make", [make_pipe, make_socket, make_link_to_device])
@pytest.mark.parametrize("command", range(5))
def test_no_output_takes_the_place_of_a_device(
    model: Path, capsys: pytest.CaptureFixture[str], make: Callable[[Path], None], command: int
) -> None:
    """A pipe, a socket or a device node that is named as an output stays what it is: exit 2."""
    place = Path("out.tflite")
    make(place)
    before = place.lstat()
    assert run(writing_commands("out.tflite")[command]) == 2
    assert "no regular file" in said(capsys)
    after = place.lstat()
    assert (stat.S_IFMT(after.st_mode), after.st_ino) == (stat.S_IFMT(before.st_mode), before.st_ino)


@pytest.mark.parametrize("command", range(5))
@pytest.mark.parametrize("content", [b"PK\x05\x06" + bytes(18), b'{"name": "package"}\n', b"notes\n"])
def test_a_file_of_another_kind_is_never_written_over(
    model: Path, capsys: pytest.CaptureFixture[str], command: int, content: bytes
) -> None:
    """What edgepack did not write itself is refused as an output, whatever its name: exit 2, every byte stays."""
    Path("mine.tflite").write_bytes(content)
    assert run(writing_commands("mine.tflite")[command]) == 2
    assert "mine.tflite exists and is not" in said(capsys)
    assert Path("mine.tflite").read_bytes() == content


@pytest.mark.parametrize("command", range(5))
def test_a_folder_that_is_missing_is_told_first(model: Path, capsys: pytest.CaptureFixture[str], command: int) -> None:
    """Nobody waits for a measurement whose document has no place to go."""
    assert run(writing_commands("missing/out.tflite")[command]) == 2
    assert "mkdir -p missing" in said(capsys)


def test_a_folder_where_nothing_can_be_made_is_told_first(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A place like /proc is bad input and no fault of edgepack."""
    for command in writing_commands("/proc/out.tflite"):
        assert run(command) == 2
        assert "/proc/out.tflite cannot be written" in said(capsys)


def test_a_bundle_never_replaces_what_it_is_made_from(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """-o MODEL.check.npz does not cost anybody the check set."""
    made = tiny_model(Path("made"))
    before = {file: file.read_bytes() for file in Path("made").iterdir()}
    assert {file.suffix for file in before} >= {".tflite", ".npz"}
    for file in before:
        assert run([*BUNDLE, str(made), "-o", str(file)]) == 2
        assert "is what is read here" in said(capsys)
    assert {file: file.read_bytes() for file in Path("made").iterdir()} == before


@pytest.mark.parametrize("beside", ["out.check.npz", "out.provenance.json", "out.uncompiled.tflite"])
def test_quantize_clears_nothing_of_mine(model: Path, capsys: pytest.CaptureFixture[str], beside: str) -> None:
    """What lies where a model's check set, provenance or uncompiled model go stays, unless edgepack wrote it."""
    with zipfile.ZipFile(beside, "w") as archive:
        archive.writestr("x.npy", b"my samples")
    content = Path(beside).read_bytes()
    assert run([*QUANTIZE, "m.tflite", "-o", "out.tflite"]) == 2
    assert f"{beside} exists and is not" in said(capsys)
    assert Path(beside).read_bytes() == content
    assert not Path("out.tflite").exists()


def test_quantize_never_replaces_its_samples(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """-o beside the samples, by a name that makes the check set's place theirs, is refused."""
    check_set = tiny_model(Path("made")).with_suffix(".check.npz")
    check_set.rename("out.check.npz")
    assert run([*QUANTIZE, "m.tflite", "--eval", "out.check.npz#0:10", "-o", "out.tflite"]) == 2
    assert "out.check.npz is what is read here" in said(capsys)


def test_what_edgepack_wrote_is_written_over(model: Path) -> None:
    """The same command twice, and an empty file (mktemp), need no --force."""
    Path("b.edgepack").touch()
    assert run([*BUNDLE, "m.tflite", "-o", "b.edgepack", "--events", "log"]) == 0
    assert run([*BUNDLE, "m.tflite", "-o", "b.edgepack", "--events", "log"]) == 0
    assert run(["verify", "b.edgepack"]) == 0
    assert all(json.loads(line)["step"] == "bundle" for line in Path("log").read_text().splitlines())


def test_events_leave_a_file_alone_until_something_happens(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A command that is refused before it begins keeps the events of the last run."""
    assert run([*BUNDLE, "m.tflite", "-o", "b.edgepack", "--events", "log"]) == 0
    events = Path("log").read_bytes()
    assert run([*BUNDLE, "m.tflite", "-o", "missing/b.edgepack", "--events", "log"]) == 2
    assert Path("log").read_bytes() == events


@pytest.mark.parametrize(
    "line",
    [
        ["inspect", "in"],
        ["verify", "in"],
        ["push", "in", "local:"],
        [*BUNDLE, "in"],
        ["quantize", "in", "--target", "x86-64", "-o", "out.tflite"],
        [*QUANTIZE, "m.tflite", "-o", "out.tflite", "--calibration", "in#0:10"],
        [*QUANTIZE, "m.tflite", "-o", "out.tflite", "--eval", "in"],
    ],
)
def test_a_pipe_as_input_never_hangs(model: Path, capsys: pytest.CaptureFixture[str], line: list[str]) -> None:
    """What may never end is no file to read: exit 2 at once."""
    os.mkfifo("in")
    assert run(line) == 2
    assert "in is no regular file" in said(capsys)


@pytest.mark.parametrize("name", ["x.npy", "a.png", "cats/a.png"])
def test_a_pipe_inside_a_folder_of_samples_never_hangs(
    model: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """A pipe that is called like an array or a picture is named and refused, exit 2, before it is opened."""
    place = Path("samples") / name
    place.parent.mkdir(parents=True)
    os.mkfifo(place)
    Path("edgepack.toml").write_text("[samples]\nrange = [0.0, 1.0]\n")
    assert run([*QUANTIZE, "m.tflite", "-o", "out.tflite", "--eval", "samples"]) == 2
    assert f"{place} is no regular file, it is a pipe" in said(capsys)


@pytest.mark.parametrize("command", range(4))
def test_one_file_is_not_both_the_output_and_the_events(
    model: Path, capsys: pytest.CaptureFixture[str], command: int
) -> None:
    """`-o X --events X` is refused, also for a file that is not there yet and is named in another way: exit 2."""
    line = [*writing_commands("out.tflite")[command], "--events", "./nowhere/../out.tflite"]
    assert run(line) == 2
    assert "is named by --events and by --output" in said(capsys)
    assert not Path("out.tflite").exists()


@pytest.mark.parametrize("command", ["quantize", "tune"])
@pytest.mark.parametrize(
    ("events", "words"),
    [
        ("folder/../page.html", "is named by --events and by --report"),
        ("out.check.npz", "is no name for a log of events"),
        ("generic-cpu.tflite", "is no name for a log of events"),
    ],
)
def test_no_event_log_takes_the_place_of_what_is_made(
    model: Path, capsys: pytest.CaptureFixture[str], command: str, events: str, words: str
) -> None:
    """The page of --report and what a command makes by itself are refused as --events before anything runs: exit 2."""
    Path("folder").mkdir()
    line = [command, "m.tflite", "-t", "generic-cpu", "-o", "out.tflite", "--report", "page.html", "--events", events]
    assert run(line) == 2
    assert words in said(capsys)
    assert sorted(path.name for path in Path().iterdir()) == ["folder", "m.tflite"]


@pytest.mark.parametrize("line", ["targets list", "targets list --json", "--help", "--version", "verify none --json"])
@pytest.mark.parametrize(("redirect", "reason"), [(">/dev/full", "No space left on device"), (">&-", "it is closed")])
def test_standard_output_that_takes_nothing_is_told_in_a_sentence(line: str, redirect: str, reason: str) -> None:
    """A full disk behind a redirection is one sentence and exit 2, for results, errors and --help alike."""
    command = f"{sys.executable} -m edgepack {line} {redirect}"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"edgepack: Standard output cannot be written: {reason}.\n")
    assert len(done.stderr.splitlines()) == 2


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    """`edgepack ... | head -1` prints a line and nothing on stderr, and keeps the command's exit code."""
    bundle, _ = tiny_bundle(tmp_path)
    command = f"({sys.executable} -m edgepack inspect {bundle} --json; echo $? >{tmp_path}/code) | true"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    assert (tmp_path / "code").read_text() == "0\n"


def test_a_folder_that_was_deleted_is_told(tmp_path: Path) -> None:
    """Working in a folder that somebody removed is no fault of edgepack."""
    gone = tmp_path / "gone"
    gone.mkdir()
    command = f"rmdir {gone}; {sys.executable} -P -m edgepack targets list"
    done = subprocess.run(
        ["/bin/sh", "-c", command], cwd=gone, env={"PYTHONPATH": str(Path(edgepack.__file__).parents[1])},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert "The current folder is gone" in done.stderr
