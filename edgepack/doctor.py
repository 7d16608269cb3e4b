"""What this machine has for the main job, what it lacks, and the command that mends it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from edgepack.cachefolder import cache_folder
from edgepack.errors import EdgepackError
from edgepack.words import size

# A TensorFlow environment and a handful of bundles with their wheels.
_WANTED_FREE_BYTES = 2_000_000_000
# ssh-keygen finds who made a signature (-Y find-principals) from here on. https://www.openssh.com/txt/release-8.2
_SIGNING_OPENSSH = (8, 2)
_PIP_TIMEOUT_S = 30.0
_SSH_TIMEOUT_S = 10.0
_COUNTING_S = 5.0


@dataclass(frozen=True, slots=True)
class HostCheck:
    """One thing that was looked at: ``needed_for`` names the verbs, ``mend`` the command where it is missing.

    What is ``optional`` is for some targets or verbs only, and its lack makes no machine unhealthy.
    """

    name: str
    found: str | None
    ok: bool
    needed_for: str
    mend: str = ""
    optional: bool = False


@dataclass(frozen=True, slots=True)
class DoctorDocument:
    """All checks of this machine; ``healthy`` when nothing that the main job needs is missing."""

    healthy: bool
    checks: tuple[HostCheck, ...]


def examine() -> DoctorDocument:
    """Look at this machine, at everything at once; imports nothing heavy and changes nothing.

    Only pip asks the network, and only whether its package index answers.
    """
    looks: list[Callable[[], Iterable[HostCheck]]] = [
        _python, _distributions, _runtimes_apart, _ssh, _signing, _ssh_files, _sshd, _pip, _index, _compilers,
        _emulation, _cache_folder, _temporary_folder,
    ]  # fmt: skip
    with ThreadPoolExecutor(len(looks)) as pool:
        checks = tuple(check for found in pool.map(lambda look: tuple(look()), looks) for check in found)
    return DoctorDocument(all(check.ok or check.optional for check in checks), checks)


def _python() -> Iterable[HostCheck]:
    version = sys.version_info
    found = f"{version.major}.{version.minor}.{version.micro}"
    yield HostCheck("python", found, (3, 11) <= version[:2] <= (3, 13), "everything", "install Python 3.11 to 3.13")


def _distributions() -> Iterable[HostCheck]:
    verbs, mend = "quantize, tune, deploy MODEL, demo", "in edgepack's checkout: pip install '.[quantize]'"
    for name in ("tensorflow", "tf_keras", "ai-edge-litert", "litert-quantizer", "h5py", "pillow"):
        version = _version(name)
        yield HostCheck(name, version, version is not None, verbs, mend)
    version = _version("scikit-learn")
    yield HostCheck(
        "scikit-learn", version, version is not None, "demo", "in edgepack's checkout: pip install '.[demo]'", True
    )


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _runtimes_apart() -> Iterable[HostCheck]:
    """tflite-runtime 2.14 was built for numpy 1; with numpy 2 it dies when an Interpreter is made."""
    if importlib.util.find_spec("tflite_runtime") is None:
        yield HostCheck("tflite-runtime", "not installed (not needed here)", True, "local: devices")
        return
    numpy_version = _version("numpy") or "0"
    fits = int(numpy_version.split(".")[0]) < 2
    yield HostCheck(
        "tflite-runtime",
        f"with numpy {numpy_version}",
        fits,
        "local: devices",
        f"{sys.executable} -m pip install 'numpy<2'",
    )


def _ssh() -> Iterable[HostCheck]:
    yield _program("ssh", "your SSH configuration, --transport openssh", "sudo apt install openssh-client")


def _signing() -> Iterable[HostCheck]:
    """ssh-keygen tells no version; the ssh of the same package does."""
    verbs, mend = "bundle --sign, verify and push --allowed-signers", "sudo apt install openssh-client"
    program, told = shutil.which("ssh-keygen"), _answer(["ssh", "-V"])[1]
    version = openssh_version(told)
    if program is None or version is None:
        yield HostCheck("ssh-keygen", program, program is not None, verbs, mend, True)
        return
    found = f"{program} (OpenSSH {version[0]}.{version[1]})"
    yield HostCheck("ssh-keygen", found, version >= _SIGNING_OPENSSH, verbs, "install OpenSSH 8.2 or newer", True)


def openssh_version(text: str) -> tuple[int, int] | None:
    """The (9, 2) of "OpenSSH_9.2p1 Debian-2, OpenSSL 3.0.11"; None where the text tells none. Pure."""
    found = re.search(r"OpenSSH_(\d{1,3})\.(\d{1,3})", text)
    return (int(found.group(1)), int(found.group(2))) if found else None


def _ssh_files() -> Iterable[HostCheck]:
    """Your SSH configuration and known hosts as every command reads them; ``ssh -G`` is asked about any host."""
    from edgepack.device import ConnectOptions, DeviceAddress
    from edgepack.device.hostkeys import read_known_hosts
    from edgepack.device.sshconfig import resolve

    config, known_hosts = (os.environ.get(f"EDGEPACK_{name}") for name in ("SSH_CONFIG", "KNOWN_HOSTS"))
    options = ConnectOptions(
        ssh_config=Path(config) if config else None, known_hosts=Path(known_hosts) if known_hosts else None
    )
    name = "SSH configuration"
    try:
        place = resolve(DeviceAddress.parse("localhost"), options)
        yield HostCheck(name, "readable", True, "reaching devices")
        name = "known hosts"
        keys = read_known_hosts(place.known_hosts)
    except EdgepackError as error:
        yield HostCheck(name, error.message, False, "reaching devices", error.hint)
        return
    yield HostCheck(name, f"{len(keys)} keys in {place.known_hosts[0]} and others", True, "reaching devices")


def _sshd() -> Iterable[HostCheck]:
    program = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin:/sbin")
    mend = "sudo apt install openssh-server"
    yield HostCheck("sshd", program, program is not None, "this machine as a device of others", mend, True)


def _compilers() -> Iterable[HostCheck]:
    """The programs that targets name as their [compile] step."""
    from edgepack.quantize.compiling import how_to_install
    from edgepack.target import list_targets

    targets: dict[str, list[str]] = {}
    for target in list_targets():
        if target.compile_command:
            targets.setdefault(target.compile_command[0], []).append(target.name)
    for name, users in targets.items():
        needed_for = f"quantize --target {' or '.join(users)}, on this machine"
        yield _program(name, needed_for, how_to_install(name) or f"put {name} on the PATH", optional=True)


def _program(name: str, needed_for: str, mend: str, *, optional: bool = False) -> HostCheck:
    found = shutil.which(name)
    return HostCheck(name, found, found is not None, needed_for, mend, optional)


def _emulation() -> Iterable[HostCheck]:
    """What `emulate start` would refuse for, before it is typed; the packages of all its systems together."""
    from edgepack.device.emulated.needs import missing_packages, require_linux_root
    from edgepack.device.emulated.systems import SYSTEMS

    name, needed_for = "emulated devices", "emulate"
    packages = sorted({package for system in SYSTEMS.values() for package in missing_packages(system, make=True)})
    if packages:
        found, mend = f"lacks {', '.join(packages)}", f"sudo apt install {' '.join(packages)}"
        yield HostCheck(name, found, False, needed_for, mend, True)
        return
    try:
        require_linux_root()
    except EdgepackError as error:
        yield HostCheck(name, error.message, False, needed_for, error.hint, True)
        return
    yield HostCheck(name, f"{', '.join(SYSTEMS)} can be made", True, needed_for)


def _pip() -> Iterable[HostCheck]:
    version = _version("pip") if importlib.util.find_spec("pip") else None
    mend = f"{sys.executable} -m ensurepip"
    yield HostCheck("pip", version, version is not None, "bundle (fetching a runtime's wheels)", mend)


def _index() -> Iterable[HostCheck]:
    """Whether pip's configured index answers. Off line, wheels that were fetched before still do."""
    command = [sys.executable, "-m", "pip", "index", "versions", "numpy", "--timeout=8", "--retries=0", "--no-input"]
    code, told = _answer([*command, "--disable-pip-version-check"], _PIP_TIMEOUT_S)
    mend = "check the network and `pip config list`; without: bundle --wheels FOLDER, or bundle --without-runtime"
    needed_for = "bundle (wheels that were not fetched before)"
    found = "answers" if code == 0 else last_error(told)
    yield HostCheck("package index", found, code == 0, needed_for, mend, True)


def last_error(text: str) -> str | None:
    """The last line in which pip says what is wrong; None where it said nothing. Pure."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or [""])[-1][:200] or None


def _cache_folder() -> Iterable[HostCheck]:
    folder = cache_folder()
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not os.access(existing, os.W_OK):
        found, mend = f"{folder} (not writable)", "set XDG_CACHE_HOME to a folder of yours"
        yield HostCheck("cache folder", found, False, "bundle", mend)
        return
    count, byte_count, all_of_it = folder_size(folder)
    held = f"{'' if all_of_it else 'more than '}{count} files, {size(byte_count)}"
    free_bytes = shutil.disk_usage(existing).free
    found = f"{folder} ({held}; {size(free_bytes)} free)"
    mend = f"free some space below {existing}; {folder} may be deleted"
    yield HostCheck("cache folder", found, free_bytes >= _WANTED_FREE_BYTES, "bundle", mend)


def folder_size(folder: Path, limit_s: float = _COUNTING_S) -> tuple[int, int, bool]:
    """How many files lie under a folder and their bytes; False where there were more than could be counted in time."""
    deadline = time.monotonic() + limit_s
    count = byte_count = 0
    for base, _, names in os.walk(folder):
        if time.monotonic() > deadline:
            return count, byte_count, False
        sizes = [_size_of(Path(base, name)) for name in names]
        count, byte_count = count + len(sizes), byte_count + sum(sizes)
    return count, byte_count, True


def _size_of(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0


def _temporary_folder() -> Iterable[HostCheck]:
    needed_for, mend = "quantize", "free some space there, or set TMPDIR to a folder with more"
    try:
        folder = tempfile.gettempdir()
        free_bytes = shutil.disk_usage(folder).free
    except OSError as error:
        yield HostCheck("temporary folder", str(error), False, needed_for, "set TMPDIR to a folder of yours")
        return
    found = f"{folder} ({size(free_bytes)} free)"
    yield HostCheck("temporary folder", found, free_bytes >= _WANTED_FREE_BYTES, needed_for, mend)


def _answer(command: list[str], timeout_s: float = _SSH_TIMEOUT_S) -> tuple[int, str]:
    """A program's exit status and all that it said; -1 where it cannot be started or does not end in time."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=timeout_s,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return -1, f"{command[0]} did not answer within {timeout_s:.0f} s"
    except OSError as error:
        return -1, f"{command[0]}: {error.strerror}"
    return done.returncode, f"{done.stdout}\n{done.stderr}"
