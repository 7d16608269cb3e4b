"""What decides which wheel a device can load, by itself: a bundle names platforms, and reading one needs no more."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Platform:
    """What decides which wheel a device can load: Python "3.11", arch "aarch64", libc "glibc-2.36" or "musl"."""

    python: str
    arch: str
    libc: str

    @property
    def label(self) -> str:
        """For people: "python 3.11, aarch64, glibc-2.36"."""
        return f"python {self.python}, {self.arch}, {self.libc}"

    @property
    def spec(self) -> str:
        """As --platform takes it: "3.11,aarch64,glibc-2.36"."""
        return f"{self.python},{self.arch},{self.libc}"

    def to_json(self) -> dict[str, str]:
        """The plain values."""
        return {"python": self.python, "arch": self.arch, "libc": self.libc}


def libc_fits(needed: str, present: str) -> bool:
    """Whether what was built for a C library loads on another: the same kind, and at least as new."""
    same = needed.partition("-")[0] == present.partition("-")[0] != ""
    return same and version_tuple(needed) <= version_tuple(present)


def version_tuple(version: str) -> tuple[int, ...]:
    """The numbers of "3.11", "glibc-2.36" or "2.14.0", for comparing."""
    return tuple(int(number) for number in re.findall(r"[0-9]+", version))
