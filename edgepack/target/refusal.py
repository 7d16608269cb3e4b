"""Why no runtime fits a platform, and what would: pure functions of the wheels that there are and a device's facts."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from edgepack.target.lock import Wheel
from edgepack.target.platform import Platform, libc_fits, version_tuple
from edgepack.target.solver import NUMPY_FOR, numpy_wheel, takes_numpy


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What else of a device makes a refusal more useful: the kernel's word for the ``machine``, its Pythons.

    ``executable`` is the Python that was asked; ``pythons`` are paths such as "/usr/bin/python3.11".
    """

    executable: str = ""
    machine: str = ""
    pythons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class System:
    """A release of an operating system: its own Python, C library and python3-numpy."""

    name: str
    python: str
    libc: str
    numpy: str


SYSTEMS = (
    System("Ubuntu 20.04", "3.8", "glibc-2.31", "1.17.4"),
    System("Debian 11", "3.9", "glibc-2.31", "1.19.5"),
    System("Ubuntu 22.04", "3.10", "glibc-2.35", "1.21.5"),
    System("Debian 12", "3.11", "glibc-2.36", "1.24.2"),
    System("Ubuntu 24.04", "3.12", "glibc-2.39", "1.26.4"),
    System("Debian 13", "3.13", "glibc-2.41", "2.2.4"),
)
"""What people's boards run; Raspberry Pi OS is Debian's. packages.debian.org and packages.ubuntu.com: python3, libc6,
python3-numpy."""


def runtimes_for(platform: Platform, wheels: Iterable[Wheel]) -> list[str]:
    """The runtimes (package names) that these wheels bring to a platform, whatever NumPy it has."""
    return sorted({wheel.package for wheel in wheels if wheel.package in NUMPY_FOR and wheel.fits(platform)})


def missing_part(platform: Platform, wheels: Iterable[Wheel], package: str = "") -> str:
    """Which part of the platform no runtime (or not this ``package``) has a wheel for; one clause, for people."""
    runtimes = [wheel for wheel in wheels if wheel.package in ([package] if package else NUMPY_FOR)]
    if not platform.libc.startswith("glibc-"):
        whose = package or "a TFLite runtime"
        return f"no wheel of {whose} is built for {platform.libc or 'its C library'}, all are for glibc"
    nobody = f"no {package}" if package else "no TFLite runtime"
    same_arch = [wheel for wheel in runtimes if wheel.arch == platform.arch]
    if not same_arch:
        archs = sorted({wheel.arch for wheel in runtimes})
        return f"{nobody} has a wheel for {platform.arch}, only for {', '.join(archs)}"
    same_python = [wheel for wheel in same_arch if wheel.python == platform.python]
    if not same_python:
        pythons = sorted({wheel.python for wheel in same_arch}, key=version_tuple)
        return (
            f"{nobody} has a wheel for Python {platform.python} on {platform.arch}, only for Python "
            f"{pythons[0]} to {pythons[-1]}"
        )
    oldest = min((wheel.glibc for wheel in same_python), key=version_tuple)
    return f"every {package or 'runtime'} for Python {platform.python} on {platform.arch} needs glibc {oldest} or newer"


def ways_out(platform: Platform, wheels: Sequence[Wheel], around: Surroundings | None = None) -> list[str]:
    """What would fit instead of a platform that no runtime has a wheel for, the cheapest first."""
    around = around or Surroundings()
    ways = []
    other = other_python(platform, around, lambda one: bool(runtimes_for(one, wheels)))
    if other:
        ways.append(f"another Python of the device, {python_option(other)}")
    if platform.arch in ("armv7l", "i686") and around.machine in ("aarch64", "x86_64"):
        ways.append(f"the 64-bit edition of its system, since its kernel is {around.machine} already")
    systems = systems_for(platform.arch, wheels)
    if systems:
        named = " or ".join(f"{system.name} (Python {system.python})" for system in systems[-2:])
        ways.append(f"{'another OS release' if platform.libc.startswith('glibc-') else 'a system with glibc'}: {named}")
    if any(wheel.arch == platform.arch for wheel in wheels):
        ways.append(
            "wheels for it that you build, or fetch from an extra index, in a folder: "
            f"`edgepack bundle --platform {platform.spec} --wheels FOLDER`"
        )
    return ways or ["a board of one of those architectures"]


def other_python(platform: Platform, around: Surroundings, fits: Callable[[Platform], bool]) -> str | None:
    """The newest Python on the device, by path, with which the platform fits; None where there is none."""
    found = [
        (version_tuple(version), path)
        for path in around.pythons
        if (version := python_of(path)) not in ("", platform.python) and fits(replace(platform, python=version))
    ]
    return max(found)[1] if found else None


def python_option(path: str) -> str:
    """The option that names a Python of the device, to be pasted into a shell: the path is the device's word."""
    return f"--python {shlex.quote(path)}"


def python_of(path: str) -> str:
    """The "3.11" of ``/usr/bin/python3.11``; "" where the name tells none."""
    found = re.search(r"python(3\.\d+)$", path)
    return found.group(1) if found else ""


def systems_for(arch: str, wheels: Sequence[Wheel]) -> list[System]:
    """The systems on which a runtime and a NumPy for it are to be had on an architecture, oldest first."""
    return [system for system in SYSTEMS if _whole(Platform(system.python, arch, system.libc), system, wheels)]


def _whole(platform: Platform, system: System, wheels: Sequence[Wheel]) -> bool:
    return any(
        numpy_wheel(package, platform, wheels) or takes_numpy(package, system.numpy)
        for package in runtimes_for(platform, wheels)
    )


def system_of(platform: Platform) -> System | None:
    """The system whose own Python and C library these are."""
    return next((one for one in SYSTEMS if one.python == platform.python and libc_fits(one.libc, platform.libc)), None)


def numpy_mend(package: str, platform: Platform, installed: str | None, around: Surroundings) -> str:
    """The command that gives a device the NumPy that a runtime needs, where no wheel of it can go along."""
    own = "" if not around.executable or around.executable.startswith("/usr/bin/") else around.executable
    if own:
        return f"Install a fitting one into that Python: {shlex.quote(own)} -m pip install 'numpy{NUMPY_FOR[package]}'"
    system = system_of(platform)
    if system is not None and not takes_numpy(package, system.numpy):
        fitting = " or ".join(one.name for one in SYSTEMS if takes_numpy(package, one.numpy) and one.python == "3.11")
        return (
            f"The python3-numpy of {system.name} is {system.numpy}, which does not fit either: take {fitting}, or name "
            "a folder with a NumPy wheel for it: `edgepack bundle --wheels FOLDER`"
        )
    if installed:  # Debian's pip neither replaces nor removes one (PEP 668), and python3-numpy would lie behind it
        return "Give the release a Python of its own: " + venv_mend([f"numpy{NUMPY_FOR[package]}"])
    return "Install Debian's on the device: sudo apt install python3-numpy"


VENV = "~/edgepack-python"
"""The environment that hints make on a device; its login shell knows the home folder."""


def venv_mend(requirements: Sequence[str]) -> str:
    """The commands that make a Python with these packages on a device, and the option that names it; no root.

    Debian 12 and newer refuse ``pip install`` into the system's own Python (PEP 668, externally-managed-environment).
    """
    wanted = " ".join(f"'{requirement}'" for requirement in requirements)
    return (
        f"`python3 -m venv {VENV} && {VENV}/bin/python -m pip install {wanted}` on the device (Debian: sudo apt "
        f"install python3-venv), then --python '{VENV}/bin/python' here"
    )
