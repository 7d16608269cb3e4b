"""The file targets/runtimes.lock: which wheels run a model on which platform, by name, size and SHA-256."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edgepack.strict_toml import Number, Table, TableList, Text, find_faults, read_toml, refuse_faults
from edgepack.target.find import builtin_folder
from edgepack.target.values import Platform, Target, version_tuple

_WHEEL = Table(
    {
        "package": Text(("tflite-runtime", "ai-edge-litert", "numpy")),
        "version": Text(pattern=r"[0-9]+(\.[0-9a-z]+)*", form="a version"),
        "filename": Text(pattern=r"[A-Za-z0-9_.+-]+\.whl", form="a wheel's file name"),
        "sha256": Text(pattern=r"[0-9a-f]{64}", form="64 hexadecimal digits"),
        "bytes": Number(1, 1 << 31, integer=True),
        "python": Text(pattern=r"3\.[0-9]{1,2}", form='a Python such as "3.11"'),
        "arch": Text(("aarch64", "armv7l", "x86_64")),
        "glibc": Text(pattern=r"2\.[0-9]{1,3}", form='a version such as "2.17"'),
    },
    required=("package", "version", "filename", "sha256", "bytes", "python", "arch", "glibc"),
)
_LOCK = Table({"wheel": TableList(_WHEEL, minimum=1)}, required=("wheel",))


@dataclass(frozen=True, slots=True)
class Wheel:
    """One locked wheel; ``glibc`` is the oldest C library that it loads on."""

    package: str
    version: str
    filename: str
    sha256: str
    bytes: int
    python: str
    arch: str
    glibc: str

    def fits(self, platform: Platform) -> bool:
        """Whether it loads on a device of that platform."""
        return (
            self.python == platform.python
            and self.arch == platform.arch
            and version_tuple(self.glibc) <= version_tuple(platform.libc)
        )


def read_lock(path: Path | None = None) -> tuple[Wheel, ...]:
    """The locked wheels, of ``path`` or of the shipped file; :class:`InputError` "bad-lock" tells all faults."""
    path = path or builtin_folder() / "runtimes.lock"
    value = read_toml(path, code="bad-lock")
    refuse_faults(
        find_faults(value, _LOCK), code="bad-lock", subject=str(path), hint="Renew it: python -m edgepack.bundle.lock"
    )
    return tuple(Wheel(**entry) for entry in value["wheel"])


def choose_wheel(wheels: Iterable[Wheel], package: str, platform: Platform) -> Wheel | None:
    """The newest locked version of the package that loads on the platform; None where there is none."""
    fitting = [wheel for wheel in wheels if wheel.package == package and wheel.fits(platform)]
    return max(fitting, key=lambda wheel: (version_tuple(wheel.version), version_tuple(wheel.glibc)), default=None)


def runtimes_of(target: Target, wheels: Iterable[Wheel] | None = None) -> tuple[tuple[str, str | None], ...]:
    """Package and version of each runtime that the target's platforms get from the lock (the shipped one); sorted.

    The version is None where nothing is locked for a platform. A target without platforms has the newest locked version
    of its package.
    """
    locked = _shipped() if wheels is None else tuple(wheels)
    found = set()
    for platform in target.platforms:
        package = target.runtime.package_for(platform.python)
        wheel = choose_wheel(locked, package, platform)
        found.add((package, wheel.version if wheel else None))
    if not target.platforms:
        versions = [wheel.version for wheel in locked if wheel.package == target.runtime.package]
        found.add((target.runtime.package, max(versions, key=version_tuple, default=None)))
    return tuple(sorted(found, key=lambda one: (one[0], version_tuple(one[1] or "0"))))


@functools.cache
def _shipped() -> tuple[Wheel, ...]:
    return read_lock()
