"""What a command imports decides how fast it starts; a fresh process tells."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from bundle_tiny import write_tiny

HEAVY = ("numpy", "paramiko", "tensorflow", "tf_keras", "keras", "ai_edge_litert", "tflite", "tflite_runtime", "h5py")
REPORT = f"import sys, json; print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]), file=sys.stderr)"


def heavy_imports_of(code: str) -> list[str]:
    """Which of the heavy packages are loaded in a fresh process after the code ran."""
    done = subprocess.run([sys.executable, "-c", f"{code}\n{REPORT}"], capture_output=True, text=True, check=True)
    names: list[str] = json.loads(done.stderr.splitlines()[-1])
    return names


@pytest.mark.parametrize("arguments", [["--help"], ["push", "--help"], ["quantize", "--help"], ["targets", "list"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    """Asking for help, or for the profiles, waits for neither numpy nor paramiko nor TensorFlow."""
    assert heavy_imports_of(f"from edgepack.cli.main import run; run({arguments!r})") == []


def test_importing_the_library_is_as_light_as_help() -> None:
    """A script that imports edgepack pays for what it calls only."""
    assert heavy_imports_of("import edgepack; edgepack.push, edgepack.quantize, edgepack.check") == []


def test_inspect_waits_for_nothing_that_it_does_not_show(tmp_path: Path) -> None:
    """Neither the documents of the other verbs nor the reading of profiles is imported to show a bundle."""
    path = str(write_tiny(tmp_path / "b.edgepack"))
    before = "import sys; before = set(sys.modules)"  # coverage's own
    code = (
        f"{before}; from edgepack.cli.main import run; run(['inspect', {path!r}]); loaded = set(sys.modules) - before"
    )
    unwanted = "'edgepack.documents', 'edgepack.target.values', 'edgepack.strict_toml', 'tomllib'"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; print(sorted(loaded & {{{unwanted}}}))"],
        capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("verb", ["status", "push", "check"])
def test_commands_on_a_device_never_import_tensorflow(verb: str, tmp_path: object) -> None:
    """What reaches a device works on a light install."""
    arguments = [verb, *(["no-such-file.edgepack"] if verb == "push" else []), f"local:{tmp_path}/root"]
    loaded = heavy_imports_of(f"from edgepack.cli.main import run; run({arguments!r})")
    assert not set(loaded) & {"tensorflow", "tf_keras", "keras", "ai_edge_litert"}
