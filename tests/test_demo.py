"""The demo's device: as bare as a fresh Raspberry Pi, so that what is shown is what a device does."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from edgepack.demo import _bare_python


@pytest.mark.parametrize("package", ["numpy", "tflite_runtime", "ai_edge_litert", "tensorflow"])
def test_the_demo_s_device_has_no_package(tmp_path: Path, package: str) -> None:
    """Numpy and the runtime that the demo measures come out of the bundle, not out of the environment that runs it."""
    python = _bare_python(tmp_path / "python")
    found = subprocess.run([python, "-c", f"import {package}"], capture_output=True, text=True, check=False)
    assert "ModuleNotFoundError" in found.stderr
