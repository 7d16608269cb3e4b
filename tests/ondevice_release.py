"""Releases with a real tiny model, laid out by hand as the agent lays them out, for the tests of loader and door."""

from __future__ import annotations

import importlib.util
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from agent_client import ONDEVICE, TINY, FakeRelease, digest

PACKAGES = {"tflite-runtime": "tflite_runtime", "ai-edge-litert": "ai_edge_litert"}


def installed_runtime() -> str:
    """The TFLite runtime that this Python has, as a release names it; skips the test where it has none."""
    for package, module in PACKAGES.items():
        if importlib.util.find_spec(module) is not None:
            return package
    pytest.skip("this Python has no TFLite runtime")


def model_release(
    model: str = "tiny_int8", *, app: str = "tiny", check: dict[str, Any] | None = None, check_set: bytes | None = None
) -> FakeRelease:
    """A release of one of the tiny models with the real loader and door, and a check set if one is given.

    ``check_set`` is the file of one as it is.
    """
    contents = {"model.tflite": (TINY / f"{model}.tflite").read_bytes()}
    for name in ("loader.py", "edgepack_device.py"):
        contents[name] = (ONDEVICE / name).read_bytes()
    if check is not None:
        buffer = io.BytesIO()
        np.savez(buffer, **check)
        contents["check.npz"] = buffer.getvalue()
    if check_set is not None:
        contents["check.npz"] = check_set
    release = FakeRelease(app=app, contents=contents)
    model_bytes = contents["model.tflite"]
    release.extra["model"] = {"file": "model.tflite", "bytes": len(model_bytes), "sha256": digest(model_bytes)}
    release.runtime = {"package": installed_runtime(), "version": "0", "id": None, "dists": [], "installed": []}
    return release


def lay_out(root: Path, release: FakeRelease, **device: Any) -> Path:
    """Puts a release in place under an edgepack folder without an agent, and makes it the active one."""
    folder = root / "apps" / release.app / "releases" / release.release
    folder.mkdir(parents=True)
    for path, data in release.files.items():
        (folder / path).write_bytes(data)
    document = {"schema": 1, "interpreter": sys.executable, "platform": {}, "runtime": release.runtime, **device}
    (folder / "device.json").write_text(json.dumps(document))
    current = folder.parent.parent / "current"
    current.unlink(missing_ok=True)
    current.symlink_to(Path("releases") / release.release)
    (root / "lib").mkdir(exist_ok=True)
    shutil.copy(ONDEVICE / "edgepack_device.py", root / "lib")
    return folder


def run_program(root: Path, body: str, *, python: str = sys.executable, fails: bool = False) -> Any:
    """Runs a user's program against the door; what it puts into ``result`` comes back (as JSON), or what it died of."""
    program = (
        f"import sys, json; sys.path.insert(0, {str(root / 'lib')!r})\n{body}\nprint('RESULT', json.dumps(result))"
    )
    done = subprocess.run([python, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    if fails:
        assert done.returncode != 0
        return done.stderr
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.rpartition("RESULT ")[2])
