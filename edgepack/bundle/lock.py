"""Renews targets/runtimes.lock: which wheel makes a runtime on which platform, by name, size and SHA-256.

``python -m edgepack.bundle.lock`` renews the file (a maintainer's command): it downloads every wheel of :data:`WANTED`
through pip from the index that pip is set up for, and writes down what came.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from edgepack.digest import sha256_file
from edgepack.errors import EdgepackError, InputError
from edgepack.target import builtin_folder
from edgepack.target.lock import Wheel

WANTED: tuple[tuple[str, str, tuple[str, ...], tuple[str, ...]], ...] = (
    # The last release; no wheel above Python 3.11. Debian 12 (Raspberry Pi OS bookworm) has exactly that.
    ("tflite-runtime", "2.14.0", ("3.8", "3.9", "3.10", "3.11"), ("x86_64", "aarch64", "armv7l")),
    # 2.14.0 asks for glibc 2.34 on ARM; Debian 11 (2.31) and older systems get the release before. None for 3.11.
    ("tflite-runtime", "2.13.0", ("3.8", "3.9", "3.10"), ("aarch64", "armv7l")),
    ("ai-edge-litert", "2.3.0", ("3.10", "3.11", "3.12", "3.13", "3.14"), ("x86_64", "aarch64")),
    # The last one for Python 3.9: for models whose operators tflite-runtime lacks.
    ("ai-edge-litert", "2.1.0", ("3.9",), ("x86_64", "aarch64")),
    # tflite-runtime dies with NumPy 2 (_ARRAY_API not found). 1.24 is the last for Python 3.8, 1.26 the last 1.x. No
    # NumPy has a wheel for armv7l.
    ("numpy", "1.24.4", ("3.8",), ("x86_64", "aarch64")),
    ("numpy", "1.26.4", ("3.9", "3.10", "3.11"), ("x86_64", "aarch64")),
    # Above Python 3.11 only ai-edge-litert is used, which takes NumPy 2.
    ("numpy", "2.5.5", ("3.12", "3.13", "3.14"), ("x86_64", "aarch64")),
)

NEWEST_GLIBC = 41
"""Wheels for glibc 2.17 up to 2.41 (Debian 13) are asked for."""


def platform_tags(arch: str, newest_glibc: int = NEWEST_GLIBC) -> tuple[str, ...]:
    """Every tag that a wheel for the architecture may carry; pip takes a wheel only if one of its tags is asked for.

    The names before PEP 600 (manylinux2014 = glibc 2.17 and older ones) are asked for too.
    """
    numbered = tuple(f"manylinux_2_{minor}_{arch}" for minor in range(newest_glibc, 16, -1))
    legacy = ("manylinux2014",) if arch != "x86_64" else ("manylinux2014", "manylinux2010", "manylinux1")
    return numbered + tuple(f"{name}_{arch}" for name in legacy)


def oldest_glibc(filename: str) -> str:
    """The lowest glibc of a wheel's platform tags (PEP 600: manylinux_2_17 = glibc 2.17)."""
    found = [int(minor) for minor in re.findall(r"manylinux_2_(\d+)_", filename)]
    if "manylinux2014" in filename:
        found.append(17)
    if not found:
        raise InputError("bad-wheel", f"{filename} carries no manylinux tag.", hint="Lock a manylinux wheel.")
    return f"2.{min(found)}"


def lock_text(wheels: Sequence[Wheel]) -> str:
    """The text of a lock file."""
    lines = [
        "# The wheels that edgepack puts into bundles: names, sizes, digests, no addresses; pip knows where they are.",
        "# Renewed by: python -m edgepack.bundle.lock",
    ]
    for wheel in wheels:
        lines += [
            "",
            "[[wheel]]",
            f'package = "{wheel.package}"',
            f'version = "{wheel.version}"',
            f'filename = "{wheel.filename}"',
            f'sha256 = "{wheel.sha256}"',
            f"bytes = {wheel.bytes}",
            f'python = "{wheel.python}"',
            f'arch = "{wheel.arch}"',
            f'glibc = "{wheel.glibc}"',
        ]
    return "\n".join(lines) + "\n"


def lock_wheel(package: str, version: str, python: str, arch: str) -> Wheel:
    """Download one wheel through pip and write down what it is."""
    from edgepack.bundle.download import pip_download

    with tempfile.TemporaryDirectory(prefix="edgepack-lock-") as folder:
        pip_download([f"{package}=={version}"], python=python, arch=arch, folder=Path(folder))
        path = next(Path(folder).glob("*.whl"))
        digest = sha256_file(path)
        size = path.stat().st_size
    return Wheel(package, version, path.name, digest, size, python, arch, oldest_glibc(path.name))


def renew(path: Path, wanted: Sequence[tuple[str, str, tuple[str, ...], tuple[str, ...]]] = WANTED) -> int:
    """Write the lock file anew and return how many wheels it has; it is replaced only when every wheel was found."""
    wheels = []
    for package, version, pythons, archs in wanted:
        for python, arch in product(pythons, archs):
            wheels.append(lock_wheel(package, version, python, arch))
            sys.stderr.write(f"{wheels[-1].filename}\n")
    staged = path.with_name(path.name + ".new")
    staged.write_text(lock_text(wheels), encoding="utf-8")
    staged.replace(path)
    return len(wheels)


def main() -> int:
    """Renew the shipped lock file."""
    path = builtin_folder() / "runtimes.lock"
    try:
        count = renew(path)
    except EdgepackError as error:
        sys.stderr.write(f"{error}\n{path} was left as it is.\n")
        return error.exit_code
    sys.stderr.write(f"{path}: {count} wheels\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
