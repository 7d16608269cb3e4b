"""The file targets/runtimes.lock: which wheels run a model on which platform, by name, size and SHA-256."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edgepack.strict_toml import Number, Table, TableList, Text, find_faults, read_toml, refuse_faults
from edgepack.target.find import builtin_folder
from edgepack.target.platform import Platform, libc_fits, version_tuple

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
    """One wheel; ``glibc`` is the oldest C library that it loads on.

    The lock names glibc wheels only. Of a wheel from a folder ``glibc`` may also be "musl", or "" where its tag asks
    for no C library (``linux_armv7l``, ``any``).
    """

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
        if (self.python, self.arch) != (platform.python, platform.arch):
            return False
        libc = self.glibc if self.glibc in ("", "musl") else f"glibc-{self.glibc}"
        return not libc or libc_fits(libc, platform.libc)


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


@functools.cache
def shipped_wheels() -> tuple[Wheel, ...]:
    """The wheels of the shipped lock, read once."""
    return read_lock()
