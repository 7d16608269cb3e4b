"""What pip installs: the built wheel, with the target profiles and the agent in it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_wheel_holds_the_profiles_and_what_runs_on_the_device(tmp_path: Path) -> None:
    """An installed edgepack has every target profile, the lock of runtimes, agent, loader and door, and no test."""
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet", "-w", str(tmp_path)]
    done = subprocess.run([*build, str(ROOT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    [wheel] = tmp_path.glob("edgepack-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    profiles = {f"edgepack/targets/{path.name}" for path in (ROOT / "targets").iterdir()}
    assert len(profiles) > 10
    assert profiles <= names
    assert {
        f"edgepack/ondevice/{name}.py" for name in ("agent/serving", "launcher", "loader", "edgepack_device")
    } <= names
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "edgepack").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == sources
