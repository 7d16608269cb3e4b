"""The systems that edgepack emulates, and where each lies on this machine; plain values."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from edgepack.cachefolder import cache_folder
from edgepack.errors import InputError
from edgepack.target import Platform

USER = "pi"
"""Who logs in: no root, as on a Raspberry Pi."""


@dataclass(frozen=True, slots=True)
class System:
    """One emulated device: a Debian release for an architecture.

    ``suite`` is Debian's name of the release, ``dpkg_arch`` Debian's of the architecture, ``qemu`` QEMU's of it
    (``qemu-aarch64``, as binfmt_misc knows it), ``cpu`` the processor that it imitates: none newer than the oldest
    board's, so that what needs more than that fails here too. ``platform`` is what a runtime is chosen for there,
    ``like`` the profiles whose systems it stands for.
    """

    name: str
    suite: str
    dpkg_arch: str
    qemu: str
    cpu: str
    platform: Platform
    like: tuple[str, ...]


# The oldest of the boards with a 64-bit system have a Cortex-A53. QEMU has none for 32-bit programs; the Cortex-A7 of
# the Pi 2 comes next.
_ARM64 = ("arm64", "qemu-aarch64", "cortex-a53")
_ARMHF = ("armhf", "qemu-arm", "cortex-a7")
_PI_64 = ("raspberry-pi-3", "raspberry-pi-4", "raspberry-pi-5", "raspberry-pi-zero-2w")
_PI_32 = ("raspberry-pi-4-32bit",)

# What Raspberry Pi OS is made from, and the Python and glibc that Debian's release has.
# https://packages.debian.org/bookworm/python3 https://packages.debian.org/trixie/python3
SYSTEMS: dict[str, System] = {
    system.name: system
    for system in (
        System("pi-bookworm64", "bookworm", *_ARM64, Platform("3.11", "aarch64", "glibc-2.36"), _PI_64),
        System("pi-bookworm32", "bookworm", *_ARMHF, Platform("3.11", "armv7l", "glibc-2.36"), _PI_32),
        System("pi-trixie64", "trixie", *_ARM64, Platform("3.13", "aarch64", "glibc-2.41"), _PI_64),
    )
}


def find_system(name: str) -> System:
    """The system of that name. Raises InputError "no-such-system" with the nearest name."""
    if name in SYSTEMS:
        return SYSTEMS[name]
    near = difflib.get_close_matches(name, SYSTEMS, n=1)
    raise InputError(
        "no-such-system",
        f"There is no emulated device {name!r}.",
        hint=f"Did you mean {near[0]}?" if near else f"There are {', '.join(SYSTEMS)}.",
    )


@dataclass(frozen=True, slots=True)
class Places:
    """Where an emulated device lies: everything in one folder of the user's cache, and what outlives that beside it."""

    folder: Path

    @classmethod
    def of(cls, system: System) -> Places:
        """The places of a system; nothing needs to be there yet."""
        return cls(cache_folder().resolve() / "emulated" / system.name)

    @property
    def root(self) -> Path:
        """The device's file system; it is there whole or not at all."""
        return self.folder / "root"

    @property
    def key(self) -> Path:
        """The private key that logs in."""
        return self.folder / "key"

    @property
    def host_key(self) -> Path:
        """The private key that the device shows."""
        return self.folder / "host_key"

    @property
    def known_hosts(self) -> Path:
        """The device's host key, pinned."""
        return self.folder / "known_hosts"

    @property
    def ssh_config(self) -> Path:
        """The file for ``--ssh-config``."""
        return self.folder / "ssh_config"

    @property
    def state(self) -> Path:
        """Which process runs it, and its port."""
        return self.folder / "state.json"

    @property
    def log(self) -> Path:
        """What its sshd says."""
        return self.folder / "sshd.log"

    @property
    def making(self) -> Path:
        """Where a new one is made until it is whole."""
        return self.folder.with_name(f"{self.folder.name}.part")

    @property
    def packages(self) -> Path:
        """The Debian packages of one that is being made: they outlive an interruption."""
        return self.folder.with_name(f"{self.folder.name}.packages")

    @property
    def making_log(self) -> Path:
        """What debootstrap said last."""
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def lock(self) -> Path:
        """Locked (flock) by whoever makes, starts, stops or removes it."""
        return self.folder.with_name(f"{self.folder.name}.lock")
