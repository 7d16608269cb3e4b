"""Renews targets/runtimes.lock: which wheel makes a runtime on which platform, by name, size and SHA-256.

``python -m edgepack.bundle.lock`` renews the file (a maintainer's command): it downloads every wheel of :data:`WANTED`
through pip from the index that pip is set up for, and writes down what came. Versions are raised in :data:`WANTED`, by
hand and with the tests; the command tells which newer ones there are.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from itertools import product
from pathlib import Path

from edgepack.digest import sha256_file
from edgepack.errors import EdgepackError, InputError, IntegrityError
from edgepack.target import builtin_folder, version_tuple
from edgepack.target.lock import Wheel, read_lock

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
    """Write the lock file anew and return how many wheels it has; it is replaced only when every wheel was found.

    Raises :class:`IntegrityError` "wheel-digest" where a locked file name has another content now: an index never
    changes a file, so that somebody else did.
    """
    known = {wheel.filename: wheel.sha256 for wheel in read_lock(path)} if path.is_file() else {}
    wheels: list[Wheel] = []
    for package, version, pythons, archs in wanted:
        for python, arch in product(pythons, archs):
            wheels.append(lock_wheel(package, version, python, arch))
            sys.stderr.write(f"{wheels[-1].filename}\n")
            if known.get(wheels[-1].filename, wheels[-1].sha256) != wheels[-1].sha256:
                raise IntegrityError(
                    "wheel-digest",
                    f"{wheels[-1].filename} has the SHA-256 {wheels[-1].sha256} today, and was locked with "
                    f"{known[wheels[-1].filename]}.",
                    hint="Find out who changed it. To take it all the same, remove its lines from the lock first.",
                )
    staged = path.with_name(path.name + ".new")
    staged.write_text(lock_text(wheels), encoding="utf-8")
    staged.replace(path)
    return len(wheels)


def index_wheels(package: str) -> set[str]:
    """The names of every wheel of a package that pip sees in its index, for whatever platform.

    Raises :class:`InputError` "wheels-unavailable" where it lists none.
    """
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "-vv", "index", "versions"]
    run = subprocess.run([*command, package], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    names = set(re.findall(r"[/\s]([A-Za-z0-9_.+]+-[A-Za-z0-9_.+-]+\.whl)", run.stdout + run.stderr))
    if not names:
        raise InputError(
            "wheels-unavailable", f"pip lists no {package}: {run.stderr[-500:]}", hint="Check the network and pip."
        )
    return names


def newer_version(names: Iterable[str], locked: str) -> str | None:
    """The newest released version among these wheels' names, where it is above the locked one; else None."""
    from packaging.utils import parse_wheel_filename
    from packaging.version import Version

    versions = [parse_wheel_filename(name)[1] for name in names]
    newest = max((version for version in versions if not version.is_prerelease), default=Version("0"))
    return str(newest) if newest > Version(locked) else None


def ageing(listing: Callable[[str], Iterable[str]] = index_wheels) -> dict[str, tuple[str, str]]:
    """The packages of which the index has a newer version than the newest that is wanted: package → (wanted, newer).

    ``listing`` gives the names of a package's wheels.
    """
    found = {}
    for package in dict.fromkeys(one[0] for one in WANTED):
        wanted = max((version for name, version, _, _ in WANTED if name == package), key=version_tuple)
        newer = newer_version(listing(package), wanted)
        if newer is not None:
            found[package] = (wanted, newer)
    return found


def main() -> int:
    """Renew the shipped lock file, and tell which newer versions there are."""
    path = builtin_folder() / "runtimes.lock"
    try:
        count = renew(path)
        newer = ageing()
    except EdgepackError as error:
        sys.stderr.write(f"{error}\n{path} was left as it is.\n")
        return error.exit_code
    sys.stderr.write(f"{path}: {count} wheels\n")
    for package, (wanted, there) in newer.items():
        sys.stderr.write(f"{package} {there} is there, WANTED in {__file__} has {wanted}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
