"""What emulated devices need of this machine, said with the command that mends it before anything is begun."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from edgepack.device.emulated.systems import System
from edgepack.errors import InputError
from edgepack.words import size

# A system is 370 to 450 MB, and the packages that it is made from 80 to 110 MB while it is made.
NEEDED_BYTES = 1_000_000_000
_BINFMT = Path("/proc/sys/fs/binfmt_misc")
# Each program and Debian's package of it.
_TO_RUN = {"unshare": "util-linux", "mount": "mount", "chroot": "coreutils", "ssh-keygen": "openssh-client"}
_TO_MAKE = {"debootstrap": "debootstrap", "setpriv": "util-linux"}
_KEYRINGS = tuple(Path(f"/usr/share/keyrings/debian-archive-keyring.{ending}") for ending in ("gpg", "pgp"))

Which = Callable[[str], str | None]


def require_linux_root(system_name: str = sys.platform, user: int | None = None) -> None:
    """Refuse another system, and a user who may not do it. Raises InputError "not-linux", "not-root"."""
    if system_name != "linux":
        raise InputError(
            "not-linux",
            f"Emulated devices run on Linux; this is {system_name}.",
            hint="Run edgepack as root in a Debian or Ubuntu virtual machine or a privileged container.",
        )
    if (os.geteuid() if user is None else user) != 0:
        raise InputError(
            "not-root",
            "Emulated devices need root: they are made with debootstrap and run in a chroot.",
            hint='Run it with sudo: sudo XDG_CACHE_HOME="$HOME/.cache" "$(command -v edgepack)" emulate ...',
        )


def which(program: str) -> str | None:
    """Where a program is; those of administrators are often outside a user's PATH."""
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def keyring(exists: Callable[[Path], bool] = Path.exists) -> Path | None:
    """The keys that Debian signs its archive with."""
    return next((path for path in _KEYRINGS if exists(path)), None)


def needs_qemu(system: System, machine: str | None = None) -> bool:
    """Whether the processor of this machine is another one than the device's; a 64-bit ARM runs the 64-bit ones."""
    return not (system.dpkg_arch == "arm64" and (machine or os.uname().machine) in ("aarch64", "arm64"))


def missing_packages(
    system: System,
    *,
    make: bool,
    which: Which = which,
    exists: Callable[[Path], bool] = Path.exists,
    registered: bool | None = None,
) -> list[str]:
    """The Debian packages to install, for running a system or for making it too; looks, changes nothing."""
    programs = _TO_RUN | (_TO_MAKE if make else {})
    missing = {package for program, package in programs.items() if which(program) is None}
    if make and keyring(exists) is None:
        missing.add("debian-archive-keyring")
    if needs_qemu(system) and not (_is_registered(system) if registered is None else registered):
        if which(f"{system.qemu}-static") is None:
            missing.add("qemu-user-static")
        if which("update-binfmts") is None:
            missing.add("binfmt-support")
    return sorted(missing)


def require_packages(system: System, *, make: bool) -> None:
    """All that is missing at once. Raises InputError "packages-missing"."""
    missing = missing_packages(system, make=make)
    if missing:
        raise InputError(
            "packages-missing",
            f"{system.name} needs Debian packages that this machine lacks: {', '.join(missing)}.",
            hint=f"sudo apt-get install {' '.join(missing)}",
            packages=missing,
        )


def require_disk(folder: Path) -> None:
    """Room for a new system and the packages that it is made from. Raises InputError "disk-too-small"."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < NEEDED_BYTES:
        raise InputError(
            "disk-too-small",
            f"An emulated device needs {size(NEEDED_BYTES)} at {folder}; {size(free)} are free.",
            hint="Free some space there, or point XDG_CACHE_HOME at a folder on a larger disk.",
            needed_bytes=NEEDED_BYTES,
            free_bytes=free,
        )


def enable_qemu(system: System) -> None:
    """Have the kernel run this processor's programs through QEMU: mounts binfmt_misc and registers it, if need be.

    Both are the machine's own, stay after ``stop``, and are what a machine with systemd has anyway. Raises InputError
    "no-binfmt" with the words of what failed.
    """
    if not needs_qemu(system) or _is_registered(system):
        return
    commands = [["update-binfmts", "--enable", system.qemu]]
    if not (_BINFMT / "register").exists():
        commands.insert(0, ["mount", "-t", "binfmt_misc", "binfmt_misc", str(_BINFMT)])
    said = ""
    for command in commands:
        program = which(command[0]) or command[0]
        done = subprocess.run([program, *command[1:]], capture_output=True, stdin=subprocess.DEVNULL, check=False)
        said = said or (done.stderr.decode("utf-8", "replace").strip() if done.returncode else "")
    if not _is_registered(system):
        raise InputError(
            "no-binfmt",
            f"The kernel does not take programs for {system.qemu}" + (f": {said}" if said else "."),
            hint="A container has to be privileged (docker run --privileged); elsewhere: modprobe binfmt_misc, then "
            f"update-binfmts --enable {system.qemu}",
        )


def _is_registered(system: System) -> bool:
    try:
        return (_BINFMT / system.qemu).read_text().startswith("enabled")
    except OSError:
        return False
