"""What a person reads after a slip: what was wrong with the words on the line, and a command that works."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from deploying import TINY, this_machine, tiny_bundle

import edgepack
from edgepack.cli.main import run
from edgepack.deploy.hooks import Hooks
from edgepack.device import ConnectOptions
from edgepack.errors import GateFailed
from edgepack.project import Project

BUNDLE = ["bundle", "m.tflite", "--target", "x86-64", "--name", "app", "-o", "b.edgepack"]

QUANTIZE = ["quantize", "m.tflite", "-t", "x86-64", "-o", "o.tflite"]


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """What stands on stderr, in one line."""
    return " ".join(capsys.readouterr().err.split())


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a model and a bundle in it."""
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(TINY, tmp_path / "m.tflite")
    tiny_bundle(tmp_path, version="1.1.0")[0].rename("s1.edgepack")
    Path("x86-64.toml").write_text('extends = "x86-64"\n[quantization]\nscheme = "float32"\n')
    Path("slip_broken.py").write_text("def f(:\n")
    Path("slip_needs.py").write_text("import not_there\n")
    Path("slip_fails.py").write_text("1 / 0\n")
    Path("saved").mkdir()
    Path("saved/saved_model.pb").write_bytes(b"\x08\x01")
    np.savez("few.npz", x=np.zeros((4, 8, 8, 1), np.float32))
    Path("cut.npz").write_bytes(Path("few.npz").read_bytes()[:-100])
    return tmp_path


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["status", "http://foo"], "it is a http address"),
        (["check", "s1.edgepack"], "it is the name of a file"),
        (["push", "local:", "s1.edgepack"], "edgepack push s1.edgepack local:"),
        ([*BUNDLE, "--version", ""], "'' cannot be the version"),
        ([*QUANTIZE, "--eval", "none.npz"], "There are no samples at none.npz. Check the path."),
        (
            ["quantize", "no.h5", *QUANTIZE[2:]],
            "The model no.h5 cannot be read: No such file or directory. Check the path.",
        ),
        (
            ["quantize", "saved/saved_model.pb", *QUANTIZE[2:]],
            "is a part of a SavedModel, which is a folder. Give its folder: saved",
        ),
        ([*QUANTIZE, "--eval", "slip_broken:f"], "(slip_broken.py, line 1). Mend slip_broken.py, line 1."),
        (
            [*QUANTIZE, "--eval", "slip_needs:f"],
            f"Install it where edgepack is: {sys.executable} -m pip install not_there",
        ),
        (
            [*QUANTIZE, "--eval", "slip_fails:f"],
            "Mend the module; python -c 'import slip_fails' shows the whole traceback.",
        ),
        ([*QUANTIZE, "--eval", "slip_absent:f"], "Write FILE, FOLDER or module:function;"),
        (
            [*QUANTIZE, "--eval", "cut.npz"],
            "cut.npz is cut off or damaged. Copy it again, or write it with numpy.savez(FILE",
        ),
        ([*QUANTIZE, "--signature"], "Option '--signature' requires an argument. See `edgepack quantize --help`."),
        ([*QUANTIZE, "--eval", "few.npz#9:"], "few.npz#9: takes no rows: few.npz has 4. Write few.npz#0:4"),
        (["deploy", "local:", "m.tflite", "-t", "x86-64", "--name", "a", "--version", ""], "'' cannot be the version"),
        (QUANTIZE[:4], "-o/--output is missing. Give -o/--output."),
        (["report", "page.json"], "-o/--output is missing. Give -o/--output."),
        (["quantize", "m.tflite", "-o", "o.tflite"], "Give --target, or write it into [app] of edgepack.toml"),
        ([*QUANTIZE[:-1], "o-{foo}.tflite"], "has {foo} in it: only {target} can stand there. -o 'o-{target}.tflite'"),
        ([*QUANTIZE[:-1], "{word}/{target}.tflite", "-t", "generic-cpu"], "only {target} can stand there"),
        (["tune", *QUANTIZE[1:-1], "{}.tflite", "--eval", "few.npz"], "has {} in it: only {target} can stand there"),
        ([*QUANTIZE[:-1], "o-{target}.tflite", "-t", "x86-64"], "x86-64 is given twice. Name each target once"),
        ([*QUANTIZE[:-1], "folder", "-t", "x86-64"], "x86-64 is given twice."),
        ([*QUANTIZE[:-1], "o.tflite", "-t", "./x86-64.toml"], "Two different targets are called x86-64."),
        ([*QUANTIZE[:-1], "mine.txt"], "mine.txt is no name for a model: it has to end in .tflite. -o mine.tflite"),
        ([*BUNDLE, "--version", "1", "--wheels", "nowhere"], "There is no folder nowhere"),
        (["status", "local:", "--root", "relative"], "does not begin with / or ~/"),
        (["status", "local:/one", "--root", "/another"], "Leave one of them out"),
        (["status", "local:", "--app", "a/b"], "'a/b' cannot be the name of an app"),
        (["status", "local:", "--root", "/no/such/root"], "no app yet in /no/such/root"),
        (["status", "local:", "--root", "/no/such/root", "--app", "kws"], "no app kws in /no/such/root"),
    ],
)
def test_a_slip_is_told_for_what_it_is(
    here: Path, capsys: pytest.CaptureFixture[str], line: list[str], words: str
) -> None:
    """Each slip ends with exit 2 and words about this very slip; nobody is asked to report it."""
    device = ["--python", sys.executable] if line[0] not in ("bundle", "quantize", "report") else []
    assert run([*line, *device]) == 2
    told = said(capsys)
    assert words in told
    assert "report it" not in told


def test_a_local_root_wins_over_the_environment_and_the_project(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`local:/x` means /x, whatever EDGEPACK_ROOT or edgepack.toml say; only a typed --root conflicts."""
    status = ["status", "local:/no/such/root", "--python", sys.executable]
    Path("edgepack.toml").write_text('[ssh]\nroot = "/of/the/project"\n')
    assert run(status) == 2
    assert "no app yet in /no/such/root" in said(capsys)
    monkeypatch.setenv("EDGEPACK_ROOT", "/of/the/environment")
    assert run(status) == 2
    assert "no app yet in /no/such/root" in said(capsys)
    assert run([*status, "--root", "/typed"]) == 2
    assert "Leave one of them out" in said(capsys)


def test_a_version_where_a_release_is_wanted_finds_it(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--release 1.1.0` is answered with the one release that begins so, and with the device's own address."""
    where = [f"local:{here}/device", "--python", sys.executable]
    assert run(["push", "s1.edgepack", *where]) == 0
    release = edgepack.inspect("s1.edgepack").release
    capsys.readouterr()
    for line in (["activate"], ["activate", "--dry-run"], ["check"]):
        assert run([line[0], *where, "--release", "1.1.0", *line[1:]]) == 2
        assert f"Did you mean {release}?" in said(capsys)
    assert run(["activate", *where]) == 1
    assert f"edgepack check local:{here}/device" in said(capsys)


def test_a_failed_hook_does_not_hide_what_the_check_found(here: Path) -> None:
    """Where a hook undoes a deployment, the check's verdict is told beside it, its document in the details."""
    project = Project(here, hooks=Hooks(health=(sys.executable, "-c", "print('not well'); exit(3)"), health_retries=0))
    bundle, _ = tiny_bundle(here / "made", budget={"p50_ms": 500.0})
    with pytest.raises(GateFailed) as caught:
        edgepack.deploy(f"local:{here}/device", bundle, project=project, options=ConnectOptions(python=sys.executable))
    assert "not well" in caught.value.message
    assert "Its check ended in pass: " in caught.value.message
    assert "--json" in caught.value.hint
    assert caught.value.details["check"]["verdict"] == "pass"  # type: ignore[index]


@pytest.mark.parametrize("command", ["bundle", "deploy"])
def test_a_dry_run_names_the_places_where_things_would_be(
    here: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """Nobody is shown a temporary folder that is gone a moment later."""
    naming = ["--target", str(this_machine(here)), "--name", "app", "--version", "1", "--dry-run"]
    line = ["bundle", "m.tflite"] if command == "bundle" else ["deploy", f"local:{here}/device", "m.tflite"]
    python = ["--python", sys.executable] if command == "deploy" else []
    assert run([*line, *naming, *python]) == 0
    shown = capsys.readouterr()
    assert "app-1.edgepack" in shown.out
    assert "/edgepack-" not in shown.out + shown.err
    assert not Path("build").exists()


def test_init_says_which_folder_it_made(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A mistyped folder is seen at once, and the starter is named after the right one."""
    assert run(["init", "a/new-one"]) == 0
    assert "into the new folder a/new-one" in capsys.readouterr().out
    assert run(["init", "a/new-one", "--force", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["path"] == "a/new-one/edgepack.toml"
    assert 'name = "new-one"' in Path("a/new-one/edgepack.toml").read_text()
