"""What this machine has for the main job, what it lacks, and the command that mends it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import sys
from dataclasses import dataclass

from edgepack.cachefolder import cache_folder

# A TensorFlow environment and a handful of bundles with their wheels.
_WANTED_FREE_BYTES = 2_000_000_000


@dataclass(frozen=True, slots=True)
class HostCheck:
    """One thing that was looked at: ``needed_for`` names the verbs, ``mend`` the command where it is missing."""

    name: str
    found: str | None
    ok: bool
    needed_for: str
    mend: str = ""


@dataclass(frozen=True, slots=True)
class DoctorDocument:
    """All checks of this machine; ``healthy`` when nothing that the main job needs is missing."""

    healthy: bool
    checks: tuple[HostCheck, ...]


def examine() -> DoctorDocument:
    """Look at this machine; imports nothing heavy and changes nothing."""
    checks = (
        _python(),
        *(_distribution(name) for name in ("tensorflow", "tf_keras", "ai-edge-litert", "h5py", "pillow")),
        _runtimes_apart(),
        _program("ssh", "your SSH configuration, --transport openssh", "sudo apt install openssh-client"),
        _pip(),
        _cache_folder(),
    )
    return DoctorDocument(all(check.ok for check in checks), checks)


def _python() -> HostCheck:
    version = sys.version_info
    found = f"{version.major}.{version.minor}.{version.micro}"
    return HostCheck("python", found, (3, 11) <= version[:2] <= (3, 13), "everything", "install Python 3.11 to 3.13")


def _distribution(name: str) -> HostCheck:
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return HostCheck(
            name, None, False, "quantize, deploy MODEL, demo", "in edgepack's checkout: pip install '.[quantize]'"
        )
    return HostCheck(name, found, True, "quantize, deploy MODEL, demo")


def _runtimes_apart() -> HostCheck:
    """tflite-runtime 2.14 was built for numpy 1; with numpy 2 it dies when an Interpreter is made."""
    if importlib.util.find_spec("tflite_runtime") is None:
        return HostCheck("tflite-runtime", "not installed (not needed here)", True, "local: devices")
    numpy_version = importlib.metadata.version("numpy")
    fits = int(numpy_version.split(".")[0]) < 2
    return HostCheck(
        "tflite-runtime", f"with numpy {numpy_version}", fits, "local: devices", 'pip install "numpy<2"'
    )  # fmt: skip


def _program(name: str, needed_for: str, mend: str) -> HostCheck:
    found = shutil.which(name)
    return HostCheck(name, found, found is not None, needed_for, mend)


def _pip() -> HostCheck:
    found = importlib.util.find_spec("pip") is not None
    mend = f"{sys.executable} -m ensurepip"
    return HostCheck("pip", "present" if found else None, found, "bundle (fetching a runtime's wheels)", mend)


def _cache_folder() -> HostCheck:
    folder = cache_folder()
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not os.access(existing, os.W_OK):
        return HostCheck(
            "cache folder", f"{folder} (not writable)", False, "bundle", "set XDG_CACHE_HOME to a folder of yours"
        )  # fmt: skip
    free_bytes = shutil.disk_usage(existing).free
    found = f"{folder} ({free_bytes / 1e9:.1f} GB free)"
    return HostCheck(
        "cache folder", found, free_bytes >= _WANTED_FREE_BYTES, "bundle", f"free some space below {existing}"
    )
