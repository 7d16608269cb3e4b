"""What the device is: read only, in some ten milliseconds, each fact by itself."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import struct
import sys
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

from .disk import free_bytes, read_text

# Libraries of the accelerators that the built-in target profiles name.
DELEGATES = (
    "libedgetpu.so.1",
    "libvx_delegate.so",
    "libvx_delegate.so.2",
    "libethosu_delegate.so",
    "libarmnnDelegate.so",
    "libtensorflowlite_gpu_delegate.so",
    "libQnnTFLiteDelegate.so",
)
THROTTLED_FILE = "/sys/devices/platform/soc/soc:firmware/get_throttled"
PYTHON_NAME = re.compile(r"python3(?:\.(?:[89]|\d\d))?")
PYTHONS_KEPT = 16
RUNTIME_PACKAGES = ("numpy", "tflite-runtime", "ai-edge-litert")


def now() -> str:
    """The time on this device's clock, in UTC, to the millisecond; texts sort as times do."""
    seconds = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1000):03d}Z"


def userland_arch() -> str:
    """The architecture that this Python runs on, which on a 64-bit kernel may still be a 32-bit one."""
    machine = platform.machine()
    wide = struct.calcsize("P") == 8
    if machine in ("aarch64", "arm64", "armv8l", "armv7l"):
        return "aarch64" if wide else "armv7l"
    if machine in ("x86_64", "AMD64"):
        return "x86_64" if wide else "i686"
    return machine


def libc_name() -> str:
    """The C library, as in ``glibc-2.36``; ``musl`` where it is not glibc."""
    try:
        name = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):
        name = ""
    return name.replace(" ", "-") if name.startswith("glibc") else "musl"


def cpu_features() -> List[str]:
    """The CPU's feature words as the kernel tells them (ARM: ``Features``, x86: ``flags``); none under qemu-user."""
    if is_emulated():
        return []  # /proc/cpuinfo is the host's
    found = re.search(r"^(?:Features|flags)\s*:\s*(.*)$", read_text("/proc/cpuinfo"), re.MULTILINE)
    return sorted(set(found.group(1).split())) if found else []


def is_emulated() -> bool:
    """True under qemu-user: it hides behind /proc/self, but not behind the same link of this thread."""
    with contextlib.suppress(OSError):
        if "qemu" in os.path.basename(os.readlink(f"/proc/self/task/{os.getpid()}/exe")):
            return True
    arm = platform.machine().startswith(("aarch64", "arm"))
    return arm and "vendor_id" in read_text("/proc/cpuinfo", 4096)


def memory_bytes(field: str) -> Optional[int]:
    """A field of /proc/meminfo in bytes; None where the kernel does not tell."""
    found = re.search(rf"^{field}:\s+(\d+) kB", read_text("/proc/meminfo"), re.MULTILINE)
    return int(found.group(1)) * 1024 if found else None


def installed_versions() -> Dict[str, str]:
    """Which of the packages that a release needs this Python has already, without importing them."""
    from importlib import metadata

    versions = {}
    for name in RUNTIME_PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = str(metadata.version(name))
    return versions


def find_delegates() -> Dict[str, str]:
    """The accelerator libraries of :data:`DELEGATES` that this Python's dynamic linker would find, and where."""
    folders = [folder for folder in os.environ.get("LD_LIBRARY_PATH", "").split(":") if folder]
    for base in ("/usr/local/lib", "/usr/lib", "/lib", "/usr/lib64", "/opt/lib"):
        folders += [base, os.path.join(base, f"{platform.machine()}-linux-gnu"), f"{base}/arm-linux-gnueabihf"]
    for path in ["/etc/ld.so.conf", *list_folder("/etc/ld.so.conf.d")]:
        folders += [line.strip() for line in read_text(path).splitlines() if line.startswith("/")]
    places = ((name, os.path.join(folder, name)) for folder in reversed(folders) for name in DELEGATES)
    found = {name: path for name, path in places if os.path.exists(path) and is_loadable(path)}
    return {name: found[name] for name in DELEGATES if name in found}


def is_loadable(path: str) -> bool:
    """False for a library of the other word size, which a 32-bit system on a 64-bit kernel may have beside its own."""
    try:
        with open(path, "rb") as file:
            head = file.read(5)  # elf(5): the fifth byte is 1 for 32 bits, 2 for 64
    except OSError:
        return False
    return not head.startswith(b"\x7fELF") or head[4:] == bytes([struct.calcsize("P") // 4])


def throttled_source() -> Optional[str]:
    """Where this device tells whether it is throttled; None where it does not."""
    if os.access(THROTTLED_FILE, os.R_OK):
        return THROTTLED_FILE
    return shutil.which("vcgencmd") or None


def find_pythons() -> List[str]:
    """The Pythons besides this one, each once: those on PATH first, then the usual folders and version managers."""
    home = os.path.expanduser("~")
    folders = [*os.environ.get("PATH", "").split(":"), "/usr/local/bin", "/usr/bin", "/opt/bin", f"{home}/.local/bin"]
    for parent in ("/opt", f"{home}/.pyenv/versions", f"{home}/.local/share/uv/python", home):
        folders += [f"{folder}/bin" for folder in list_folder(parent)]
    found: Dict[str, str] = {}
    for folder in folders:
        # A shim only starts the Pythons of a version manager, which are found themselves.
        for path in [] if os.path.basename(folder) in ("", "shims") else reversed(list_folder(folder)):
            real = os.path.realpath(path) if PYTHON_NAME.fullmatch(os.path.basename(path)) else ""
            if PYTHON_NAME.fullmatch(os.path.basename(real)) and os.access(path, os.X_OK):
                found.setdefault(real, path)
    found.pop(os.path.realpath(sys.executable), None)
    return list(found.values())[:PYTHONS_KEPT]


def list_folder(path: str) -> List[str]:
    """The paths in a folder, sorted; none where it is not there."""
    try:
        return [os.path.join(path, name) for name in sorted(os.listdir(path))]
    except OSError:
        return []


def os_name() -> str:
    """The system's name as its makers write it."""
    found = re.search(r"^PRETTY_NAME=(.*)$", read_text("/etc/os-release"), re.MULTILINE)
    return found.group(1).strip().strip("\"'") if found else platform.system()


def current_umask() -> str:
    """The umask, read without changing it where the kernel tells it."""
    found = re.search(r"^Umask:\s*(\d+)", read_text("/proc/self/status"), re.MULTILINE)
    return found.group(1) if found else "unknown"


def read_facts(root: str) -> Tuple[Dict[str, Any], List[str]]:
    """What this device is (read only, in some ten milliseconds), and why parts of it are not known."""
    readers: Dict[str, Callable[[], Any]] = {
        "python": platform.python_version,
        "executable": lambda: sys.executable,
        "arch": userland_arch,
        "machine": platform.machine,
        "libc": libc_name,
        "system": platform.system,
        "release": platform.release,
        "os": os_name,
        "hostname": lambda: os.uname().nodename,
        "model": lambda: read_text("/proc/device-tree/model").strip() or None,
        "cpus": lambda: len(os.sched_getaffinity(0)),
        "cpu_features": cpu_features,
        "memory_bytes": lambda: memory_bytes("MemTotal"),
        "memory_available_bytes": lambda: memory_bytes("MemAvailable"),
        "disk_free_bytes": lambda: free_bytes(root),
        "home": lambda: os.path.expanduser("~"),
        "umask": current_umask,
        "installed": installed_versions,
        "delegates": lambda: list(find_delegates()),
        "throttled_source": throttled_source,
        "emulated": is_emulated,
        "pythons": find_pythons,
    }
    return read_each(readers)


def read_each(readers: Dict[str, Callable[[], Any]]) -> Tuple[Dict[str, Any], List[str]]:
    """Each fact by itself: one that cannot be read is None, and a note says why."""
    facts: Dict[str, Any] = dict.fromkeys(readers)
    troubles = {name: read_one(facts, name, read) for name, read in readers.items()}
    return facts, [f"{name}: {trouble}"[:300] for name, trouble in troubles.items() if trouble]


def read_one(facts: Dict[str, Any], name: str, read: Callable[[], Any]) -> str:
    """Reads one fact; returns what kept it from being read, "" where nothing did."""
    try:
        facts[name] = read()
    except Exception as error:  # noqa: BLE001 (a fact that cannot be read must not take the others with it)
        return f"{type(error).__name__}: {error}"
    return ""
