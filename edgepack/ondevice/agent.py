r"""The agent: what edgepack runs on a device. Python 3.8, standard library only, streamed down an SSH channel.

The contract with the host (docs/protocol.md tells the same story for people)
-----------------------------------------------------------------------------
The host starts ``python3 -I -u -c <bootstrap>``; the bootstrap reads this file from its standard input and executes it
with ``EDGEPACK_NONCE`` set. The agent goes on with the same ``sys.stdin.buffer``: the host may send frames at once.

First output: ``\nEDGEPACK1 <nonce>\n``. The host throws away what came before (a banner, an ``echo`` in ``.bashrc``).

A frame, in both directions, is one line of JSON (UTF-8, at most 64 KiB with its newline) and ``n`` bytes of payload::

    request   {"id": 1, "verb": "put", "n": 4096, ...arguments}
    reply     {"id": 1, "ok": true, "n": 0, "result": {...}}
              {"id": 1, "ok": false, "n": 0, "error": {"code", "message", "hint", "details"}}
    progress  {"id": 1, "progress": {...}, "n": 0}                 (measure only; before the reply)

Arguments or a result that do not fit into a line travel as the payload: the header then says ``"body": true`` and its n
bytes (at most 16 MiB) are the JSON object of the arguments, or of the result. A header or body has at most 200,000
values in 32 levels, no NaN and no number beyond a float's range.

Requests are answered in order, except ``ping``, which is answered at once, also while another verb runs. A request that
failed before it took its payload is answered first and its payload thrown away afterwards. A line that is no frame ends
the session, after a reply with ``"id": null``. Expected failures are data with a code, never a traceback.

When the agent has waited 60 s for the host (``hello`` may say another ``silence_s``), at the end of input and on
SIGTERM, SIGHUP or SIGINT, it kills its children and ends. What it was doing is settled by the next locked session.

Verbs: hello, ping, probe, missing, put, commit, activate, rollback, status, manifest, measure, collect, record, gc,
trust.
Those that change something (put, commit, activate, rollback, record, gc) need ``hello`` with ``"lock": true``; those
with ``op``, an operation id, answer a known id with its stored result and do nothing. With ``"dry_run": true``
activate, rollback and gc only tell what they would do, by the same rules; that needs neither lock nor op.

A pinned device
---------------
``trust`` lays this file, the allowed signers and ``pin.json`` down in a folder that the deploying account cannot write.
Its key may then run ``python3 -I -u .../agent.py --pinned`` and nothing else (``command=`` in authorized_keys). Such an
agent throws the agent that the host streams away unread, and begins as any other. It works in the pinned root only,
takes releases only whose manifest an allowed signer signed and whose counter is higher than any before, runs code of
such releases and the pinned hooks and nothing else, and knows no ``trust``. docs/security.md says what that is worth.

Rules of durability
-------------------
1. Everything is staged in ``incoming/``, verified there, fsynced, and moved into place by one rename.
2. ``current`` is a symlink replaced by rename; it alone says what is active. It is only ever pointed at a release whose
   digests were verified in the same call.
3. ``state.json`` is replaced atomically. An activation writes its intent first; a locked session begins by settling
   the intents that a kill or a power cut left.
4. A release is immutable; its id ends in the first 12 hex digits of its manifest's SHA-256, and the manifest holds the
   digest of every file. ``device.json`` (what was chosen on this device) lies outside of it.
5. No path leads out of the root: names are checked, and a symlink where a folder or a file is expected is an error.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import io
import json
import os
import platform
import pwd
import queue
import re
import select
import shlex
import shutil
import signal
import stat
import struct
import subprocess
import sys
import threading
import time
from base64 import urlsafe_b64encode
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterable, Iterator, List, Optional, Set, Tuple

if TYPE_CHECKING:
    from zipfile import ZipFile, ZipInfo

PROTOCOL = 1
SCHEMA = 1
NONCE = str(globals().get("EDGEPACK_NONCE", "-"))
HEADER_LIMIT = 64 * 1024
BODY_LIMIT = 16 * 1024 * 1024
CHUNK = 1024 * 1024
PIECE = 64 * 1024
F_SETPIPE_SZ = 1031  # fcntl(2); Python has it from 3.10 on
SILENCE_S = 60.0
VALUES_LIMIT = 200_000  # of one JSON text; a commit of 10,000 files has 60,000
LEVELS_LIMIT = 32
MANIFEST_LIMIT = 1024 * 1024
SIGNATURE_LIMIT = 64 * 1024
AGENT_LIMIT = 4 * 1024 * 1024
UNPACKED_LIMIT = 4 * 1024**3
WHEEL_FILES_LIMIT = 10_000  # the runtimes and numpy have up to 1,500
WHEEL_DIRECTORY_LIMIT = 4 * 1024 * 1024
RECORD_LIMIT = 2 * 1024 * 1024
DISK_MARGIN = 1024 * 1024
OPERATIONS_KEPT = 64
HISTORY_KEPT = 200
OUTPUT_TAIL = 4096
LOOK_S = 10.0  # how long the programs that a probe asks may take, together
MEMORY_FOR_RUNTIME = 64 * 1024 * 1024
MEASURE_SLACK_S = 600.0

APP_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
RELEASE_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}-[0-9a-f]{12}")
DIGEST_PATTERN = re.compile(r"[0-9a-f]{64}")
NAME_PATTERN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+!-]{0,199}")
DOOR_VERSION_PATTERN = re.compile(rb"^DOOR_VERSION\s*=\s*(\d+)", re.MULTILINE)
ACCOUNT_PATTERN = re.compile(r"[A-Za-z_][A-Za-z0-9._-]{0,63}")
PLAIN_PATH_PATTERN = re.compile(r"(/[A-Za-z0-9._+-]+)+")  # what needs no quotes in authorized_keys or a shell
DOOR = "edgepack_device.py"
SIGNATURE = "manifest.json.sig"
COUNTERS = "counters.json"
DEFAULT_ROOT = "~/.edgepack"

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


# ---------------------------------------------------------------------------------------------------- errors as data


MEMORY_HINT = "Stop other programs on the device, or take a smaller model."
CANDIDATE_HINT = "Push a bundle, or name a release that is there with --release."
WRITABLE_HINT = "Mount it writable, or choose a folder on another file system with --root."


class AgentError(Exception):
    """An expected failure: ``code`` is a stable word, ``hint`` says what to do next, ``details`` are JSON values."""

    def __init__(self, code: str, message: str, hint: str, **details: Any) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.details = details

    def to_json(self) -> Dict[str, Any]:
        """The error as the ``error`` object of a reply."""
        return {"code": self.code, "message": self.message, "hint": self.hint, "details": self.details}

    @classmethod
    def from_json(cls, value: Dict[str, Any]) -> AgentError:
        """The error that :meth:`to_json` wrote."""
        details = value.get("details")
        return cls(
            str(value.get("code", "internal")),
            str(value.get("message", "")),
            str(value.get("hint") or ""),
            **(details if isinstance(details, dict) else {}),
        )


def translate_os_error(error: OSError) -> AgentError:
    """An ``OSError`` in the protocol's words; the disk that is full keeps its own code."""
    where = error.filename if isinstance(error.filename, str) else ""
    what = f"{where}: {error.strerror or error}" if where else str(error.strerror or error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return AgentError("disk-full", f"The device's disk is full ({what}).", "Free some space; `edgepack gc` helps.")
    if error.errno == errno.EROFS:
        return AgentError("read-only", f"The device's file system is mounted read-only ({what}).", WRITABLE_HINT)
    if error.errno == errno.ENOMEM:
        return AgentError("out-of-memory", f"The device is out of memory ({what}).", MEMORY_HINT)
    hint = "See that your account may write there and that the disk is sound (`dmesg` on the device), then try again."
    return AgentError("io-error", f"A file operation failed on the device ({what}).", hint, errno=error.errno)


def bad_request(message: str) -> AgentError:
    """The host asked for something that the protocol does not allow."""
    return AgentError(
        "bad-request",
        message,
        "Check the names that you gave. If they are right, this is a fault of edgepack: report it.",
    )


# ------------------------------------------------------------------------------------------- values out of a request


def take(args: Dict[str, Any], key: str, kind: type) -> Any:
    """``args[key]``, which must be of this type (an int is never a bool)."""
    value = args.get(key)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise bad_request(f"{key!r} must be of type {kind.__name__}, not {type(value).__name__}.")
    return value


def take_name(args: Dict[str, Any], key: str, pattern: Any) -> str:
    """``args[key]``, a name that fully matches the pattern and so cannot be a path."""
    value: str = take(args, key, str)
    if not pattern.fullmatch(value):
        raise AgentError(
            "bad-request",
            f"{value[:100]!r} cannot be the name of {'an app' if key == 'app' else 'a ' + key}.",
            "Names are letters, digits and . _ + - , beginning with a letter or digit.",
        )
    return value


def take_size(args: Dict[str, Any], key: str) -> int:
    """``args[key]``, a number of bytes."""
    value: int = take(args, key, int)
    if value < 0:
        raise bad_request(f"{key!r} is negative.")
    return value


def take_seconds(args: Dict[str, Any], key: str, default: float) -> float:
    """``args[key]``, a finite positive number of seconds, or the default where it is absent."""
    value = args.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e6:
        raise bad_request(f"{key!r} is not a number of seconds.")
    return float(value)


def take_who(args: Dict[str, Any], key: str) -> str:
    """``args[key]``, a few words that tell people who asked; empty where it is absent."""
    value: str = take(args, key, str) if args.get(key) is not None else ""
    return value[:200]


def take_list(args: Dict[str, Any], key: str) -> List[Dict[str, Any]]:
    """``args[key]``, a list of objects."""
    value = take(args, key, list)
    if len(value) > 10_000 or not all(isinstance(item, dict) for item in value):
        raise bad_request(f"{key!r} is not a list of objects.")
    return list(value)


def take_path(entry: Dict[str, Any]) -> str:
    """The relative path of a file inside a release."""
    path: str = take(entry, "path", str)
    parts = path.split("/")
    clean = all(part not in ("", ".", "..") and len(part.encode("utf-8", "replace")) <= 255 for part in parts)
    if not clean or "\\" in path or any(ord(letter) < 32 for letter in path) or not is_file_name(path):
        raise bad_request(f"Not a path inside a release: {path[:200]!r}.")
    return path


def is_file_name(text: str) -> bool:
    """Whether the system can be given this text, as a path or as an argument; no half of a surrogate pair can."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def parse_object(data: bytes, what: str) -> Dict[str, Any]:
    """The JSON object that the host sent, of a bounded size; nothing in it nests deeper than can be written again.

    Python takes up to 250 bytes for a value and four for a letter: 150 MiB at most, for a body of 16 MiB.
    """
    if data.count(b",") + data.count(b"[") + data.count(b"{") > VALUES_LIMIT:
        raise bad_request(f"{what} holds more than {VALUES_LIMIT} values.")
    try:
        value = parse_json(data)
    except (ValueError, RecursionError):
        raise bad_request(f"{what} is not JSON, or nests deeper than {LEVELS_LIMIT} levels.") from None
    if not isinstance(value, dict):
        raise bad_request(f"{what} is not a JSON object.")
    return value


def parse_json(data: bytes) -> Any:
    """A JSON value that can be written again: no NaN, no number beyond a float, at most 32 levels.

    Raises ``ValueError`` or ``RecursionError``.
    """
    value = json.loads(data, parse_constant=float_of_json, parse_float=float_of_json)
    level: List[Any] = [value]
    for _ in range(LEVELS_LIMIT):
        inner = (item.values() if isinstance(item, dict) else item for item in level if isinstance(item, (dict, list)))
        level = [item for items in inner for item in items]
    if level:
        raise ValueError("too many levels")
    return value


def float_of_json(text: str) -> float:
    """A finite number; NaN and the infinities are no JSON (RFC 8259), though Python's parser takes them."""
    value = float(text)
    if value - value != 0:
        raise ValueError(f"{text} is no JSON")
    return value


def now() -> str:
    """The time on this device's clock, in UTC, to the millisecond; texts sort as times do."""
    seconds = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1000):03d}Z"


# --------------------------------------------------------------------------------------------- files, done durably


def confined(root: str, *names: str) -> str:
    """The path of ``names`` under ``root``; no component below the root may be a symlink or a step upward."""
    path = root
    for name in (part for joined in names for part in joined.split("/")):
        if name in ("", ".", "..") or "\0" in name:
            raise bad_request(f"Not a name inside edgepack's folder: {name!r}.")
        path = os.path.join(path, name)
        if os.path.islink(path):
            raise AgentError(
                "unsafe-path",
                f"{path} is a symbolic link, where edgepack keeps a folder or a file of its own.",
                f"Remove that link on the device (rm {path}) and try again.",
            )
    return path


def sync_folder(path: str) -> None:
    """Makes the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: str) -> None:
    """Makes a folder and its parents, durably; one that is there is left as it is."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    make_folder(parent)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path)
    sync_folder(parent)


def write_atomically(path: str, data: bytes) -> None:
    """Replaces a file's content: at every instant the old one or the new one is there, whole."""
    temporary = f"{path}.new-{os.urandom(4).hex()}"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync_folder(os.path.dirname(path))


def write_json(path: str, value: Any) -> None:
    """Replaces a JSON file atomically."""
    text = json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False)
    write_atomically(path, text.encode("utf-8", "surrogatepass"))


def read_json(path: str) -> Dict[str, Any]:
    """The object in a JSON file; empty where the file is absent or is no JSON object."""
    try:
        with open(path, "rb") as file:
            value = parse_json(file.read(BODY_LIMIT))
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def digest_file(path: str) -> str:
    """The SHA-256 of a file's content, in hex; memory stays flat."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        buffer = memoryview(bytearray(CHUNK))
        while True:
            count = file.readinto(buffer)
            if not count:
                return digest.hexdigest()
            digest.update(buffer[:count])


def is_whole(path: str, size: int, sha256: str) -> bool:
    """True where the file is there, regular, of this size and of this digest."""
    try:
        info = os.lstat(path)
        return stat.S_ISREG(info.st_mode) and info.st_size == size and digest_file(path) == sha256
    except OSError:
        return False


def link_or_copy(source: str, target: str) -> None:
    """A second name for a file, or a durable copy where the file system knows no hard links."""
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:
        shutil.copyfile(source, target)
        with open(target, "rb") as file:
            os.fsync(file.fileno())


def walk_files(folder: str) -> Iterator[str]:
    """The relative paths of the files under a folder, sorted."""
    for base, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            yield os.path.relpath(os.path.join(base, name), folder)


def sync_tree(folder: str) -> None:
    """Makes the names in a folder and in all folders below it durable; their files were synced when written."""
    for base, _, _ in os.walk(folder, topdown=False):
        sync_folder(base)


def change_tree_mode(folder: str, writable: bool) -> None:
    """Takes the write permission from everything under a folder, or gives it back to the owner."""
    for base, _, files in os.walk(folder):
        for path in [base] + [os.path.join(base, name) for name in files]:
            mode = stat.S_IMODE(os.lstat(path).st_mode)
            changed = mode | stat.S_IWUSR if writable else mode & ~0o222
            if changed != mode and not os.path.islink(path):
                os.chmod(path, changed)


def remove_tree(path: str) -> None:
    """Removes a file or a folder, also a read-only one; what is not there is no error."""
    if os.path.isdir(path) and not os.path.islink(path):
        change_tree_mode(path, writable=True)
        shutil.rmtree(path)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def mend_tree(staged: str, existing: str) -> None:
    """Replaces, one by one and atomically, the files of an existing folder by those of a verified staged one.

    The folder itself stays, so a symlink to it never dangles.
    """
    change_tree_mode(existing, writable=True)
    for path in list(walk_files(staged)):
        target = os.path.join(existing, path)
        make_folder(os.path.dirname(target))
        if os.path.isdir(target) and not os.path.islink(target):
            remove_tree(target)
        os.replace(os.path.join(staged, path), target)
    sync_tree(existing)
    remove_tree(staged)


def free_bytes(path: str) -> int:
    """What an ordinary user may still write on the file system of a path, or of its nearest existing parent."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    info = os.statvfs(path)
    return info.f_bavail * info.f_frsize


def require_space(path: str, needed: int) -> None:
    """Raises ``disk-full`` before anything is written where the disk is too small for it."""
    free = free_bytes(path)
    if free < needed + DISK_MARGIN:
        raise AgentError(
            "disk-full",
            f"The device's disk is too full: {needed} bytes are needed at {path}, {free} are free.",
            "Free some space on the device (`edgepack gc` removes old releases), then push again.",
            needed_bytes=needed,
            free_bytes=free,
        )


# ------------------------------------------------------------------------------------------------ what the device is


def read_text(path: str, limit: int = 65536) -> str:
    """A small text file of the system; empty where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(limit).decode("utf-8", "replace").replace("\0", "")
    except OSError:
        return ""


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


# ---------------------------------------------------------------------------------- what more a probe wants to know

# The host reads these texts (edgepack/deploy/devicetexts.py): here they are only fetched, all at once, bounded in time.
VERSION_IN_PATH = re.compile(r"/[^/]*?(3\.\d+\.\d+)[^/]*/bin/[^/]+")
CPU_LINE = re.compile(r"(?:model name|CPU implementer|CPU part|CPU revision|Model|Hardware|Revision|vendor_id)\s*:")
TELL_PYTHON = 'import struct,sys;print("%d.%d.%d"%sys.version_info[:3],struct.calcsize("P")*8)'


def look(root: str) -> Dict[str, Any]:
    """All that ``probe`` shows: the facts, the texts that the host reads more from, and what could not be read."""
    deadline = time.monotonic() + LOOK_S
    asked = {name: start_asking(argv) for name, argv in programs_to_ask().items()}
    facts, notes = read_facts(root)
    more, troubles = read_each(
        {
            "delegate_paths": find_delegates,
            "thermal": thermal_zones,
            "power": power_supplies,
            "undervoltage": undervoltage,
            "governor": governor,
        }
    )
    texts = {
        "cpu": "" if is_emulated() else unique_lines(read_text("/proc/cpuinfo", 1024 * 1024), CPU_LINE),
        "os_release": read_text("/etc/os-release", 4096),
        "throttled": read_text(THROTTLED_FILE, 64).strip(),
    }
    for path in facts["pythons"] or []:
        version = VERSION_IN_PATH.search(path)
        texts[f"python {path}"] = version.group(1) if version else ""
    for name, program in asked.items():
        text, trouble = hear(program, deadline)
        texts[name] = text
        # Some sshd and ldd know no option for their version, complain, and tell it all the same.
        if trouble and not (text and name in ("sshd", "ldd")):
            troubles.append(f"{name}: {trouble}")
    return {"facts": {**facts, **more}, "texts": texts, "notes": notes + troubles, "time_s": time.time()}


def unique_lines(text: str, wanted: Any) -> str:
    """The lines that hold what is wanted, each once: 64 cores say the same 64 times."""
    return "\n".join(dict.fromkeys(line for line in text.splitlines() if wanted.search(line)))[:8192]


def programs_to_ask() -> Dict[str, List[str]]:
    """The programs that tell what no file does, by the name that the host knows their answer by."""
    search = os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/local/sbin:/usr/sbin:/sbin:/opt/vc/bin"
    commands = {"ssh": ["ssh", "-V"], "sshd": ["sshd", "-V"]}
    if not is_emulated() and not os.access(THROTTLED_FILE, os.R_OK):
        commands["throttled"] = ["vcgencmd", "get_throttled"]
    if libc_name() == "musl":
        commands["ldd"] = ["ldd", "--version"]
    asked = {}
    for name, argv in commands.items():
        program = shutil.which(argv[0], path=search)
        if program:
            asked[name] = [program, *argv[1:]]
    for path in find_pythons():
        if VERSION_IN_PATH.search(path) is None:
            asked[f"python {path}"] = [path, "-I", "-S", "-c", TELL_PYTHON]
    return asked


def start_asking(argv: List[str]) -> Any:
    """The started program and the reader of its output, or the ``OSError`` where it cannot be started."""
    try:
        child = CHILDREN.start(argv, stdin=subprocess.DEVNULL, env=dict(os.environ, LC_ALL="C"), cwd="/")
    except OSError as error:
        return error
    return child, Tail(child.stdout)


def hear(asked: Any, deadline: float) -> Tuple[str, str]:
    """A program's answer and what was wrong with it ("" where nothing was); one that hangs is ended."""
    if isinstance(asked, OSError):
        return "", str(asked.strerror)
    child, tail = asked
    tail.join(deadline - time.monotonic())
    try:
        code = child.wait(max(deadline - time.monotonic(), 0.1))
    except subprocess.TimeoutExpired:
        CHILDREN.kill(child)
        return "", f"did not answer in {LOOK_S:g} s"
    CHILDREN.done(child)
    return tail.text(), f"ended with {code}" if code else ""


def thermal_zones(system: str = "/sys") -> List[Dict[str, Any]]:
    """Where the kernel tells temperatures; under qemu-user they would be the host's."""
    zones = []
    for zone in [] if is_emulated() else list_folder(f"{system}/class/thermal"):
        degrees = read_text(f"{zone}/temp").strip()
        if os.path.basename(zone).startswith("thermal_zone"):
            known = re.fullmatch(r"-?\d{1,9}", degrees) is not None
            name = read_text(f"{zone}/type").strip()[:64]
            zones.append({"name": name, "temperature_c": int(degrees) / 1000 if known else None})
    return zones


def power_supplies(system: str = "/sys") -> List[Dict[str, Any]]:
    """Batteries and mains as the kernel tells them (sysfs-class-power); words and numbers as they stand there."""
    supplies = []
    for folder in [] if is_emulated() else list_folder(f"{system}/class/power_supply"):
        told = {name: read_text(f"{folder}/{name}").strip()[:64] for name in ("type", "status", "online", "capacity")}
        supplies.append({"name": os.path.basename(folder), **{key: value for key, value in told.items() if value}})
    return supplies


def undervoltage(system: str = "/sys") -> Optional[bool]:
    """Whether a Raspberry Pi's supply is too weak now (driver rpi_volt); None where no driver tells."""
    for folder in [] if is_emulated() else list_folder(f"{system}/class/hwmon"):
        if read_text(f"{folder}/name").strip() == "rpi_volt":
            return read_text(f"{folder}/in0_lcrit_alarm").strip() == "1"
    return None


def governor(system: str = "/sys") -> Optional[str]:
    """Who sets the CPU's clock rate: "performance", "ondemand" and the like."""
    path = f"{system}/devices/system/cpu/cpu0/cpufreq/scaling_governor"
    return None if is_emulated() else read_text(path).strip()[:64] or None


# --------------------------------------------------------------------------------------- releases, and one app's state


def release_folder(root: str, app: str, release: str) -> str:
    """Where a release lies."""
    return confined(root, "apps", app, "releases", release)


def list_names(folder: str, pattern: Any) -> List[str]:
    """The folders in a folder whose names match, sorted; none where it does not exist."""
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(n for n in names if pattern.fullmatch(n) and os.path.isdir(os.path.join(folder, n)))


def list_apps(root: str) -> List[str]:
    """The apps on this device."""
    return list_names(os.path.join(root, "apps"), APP_PATTERN)


def list_releases(root: str, app: str) -> List[str]:
    """The releases of an app that are committed on this device."""
    return list_names(os.path.join(root, "apps", app, "releases"), RELEASE_PATTERN)


def read_manifest(folder: str) -> Tuple[Dict[str, Any], str]:
    """A release's manifest and the SHA-256 of its bytes; an empty one where there is none that can be read."""
    try:
        with open(os.path.join(folder, "manifest.json"), "rb") as file:
            data = file.read(MANIFEST_LIMIT + 1)
        value = parse_json(data)
    except (OSError, ValueError, RecursionError):
        return {}, ""
    return (value if isinstance(value, dict) else {}), hashlib.sha256(data).hexdigest()


def manifest_files(manifest: Dict[str, Any]) -> List[Tuple[str, int, str]]:
    """(path, bytes, SHA-256) of the files that a release holds on the device: all but the wheels."""
    files = []
    for entry in take_list(manifest, "files"):
        path, size, sha256 = take_path(entry), take_size(entry, "bytes"), take_name(entry, "sha256", DIGEST_PATTERN)
        if not path.startswith("wheels/") and path != "manifest.json":
            files.append((path, size, sha256))
    return files


def freed_bytes(folders: List[str]) -> int:
    """What removing these folders frees: a file that something else has a second name of (a hard link) stays."""
    names: Dict[Tuple[int, int], int] = {}
    freed = 0
    for folder in folders:
        for path in walk_files(folder):
            info = os.lstat(os.path.join(folder, path))
            inode = (info.st_dev, info.st_ino)
            names[inode] = names.get(inode, 0) + 1
            if names[inode] == info.st_nlink:
                freed += info.st_size
    return freed


def find_damage(folder: str, release: str) -> List[str]:
    """The files of a release that are not what its id vouches for; every digest is computed anew."""
    manifest, sha256 = read_manifest(folder)
    if not sha256.startswith(release[-12:]) or not sha256:
        return ["manifest.json"]
    return [
        path for path, size, digest in manifest_files(manifest) if not is_whole(confined(folder, path), size, digest)
    ]


def require_whole(root: str, app: str, release: str) -> str:
    """The folder of a release whose digests, and whose runtime's, were all verified just now."""
    folder = require_release(root, app, release)
    damaged = find_damage(folder, release)
    runtime = runtime_of(folder)
    if not damaged and runtime and not is_runtime_whole(confined(root, "runtimes", runtime)):
        damaged = [f"runtimes/{runtime}"]
    if damaged:
        raise AgentError(
            "release-damaged",
            f"Release {release} of {app} is damaged on this device: {', '.join(damaged[:5])}.",
            "Push its bundle again; that repairs it: edgepack push FILE.edgepack DEVICE.",
            damaged=damaged[:100],
        )
    return folder


def runtime_of(folder: str) -> Optional[str]:
    """The id of the unpacked runtime that a release uses; None where it uses what the device has installed."""
    runtime = read_json(os.path.join(folder, "device.json")).get("runtime")
    found = runtime.get("id") if isinstance(runtime, dict) else None
    return found if isinstance(found, str) and NAME_PATTERN.fullmatch(found) else None


def setup_digest(folder: str) -> str:
    """What a release runs with on this device (``device.json``) as one digest, which its verdict is bound to.

    An interpreter counts as the same under another name in its folder (``python``, ``python3``); the environment that
    the folder belongs to, and the version, count.
    """
    device = read_json(os.path.join(folder, "device.json"))
    device.pop("committed_at", None)
    interpreter = str(device.get("interpreter") or "")
    device["interpreter"] = [os.path.realpath(interpreter), os.path.realpath(os.path.dirname(interpreter))]
    return hashlib.sha256(json.dumps(device, sort_keys=True).encode("ascii")).hexdigest()


def read_verdict(state: Dict[str, Any], release: str, folder: str) -> Optional[str]:
    """The word of a release's last check on this device; None also where it would run with something else by now."""
    verdict = state["verdicts"].get(release)
    if not isinstance(verdict, dict) or verdict.get("setup") != setup_digest(folder):
        return None
    return str(verdict.get("verdict"))


def read_recheck(state: Dict[str, Any], release: str) -> Optional[str]:
    """The word of a later check that could not tell, and so left the PASS of an active release standing."""
    verdict = state["verdicts"].get(release)
    later = verdict.get("rechecked") if isinstance(verdict, dict) else None
    return str(later.get("verdict")) if isinstance(later, dict) else None


def read_current(root: str, app: str) -> Optional[str]:
    """The active release: what the symlink names."""
    try:
        name = os.path.basename(os.readlink(os.path.join(root, "apps", app, "current")))
    except OSError:
        return None
    return name if RELEASE_PATTERN.fullmatch(name) else None


def point_current(root: str, app: str, release: Optional[str]) -> None:
    """Switches ``current`` to a release in one rename; None takes it away."""
    folder = confined(root, "apps", app)
    current = os.path.join(folder, "current")
    if release is None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(current)
    else:
        temporary = f"{current}.new-{os.urandom(4).hex()}"
        os.symlink(os.path.join("releases", release), temporary)
        os.replace(temporary, current)
    sync_folder(folder)


def load_state(root: str, app: str) -> Dict[str, Any]:
    """An app's ``state.json``; fields that this agent does not know are carried through."""
    return read_state(root, app)[0]


def read_state(root: str, app: str) -> Tuple[Dict[str, Any], bool]:
    """An app's ``state.json``, and whether it was broken: what cannot be read of it is empty then."""
    path = confined(root, "apps", app, "state.json")
    state = read_json(path)
    broken = not state and os.path.exists(path)
    empty: Dict[str, Any] = {
        "schema": SCHEMA,
        "app": app,
        "candidate": None,
        "intent": None,
        "verdicts": {},
        "bad": [],
        "history": [],
        "operations": {},
    }
    for key, value in empty.items():
        if value is not None and not isinstance(state.setdefault(key, value), type(value)):
            state[key], broken = value, True
        state.setdefault(key, value)
    return state, broken


def rebuild_state(root: str, app: str) -> Optional[str]:
    """Keeps a broken ``state.json`` aside and begins a new one, whose history says so; returns where it is kept.

    The symlink knows what is active; verdicts, candidate and history are lost, as far as they could not be read.
    """
    state, broken = read_state(root, app)
    if not broken:
        return None
    path = confined(root, "apps", app, "state.json")
    kept = f"{path}.broken-{digest_file(path)[:8]}"
    with contextlib.suppress(FileExistsError):
        link_or_copy(path, kept)
    entry = {"verb": "rebuilt", "from": None, "to": read_current(root, app), "at": now(), "by": "", "unchecked": False}
    state["history"].append(dict(entry, op="", outcome="rebuilt"))
    save_state(root, app, state)
    return kept


def save_state(root: str, app: str, state: Dict[str, Any]) -> None:
    """Replaces an app's ``state.json`` atomically, with the lists that grow cut to their bounds."""
    operations = state["operations"]
    state["operations"] = {op: operations[op] for op in list(operations)[-OPERATIONS_KEPT:]}
    state["history"] = state["history"][-HISTORY_KEPT:]
    write_json(confined(root, "apps", app, "state.json"), state)


def find_previous(root: str, app: str, state: Dict[str, Any], current: Optional[str]) -> Optional[str]:
    """The release that rollback goes to: active before the current one, still here, and given up by nobody.

    Activations pile releases up, a rollback takes those off that it goes back over; a release that failed its hooks is
    bad. So a rollback never goes forward to a release that another one fled from.
    """
    pile: List[str] = []
    for entry in state["history"]:
        before, release = entry.get("from"), entry.get("to")
        if entry.get("outcome") not in ("done", "interrupted"):
            continue
        if before is not None and before not in pile:
            pile.append(before)
        given_up = release if release in pile else before
        if entry.get("verb") == "rollback" and given_up in pile:
            del pile[pile.index(given_up) :]
        pile = [name for name in pile if name != release] + [release]
    if current in pile:
        pile = pile[: pile.index(current)]
    here = set(list_releases(root, app)) - set(state["bad"]) - {current}
    return next((name for name in reversed(pile) if name in here), None)


def is_interrupted(state: Dict[str, Any], verb: str, release: Optional[str]) -> bool:
    """Whether the last switch was this one, and ended before its hooks were confirmed: asking again completes it."""
    last = state["history"][-1] if state["history"] else {}
    return (last.get("outcome"), last.get("verb"), last.get("to")) == ("interrupted", verb, release)


def settle(root: str, app: str) -> Optional[str]:
    """Settles what a kill or a power cut left of an app: temporary names and an unfinished activation.

    Returns where a broken state file was kept, if it was one.

    ``current`` decides. It names the new release: the activation happened, its hooks were not confirmed ("interrupted";
    asking for it again runs them). It names the old one: nothing happened. A failed hook was being undone: that is
    finished here.
    """
    sweep_temporaries(confined(root, "apps", app))
    for release in list_releases(root, app):
        sweep_temporaries(release_folder(root, app, release))
    kept = rebuild_state(root, app)
    state = load_state(root, app)
    intent = state["intent"]
    if not isinstance(intent, dict):
        return kept
    entry = {key: intent.get(key) for key in ("op", "verb", "from", "to", "at", "by", "unchecked")}
    if intent.get("back"):
        if read_current(root, app) == intent.get("to"):
            point_current(root, app, intent.get("from"))
        conclude_failure(state, entry, intent.get("error") or {})
    elif read_current(root, app) == intent.get("to"):
        conclude(state, entry, "interrupted")
    state["intent"] = None
    save_state(root, app, state)
    return kept


def sweep_temporaries(folder: str) -> None:
    """Removes what :func:`write_atomically` and :func:`point_current` leave in a folder when they are killed."""
    for name in os.listdir(folder):
        if re.search(r"\.new-[0-9a-f]{8}$", name):
            os.unlink(os.path.join(folder, name))


def settle_if_possible(root: str, app: str) -> Optional[str]:
    """As :func:`settle`; on a full disk it is left to the next session, because making room needs a session too."""
    try:
        return settle(root, app)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
    return None


def conclude(state: Dict[str, Any], entry: Dict[str, Any], outcome: str) -> None:
    """Moves an activation to the history; one that was interrupted before is completed, not entered twice."""
    last = state["history"][-1] if state["history"] else {}
    if last.get("outcome") == "interrupted" and last.get("to") == entry["to"]:
        state["history"].pop()
        entry = dict(entry, **{"from": last.get("from")})
    state["history"].append(dict(entry, outcome=outcome))
    state["intent"] = None
    if outcome in ("done", "interrupted") and entry["verb"] == "rollback" and state["candidate"] == entry["from"]:
        state["candidate"] = None  # or a plain activate would bring back what was just left


def conclude_failure(state: Dict[str, Any], entry: Dict[str, Any], error: Dict[str, Any]) -> None:
    """Enters an activation whose hooks failed: the release is marked bad, the same operation fails the same way."""
    conclude(state, entry, str(error.get("code", "hook-failed")))
    if entry["to"] not in state["bad"]:
        state["bad"].append(entry["to"])
    if error:
        state["operations"][str(entry["op"])] = {"error": error}


def summarize(root: str, app: str, history: int) -> Dict[str, Any]:
    """A release's life on this device: the result of ``status``."""
    state, broken = read_state(root, app)
    current = read_current(root, app)
    return {
        "app": app,
        "current": current,
        "previous": find_previous(root, app, state, current),
        "candidate": state["candidate"],
        "releases": [summarize_release(root, app, release, state) for release in list_releases(root, app)],
        "counter": read_counter(root, app)[0],
        "history": state["history"][-history:],
        "state_broken": broken,
    }


def summarize_release(root: str, app: str, release: str, state: Dict[str, Any]) -> Dict[str, Any]:
    """One line of ``status``."""
    folder = release_folder(root, app, release)
    try:
        size = sum(size for _, size, _ in manifest_files(read_manifest(folder)[0]))
    except AgentError:
        size = 0
    return {
        "release": release,
        "version": release[:-13],
        "bytes": size,
        "verdict": read_verdict(state, release, folder),
        "rechecked": read_recheck(state, release),
        "bad": release in state["bad"],
        "committed_at": read_json(os.path.join(folder, "device.json")).get("committed_at"),
    }


# ----------------------------------------------------------------------------------------------------- wheels, unpacked


def installed_path(member: str) -> Optional[str]:
    """Where a member of a wheel goes (PEP 427): ``*.data/purelib`` and ``platlib`` to the root, other data nowhere."""
    found = re.match(r"[^/]+\.data/([^/]+)/(.+)", member)
    if not found:
        return member
    return found.group(2) if found.group(1) in ("purelib", "platlib") else None


def read_record(text: str) -> Dict[str, str]:
    """The paths of a wheel's RECORD with their digests (URL-safe base64 of the SHA-256, without padding).

    Raises ``ValueError`` where it is no CSV.
    """
    import csv

    digests = {}
    try:
        for row in csv.reader(io.StringIO(text)):
            if len(row) >= 2 and row[1].startswith("sha256="):
                digests[row[0]] = row[1][len("sha256=") :]
    except csv.Error as error:
        raise ValueError(f"its RECORD cannot be read: {error}") from None
    return digests


def record_digest(sha256: Any) -> str:
    """A finished SHA-256 as RECORD writes it."""
    return urlsafe_b64encode(sha256.digest()).decode().rstrip("=")


def wheel_error(wheel: str, message: str) -> AgentError:
    """A wheel whose digest is right, but which is not what wheels are."""
    return AgentError("digest-mismatch", f"The wheel {wheel} cannot be unpacked: {message}.", "Build the bundle again.")


def unpack_wheel(archive: str, name: str, target: str) -> None:
    """Unpacks a wheel with zipfile, each file against the wheel's RECORD, none outside of the target folder.

    Whatever the archive says, memory stays below 64 MiB and the disk below the sizes that its directory names.
    """
    # Here and not above: only a push needs them, and each import costs a slow device milliseconds.
    import zipfile
    import zlib

    try:
        require_small_directory(archive, name)
        with zipfile.ZipFile(archive) as wheel:
            unpack_members(wheel, name, target)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise wheel_error(name, str(error)) from None
    except (zlib.error, struct.error, ValueError, OverflowError) as error:
        raise wheel_error(name, f"it is damaged ({error})") from None
    except OSError as error:
        # Two members of one name, a file where another needs a folder, a name too long; a lying offset.
        if error.errno not in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL):
            raise
        raise wheel_error(name, f"two of its files collide, or a name is too long ({error.strerror})") from None


def require_small_directory(archive: str, name: str) -> None:
    """Refuses a wheel whose directory is larger than any runtime's, before zipfile reads it into memory at once.

    The end record (APPNOTE.TXT 4.3.16) has to stand at the end, and no zip64 one before it: zipfile would go by that.
    """
    with open(archive, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 42, 0))
        tail = file.read()
    locator, end = tail[:-22], tail[-22:]
    if not end.startswith(b"PK\5\6") or not end.endswith(b"\0\0"):
        raise wheel_error(name, "it is not a zip file, or has a comment")
    if locator.startswith(b"PK\6\7") or struct.unpack("<I", end[12:16])[0] > WHEEL_DIRECTORY_LIMIT:
        raise wheel_error(name, "its directory is larger than that of any runtime")


def unpack_members(wheel: ZipFile, name: str, target: str) -> None:
    """Writes the files of an open wheel, each checked against its RECORD."""
    members = [info for info in wheel.infolist() if not info.filename.endswith("/")]
    size = sum(info.file_size for info in members)
    if size > UNPACKED_LIMIT or len(members) > WHEEL_FILES_LIMIT:
        raise wheel_error(name, f"it unpacks to {size} bytes in {len(members)} files")
    require_space(os.path.dirname(target), size)
    paths = {info.filename: member_path(info, name) for info in members}
    records = [info for info in members if re.fullmatch(r"[^/]+\.dist-info/RECORD", info.filename)]
    if len(records) != 1 or records[0].file_size > RECORD_LIMIT:
        raise wheel_error(name, "it has no RECORD, or a huge one")
    with wheel.open(records[0]) as source:
        # With a limit: without one, zipfile inflates all that the member holds, whatever size it claims.
        digests = read_record(source.read(RECORD_LIMIT).decode("utf-8", "replace"))
    absent = sorted(set(digests) - set(paths))
    if absent:
        raise wheel_error(name, f"its RECORD names {absent[0][:200]!r}, which it does not hold")
    for info in members:
        signature = re.fullmatch(r"[^/]+\.dist-info/RECORD(\.jws|\.p7s)?", info.filename)
        if not signature and info.filename not in digests:
            raise wheel_error(name, f"{info.filename[:200]!r} is not in its RECORD")
        path = installed_path(paths[info.filename])
        if path is not None:
            unpack_member(wheel, info, confined(target, path), digests.get(info.filename))


def member_path(info: ZipInfo, name: str) -> str:
    """The path of a wheel's member, which is a plain file and stays inside."""
    # A name with a NUL in it is cut there by zipfile, and would stand for another one.
    if info.filename != info.orig_filename:
        raise wheel_error(name, f"Not a path inside a wheel: {info.orig_filename[:200]!r}")
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
        raise wheel_error(name, f"{info.filename[:200]!r} is a symbolic link or a device, not a file")
    if info.compress_type not in (0, 8):  # stored, deflated: those whose output zipfile can limit
        raise wheel_error(name, f"{info.filename[:200]!r} is compressed in a way that wheels are not")
    try:
        return take_path({"path": info.filename})
    except AgentError as error:
        raise wheel_error(name, error.message) from None


def unpack_member(wheel: ZipFile, info: ZipInfo, path: str, expected: Optional[str]) -> None:
    """Writes one file of a wheel; ``expected`` is its digest (None for RECORD itself)."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    sha256 = hashlib.sha256()
    with wheel.open(info) as source, open(path, "xb") as file:
        for chunk in iter(lambda: source.read(CHUNK), b""):
            sha256.update(chunk)
            file.write(chunk)
    if expected is not None and record_digest(sha256) != expected:
        shown = f"{info.filename[:200]!r} does not have the digest that its RECORD names"
        raise wheel_error(os.path.basename(str(wheel.filename)), shown)


def is_runtime_whole(folder: str) -> bool:
    """True where every file of every unpacked wheel has the digest that its RECORD names."""
    dists = list_names(folder, NAME_PATTERN)
    return bool(dists) and all(is_dist_whole(os.path.join(folder, dist)) for dist in dists)


def is_dist_whole(folder: str) -> bool:
    """True where the files of one unpacked wheel have the digests that its RECORD names."""
    records = [name for name in os.listdir(folder) if name.endswith(".dist-info")]
    if len(records) != 1:
        return False
    try:
        digests = read_record(read_text(os.path.join(folder, records[0], "RECORD"), RECORD_LIMIT))
    except ValueError:
        return False
    for member, expected in digests.items():
        path = installed_path(member)
        if path is None:
            continue
        try:
            found = urlsafe_b64encode(bytes.fromhex(digest_file(os.path.join(folder, path)))).decode().rstrip("=")
        except OSError:
            return False
        if found != expected:
            return False
    return bool(digests)


# --------------------------------------------------------------------------------------------------------- children


class Tail:
    """Reads a child's output in a thread, so that the child never blocks, and keeps its end."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._kept = b""
        self._thread = threading.Thread(target=self._drain, daemon=True)
        self._thread.start()

    def _drain(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            for chunk in iter(lambda: os.read(self._stream.fileno(), 65536), b""):
                self._kept = (self._kept + chunk)[-OUTPUT_TAIL:]

    def join(self, seconds: float) -> None:
        """Waits for the end of the output, at most so long."""
        self._thread.join(max(seconds, 0.0))

    def text(self) -> str:
        """The last 4 KiB, once the child is gone; what a daemon that it left behind writes is not waited for."""
        self.join(1.0)
        if not self._thread.is_alive():
            self._stream.close()
        return self._kept.decode("utf-8", "replace")


class Children:
    """The agent's child processes, each in a session (and so a process group) of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._live: Set[int] = set()
        self._ending = False
        self._starting = False
        self._end_wanted = False

    def start(self, argv: List[str], **options: Any) -> subprocess.Popen[bytes]:
        """Starts a program; its standard output and error are one pipe."""
        try:
            with self._lock:
                self._wait_if_ending()
                self._starting = True
                child = subprocess.Popen(
                    argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, **options
                )
                self._live.add(child.pid)
                return child
        finally:
            self._starting = False
            if self._end_wanted:
                end_agent(0)

    def end_after_start(self) -> bool:
        """For a signal's handler: whether a child is just being started, whose starter ends the agent then.

        The handler runs in the middle of :meth:`start`, and would leave behind the child that is not noted yet.
        """
        self._end_wanted = True
        return self._starting

    def done(self, child: subprocess.Popen[bytes]) -> None:
        """Takes note that a child has ended. While the agent ends this never returns: the kill was the agent's own."""
        with self._lock:
            self._wait_if_ending()
            self._live.discard(child.pid)

    def kill(self, child: subprocess.Popen[bytes]) -> None:
        """Ends a child and whatever it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        self.done(child)

    def kill_all(self) -> None:
        """Ends every child, for good: none is started afterwards."""
        self._ending = True
        # One that is just being started is waited for; not for ever, since a signal may have come to whoever notes it.
        started = self._lock.acquire(timeout=1.0)
        for pid in list(self._live):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        if started:
            self._lock.release()

    def _wait_if_ending(self) -> None:
        while self._ending:
            time.sleep(1.0)


CHILDREN = Children()


def run_hook(hook: str, argv: List[str], timeout_s: float, environment: Dict[str, str]) -> Dict[str, Any]:
    """Runs a user's hook: an argument vector, no shell, bounded in time; ``code`` is None where it ran out of time."""
    outcome: Dict[str, Any] = {"hook": hook, "argv": argv, "code": None, "output": ""}
    home = os.path.expanduser("~")
    try:
        child = CHILDREN.start(
            argv, stdin=subprocess.DEVNULL, env=environment, cwd=home if os.path.isdir(home) else "/"
        )
    except OSError as error:
        return dict(outcome, code=127, output=f"{argv[0]}: {error.strerror}")
    tail = Tail(child.stdout)
    try:
        outcome["code"] = child.wait(timeout_s)
        CHILDREN.done(child)
    except subprocess.TimeoutExpired:
        CHILDREN.kill(child)
    return dict(outcome, output=tail.text())


def hook_environment(root: str, app: str, release: str) -> Dict[str, str]:
    """A hook's environment; ``systemctl --user`` needs XDG_RUNTIME_DIR, which a bare SSH login lacks."""
    environment = dict(os.environ, EDGEPACK_ROOT=root, EDGEPACK_APP=app, EDGEPACK_RELEASE=release)
    runtime = f"/run/user/{os.getuid()}"
    if "XDG_RUNTIME_DIR" not in environment and os.path.isdir(runtime):
        environment["XDG_RUNTIME_DIR"] = runtime
    return environment


def take_command(hooks: Dict[str, Any], key: str) -> List[str]:
    """A hook's argument vector; empty where there is none."""
    argv = hooks.get(key)
    if argv is None:
        return []
    if not isinstance(argv, list) or not argv or not all(isinstance(a, str) and is_file_name(a) for a in argv):
        raise bad_request(f"The hook {key!r} is not a list of arguments.")
    return argv


class Hooks:
    """The hooks of one activation: ``after_activate`` once, ``health`` until it says yes or its tries are used up."""

    def __init__(self, hooks: Any) -> None:
        if hooks is None:
            hooks = {}
        if not isinstance(hooks, dict):
            raise bad_request("'hooks' is not an object.")
        self.after = take_command(hooks, "after_activate")
        self.health = take_command(hooks, "health")
        self.timeout_s = take_seconds(hooks, "hook_timeout_s", 60.0)
        self.health_timeout_s = take_seconds(hooks, "health_timeout_s", 10.0)
        retries = hooks.get("health_retries")
        self.health_tries = 1 + (take_size(hooks, "health_retries") if retries is not None else 3)

    def run(self, environment: Dict[str, str]) -> Tuple[List[Dict[str, Any]], Optional[AgentError]]:
        """What each hook did, and the failure that undoes the activation, if there is one."""
        ran: List[Dict[str, Any]] = []
        if self.after:
            ran.append(run_hook("after_activate", self.after, self.timeout_s, environment))
            if ran[-1]["code"] != 0:
                return ran, hook_error("hook-failed", ran[-1], self.timeout_s)
        for attempt in range(self.health_tries if self.health else 0):
            if attempt:
                time.sleep(1.0)
            ran = [hook for hook in ran if hook["hook"] != "health"]
            ran.append(run_hook("health", self.health, self.health_timeout_s, environment))
            if ran[-1]["code"] == 0:
                break
        if self.health and ran[-1]["code"] != 0:
            return ran, hook_error("health-failed", ran[-1], self.health_timeout_s)
        return ran, None


def hook_error(code: str, hook: Dict[str, Any], timeout_s: float) -> AgentError:
    """The failure of a hook, with what it printed last."""
    how = f"ran longer than {timeout_s:g} s" if hook["code"] is None else f"ended with {hook['code']}"
    lines = hook["output"].strip().splitlines()
    said = f" Its last line: {lines[-1][:300]}" if lines else ""
    return AgentError(
        code,
        f"The hook {hook['hook']} ({' '.join(hook['argv'])[:200]}) {how}; the release before it is active again.{said}",
        "Mend the hook or the release; with --json, the error's details hold all that it printed.",
        hook=hook["hook"],
        argv=hook["argv"],
        exit=hook["code"],
        output=hook["output"],
    )


# ------------------------------------------------------------------------------------------ a pinned device's terms

PIN_FILES = ("agent.py", "allowed_signers", "pin.json")
KEYGEN_TIMEOUT_S = 30.0
FIRST_WORD_S = 20  # a host speaks at once, without being spoken to


def pinned_error(message: str) -> AgentError:
    """Something that a pinned device does for nobody who deploys."""
    return AgentError(
        "pinned", message, "The device's owner can change that: edgepack trust DEVICE --allowed-signers F."
    )


def unsigned_error(release: str) -> AgentError:
    """A release without a signature on a device that is pinned."""
    return AgentError(
        "unsigned",
        f"Release {release} is not signed, and this device is pinned to its signers.",
        "Have it signed (edgepack bundle --sign KEY --counter N), and push it.",
    )


def broken_pin(what: str) -> AgentError:
    """What the owner laid down is not as it has to be: nothing is done then."""
    return AgentError(
        "pin-broken", f"This device is pinned, and {what}.", "Its owner can pin it again: edgepack trust DEVICE ..."
    )


class Pin:
    """What the owner of a pinned device laid down beside the agent: where to work, who may sign, which hooks run.

    ``mark`` is in the name of each runtime that was unpacked since, and in the device.json of each release that was set
    up since; ``agent`` is the digest of this file.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        for name in PIN_FILES:
            try:
                loose = find_reach(os.path.join(folder, name), os.geteuid(), [os.getegid(), *os.getgroups()])
            except OSError as error:
                raise broken_pin(f"{os.path.join(folder, name)} cannot be read: {error.strerror}") from None
            if loose is not None:
                raise broken_pin(f"the account that deploys could change {loose}")
        value = read_json(os.path.join(folder, "pin.json"))
        try:
            self.root: str = take(value, "root", str)
            self.mark = take_name(value, "mark", NAME_PATTERN)
            self.ssh_keygen: str = take(value, "ssh_keygen", str)
            self.hooks: List[Any] = take(value, "hooks", list)
        except AgentError:
            raise broken_pin("its pin.json is not one that edgepack writes") from None
        self.agent = digest_file(os.path.join(folder, "agent.py"))

    def require_signer(self, manifest: str, signature: str, release: str) -> str:
        """The allowed signer who signed a manifest. Lifetimes were judged when the device was pinned, on the host."""
        signers = os.path.join(self.folder, "allowed_signers")
        code, names, errors = self.keygen(["find-principals", "-f", signers, "-s", signature], manifest)
        for name in names.splitlines() if code == 0 else ():
            verify = ["verify", "-f", signers, "-I", name, "-n", "edgepack", "-s", signature]
            code, _, errors = self.keygen(verify, manifest)
            if code == 0:
                return name
        said = (errors.strip().splitlines() or ["no allowed signer made it"])[-1]
        raise AgentError(
            "foreign-signature",
            f"The signature of release {release} is none of this device's signers: {said[:300]}",
            "Have the bundle signed by one of them, or let the device's owner pin another: edgepack trust DEVICE ...",
        )

    def keygen(self, arguments: List[str], manifest: str) -> Tuple[int, str, str]:
        """Runs the device's own ``ssh-keygen -Y`` on a manifest: exit status, output, errors."""
        try:
            with open(manifest, "rb") as file:
                done = subprocess.run(
                    [self.ssh_keygen, "-Y", *arguments],
                    stdin=file,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
                    timeout=KEYGEN_TIMEOUT_S,
                    check=False,
                )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise broken_pin(f"{self.ssh_keygen} does not work: {error}") from None
        return done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")

    def require_hooks(self, hooks: Hooks) -> None:
        """Refuses a hook that the owner did not pin: it would be a program of the host's choice."""
        for argv in (hooks.after, hooks.health):
            if argv and argv not in self.hooks:
                allowed = "; ".join(" ".join(map(str, pinned)) for pinned in self.hooks) or "none"
                raise AgentError(
                    "hook-refused",
                    f"This device is pinned and runs no hook but these: {allowed}. Not {' '.join(argv)[:200]!r}.",
                    "Let its owner pin the hooks of edgepack.toml: edgepack trust DEVICE ... in the project's folder.",
                )


def find_reach(path: str, uid: int, gids: List[int]) -> Optional[str]:
    """The first of a path, of what it leads to, and of the folders above them that an account could change.

    Root could change everything; where root itself deploys, only what others could change is found.
    """
    for start in (os.path.abspath(path), os.path.realpath(path)):
        while True:
            info = os.lstat(start)
            mode = 0 if stat.S_ISLNK(info.st_mode) else info.st_mode
            sticky = stat.S_ISDIR(mode) and mode & stat.S_ISVTX  # its entries are their owners' (/tmp)
            shared = mode & stat.S_IWOTH or (mode & stat.S_IWGRP and info.st_gid in gids)
            if (uid and info.st_uid == uid) or (shared and not sticky):
                return start
            if start == "/":
                break
            start = os.path.dirname(start)
    return None


def require_numbers(options: Dict[str, Any]) -> None:
    """Refuses options of a measurement that could name anything, such as a library to load."""
    for key, value in options.items():
        if value is not None and not isinstance(value, (bool, int, float)):
            raise pinned_error(
                f"This device is pinned: the option {str(key)[:50]!r} of a measurement has to be a number."
            )


def take_signature(args: Dict[str, Any]) -> Optional[bytes]:
    """The text of the signature that came with a commit, if one did."""
    if args.get("signature") is None:
        return None
    text = str(take(args, "signature", str))
    if len(text) > SIGNATURE_LIMIT or not text.isascii():
        raise bad_request("The signature is not one.")
    return text.encode("ascii")


def read_counters(root: str) -> Optional[Dict[str, Any]]:
    """What ``counters.json`` holds: app to the highest counter of a release, and that release; None where it is broken.

    It lies outside of the apps: no gc, and no broken state.json, lets the device forget what it has seen.
    """
    path = confined(root, COUNTERS)
    counters = read_json(path)
    return counters if counters or not os.path.exists(path) else None


def read_counter(root: str, app: str) -> Tuple[Optional[int], Optional[str]]:
    """The highest counter that this device has seen for an app, and the release that had it."""
    entry = (read_counters(root) or {}).get(app)
    if not isinstance(entry, dict) or not isinstance(entry.get("counter"), int):
        return None, None
    return entry["counter"], str(entry.get("release"))


def note_counter(root: str, app: str, release: str, counter: Any) -> None:
    """Keeps the highest counter of an app."""
    highest = read_counter(root, app)[0]
    if isinstance(counter, int) and (highest is None or counter > highest):
        counters = dict(read_counters(root) or {})
        counters[app] = {"counter": counter, "release": release}
        write_json(confined(root, COUNTERS), counters)


def require_newer(root: str, app: str, release: str, counter: Any) -> None:
    """Refuses what is older than what a pinned device has seen; the newest itself may come again."""
    if read_counters(root) is None:
        raise broken_pin(f"{os.path.join(root, COUNTERS)} cannot be read, so a replay could not be told")
    if not isinstance(counter, int) or isinstance(counter, bool):
        raise AgentError(
            "replayed",
            f"Release {release} of {app} has no counter, and this device is pinned: it takes only what counts up.",
            "Bundle it with --counter N, higher than before.",
        )
    highest, holder = read_counter(root, app)
    if highest is not None and (counter < highest or (counter == highest and release != holder)):
        raise AgentError(
            "replayed",
            f"Release {release} of {app} has the counter {counter}, and this device has seen {highest} ({holder}).",
            f"Bundle it with a counter above {highest}; back to a release that is there: edgepack rollback DEVICE.",
            counter=counter,
            highest=highest,
        )


def lay_pin(args: Dict[str, Any], agent: bytes) -> Dict[str, Any]:
    """Lays down agent, signers and terms for a deploying account, out of its reach; the owner's login does this."""
    if args.get("account") is None:
        args = dict(args, account=os.environ.get("SUDO_USER") or pwd.getpwuid(os.geteuid()).pw_name)
    name = take_name(args, "account", ACCOUNT_PATTERN)
    try:
        account = pwd.getpwnam(name)
    except KeyError:
        raise AgentError(
            "no-account", f"There is no account {name} on this device.", "Make it, or name another with --account."
        ) from None
    if not 0 < len(agent) <= AGENT_LIMIT or hashlib.sha256(agent).hexdigest() != args.get("sha256"):
        raise bad_request("The agent that is to be laid down did not arrive.")
    folder = os.path.join(os.path.realpath(os.path.expanduser(take(args, "install_root", str))), name)
    root: str = take(args, "root", str)
    root = os.path.realpath(os.path.join(account.pw_dir, root[2:] if root.startswith("~/") else root))
    keygen = shutil.which("ssh-keygen") or shutil.which("ssh-keygen", path="/usr/bin:/usr/local/bin:/bin")
    if keygen is None:
        raise AgentError(
            "no-ssh-keygen", "The device has no ssh-keygen.", "Install it there: sudo apt install openssh-client"
        )
    for path in (folder, sys.executable):
        if not PLAIN_PATH_PATTERN.fullmatch(path):
            raise bad_request(f"{path!r} cannot stand in authorized_keys: letters, digits and . _ + - / only.")
    hooks = [argv for argv in (take_command({"hook": h}, "hook") for h in take(args, "hooks", list)) if argv]
    before = read_json(os.path.join(folder, "pin.json"))
    pin = {"schema": SCHEMA, "root": root, "ssh_keygen": keygen, "hooks": hooks, "account": name, "pinned_at": now()}
    pin.update(mark=before.get("mark") or os.urandom(4).hex(), by=str(args.get("by", ""))[:200])
    signers: str = take(args, "signers", str)
    files = {"agent.py": agent, "allowed_signers": signers.encode(), "pin.json": json.dumps(pin, indent=1).encode()}
    reached = [nearest_existing(folder), sys.executable, keygen]
    require_out_of_reach(reached, account)
    if args.get("dry_run") is not True:
        write_readable(folder, files)
        require_out_of_reach([os.path.join(folder, file) for file in files], account)
    command = f"{sys.executable} -I -u {folder}/agent.py --pinned"
    there = {"again": bool(before), "apps": apps_or_none(root)}
    return {"account": name, "folder": folder, "root": root, "command": command, **there}


def apps_or_none(root: str) -> List[str]:
    """The apps that a root holds already, as far as this login may see."""
    try:
        return list_apps(root)
    except OSError:
        return []


def nearest_existing(path: str) -> str:
    """A path, or the nearest folder above it that is there."""
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    return path


def require_out_of_reach(paths: List[str], account: pwd.struct_passwd) -> None:
    """Refuses to pin with files that the deploying account could change, or could not read."""
    gids = os.getgrouplist(account.pw_name, account.pw_gid)
    for path in paths:
        loose = find_reach(path, account.pw_uid, gids)
        if loose is not None:
            raise AgentError(
                "within-reach",
                f"{account.pw_name} could change {loose}: what pins a device has to be out of its reach.",
                "Log in as another account than the one that deploys (root, or with --sudo), name another folder with "
                "--install-root, or the system's own Python with --python /usr/bin/python3.",
            )
        hidden = find_hidden(path, account.pw_uid)
        if hidden is not None:
            raise AgentError(
                "within-reach",
                f"{account.pw_name} could not read {path}: {hidden} is closed to it.",
                "Name another folder with --install-root, or another Python with --python /usr/bin/python3.",
            )


def find_hidden(path: str, uid: int) -> Optional[str]:
    """The first folder on the way to a path that is closed to others; None where all are open, and for root."""
    start = os.path.realpath(path)
    while uid and start != "/":
        if not os.stat(start).st_mode & stat.S_IXOTH and os.path.isdir(start):
            return start
        start = os.path.dirname(start)
    return None


def write_readable(folder: str, files: Dict[str, bytes]) -> None:
    """Writes files that everybody may read and only their owner may change, whatever the umask is."""
    missing = []
    while not os.path.isdir(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    try:
        for path in reversed(missing):
            os.mkdir(path)
            os.chmod(path, 0o755)  # noqa: S103 (the deploying account reads it)
            sync_folder(os.path.dirname(path))
        folder = missing[0] if missing else folder
        for name, data in files.items():
            path = os.path.join(folder, name)
            write_atomically(path, data)
            os.chmod(path, 0o644)
    except PermissionError as error:
        raise AgentError(
            "not-the-owner",
            f"This login may not write {error.filename or folder}.",
            "Log in as root, add --sudo, or name a folder of yours that the deploying account cannot write: "
            "--install-root.",
        ) from None


# ------------------------------------------------------------------------------------------------------- the wire


class Payload:
    """The bytes that follow a request's header; read by the verb, or thrown away after it."""

    def __init__(self, wire: Wire, size: int) -> None:
        self._wire = wire
        self.remaining = size
        self.drained = threading.Event()
        if not size:
            self.drained.set()

    def read(self) -> bytes:
        """The next bytes, at most 1 MiB; empty at the payload's end."""
        if not self.remaining:
            return b""
        chunk = self._wire.receive(self.remaining)
        self.remaining -= len(chunk)
        if not self.remaining:
            self.drained.set()
        return chunk

    def drain(self) -> None:
        """Throws away what was not read."""
        while self.read():
            continue


class Wire:
    """The two ends of the channel: frames in from standard input, frames out to what was standard output."""

    def __init__(self, nonce: str) -> None:
        self._input: Any = sys.stdin.buffer
        # sshd hands the channel over in a pipe of 64 KiB; with 1 MiB a push takes a quarter less time. It is no pipe at
        # all elsewhere, and a user's pipes may be used up: both do no harm.
        with contextlib.suppress(OSError):
            fcntl.fcntl(0, F_SETPIPE_SZ, CHUNK)
        self._reply = os.dup(1)
        os.dup2(2, 1)
        self._sending = threading.Lock()
        self.silence_s = SILENCE_S
        self._reading_since: Optional[float] = None
        self._writing_since: Optional[float] = None
        self.write(f"\nEDGEPACK1 {nonce}\n".encode("ascii", "replace"))

    def write(self, data: Any) -> None:
        """Writes all of these bytes, in pieces that a slow line takes within the silence that is allowed."""
        view = memoryview(data)
        while view:
            self._writing_since = time.monotonic()
            view = view[os.write(self._reply, view[:PIECE]) :]
        self._writing_since = None

    def silent_for_s(self) -> float:
        """How long the host has kept this agent waiting, for its bytes or for taking ours.

        While a verb works and nobody waits for the host, the host owes nothing: a long fsync is no silence.
        """
        since = [moment for moment in (self._reading_since, self._writing_since) if moment is not None]
        return time.monotonic() - min(since) if since else 0.0

    def receive(self, size: int) -> bytes:
        """Some bytes of a payload, at least one; the end of the input ends the agent."""
        self._reading_since = time.monotonic()
        chunk = self._input.read1(min(size, CHUNK))
        self._reading_since = None
        if not chunk:
            end_agent(0)
        return bytes(chunk)

    def read_header(self) -> Dict[str, Any]:
        """The next request's header, checked for the fields that every frame has."""
        self._reading_since = time.monotonic()
        line = self._input.readline(HEADER_LIMIT + 1)
        self._reading_since = None
        if not line:
            end_agent(0)
        if not line.endswith(b"\n"):
            raise bad_request("A header line is longer than 64 KiB, or was cut short.")
        header = parse_object(line, "A header line")
        take(header, "id", int)
        take(header, "verb", str)
        take_size(header, "n")
        return header

    def send(self, header: Dict[str, Any], payload: Optional[Iterable[bytes]] = None) -> None:
        """Sends one frame; a result that does not fit into its line becomes the body."""
        line = json.dumps(header, allow_nan=False).encode("ascii") + b"\n"
        if len(line) > HEADER_LIMIT:
            body = json.dumps(header.pop("result"), allow_nan=False).encode("ascii")
            line = json.dumps(dict(header, n=len(body), body=True)).encode("ascii") + b"\n"
            payload = [body]
        with self._sending:
            self.write(line)
            for chunk in payload or ():
                self.write(chunk)


class Request:
    """A request: its header, its arguments and its payload."""

    def __init__(self, header: Dict[str, Any], payload: Payload) -> None:
        self.id: int = header["id"]
        self.verb: str = header["verb"]
        self.args = header
        self.payload = payload

    @property
    def dry_run(self) -> bool:
        """Whether the host asks only what would happen."""
        return self.args.get("dry_run") is True

    def read_body(self) -> None:
        """Takes the arguments out of the payload where they did not fit into the header."""
        if self.args.get("body") is not True:
            return
        if self.payload.remaining > BODY_LIMIT:
            raise bad_request("The body of a request is larger than 16 MiB.")
        data = b"".join(iter(self.payload.read, b""))
        body = parse_object(data, "The body of a request")
        self.args = dict(body, id=self.id, verb=self.verb, n=0)


def end_agent(code: int) -> None:
    """Ends the children and this process, now; what was going on is settled by the next locked session."""
    CHILDREN.kill_all()
    for path in MEASURE_FOLDERS:
        with contextlib.suppress(OSError):
            remove_tree(path)
    os._exit(code)


def end_on_signal(*_: Any) -> None:
    """The handler of the signals that end the agent."""
    if not CHILDREN.end_after_start():
        end_agent(0)


MEASURE_FOLDERS: List[str] = []


# ------------------------------------------------------------------------------------------------------- the verbs


class Agent:
    """One session: the verbs, and what they remember of each other."""

    def __init__(self, wire: Wire, pin: Optional[Pin] = None) -> None:
        self.wire = wire
        self.pin = pin
        self.root: Optional[str] = None
        self.app: Optional[str] = None
        self.lock_fd: Optional[int] = None
        self.lock_later: Optional[str] = None
        self.holder: Dict[str, Any] = {}
        self.hashers: Dict[str, Tuple[int, Any]] = {}
        self.verified: Set[Tuple[str, int, int, int, int]] = set()
        self.rebuilt: Dict[str, str] = {}  # where the broken state files of which apps were kept
        self.setups: Dict[str, str] = {}  # what the releases that this session measured ran with
        self.verbs: Dict[str, Callable[[Request], Any]] = {
            "hello": self.hello,
            "probe": self.probe,
            "missing": self.missing,
            "put": self.put,
            "commit": self.commit,
            "activate": self.activate,
            "rollback": self.rollback,
            "status": self.status,
            "manifest": self.manifest,
            "measure": self.measure,
            "collect": self.collect,
            "record": self.record,
            "gc": self.gc,
        }
        if pin is None:
            self.verbs["trust"] = self.trust

    # -- the session itself

    def answer(self, request: Request) -> None:
        """Runs one request and sends its reply; every failure is data."""
        header: Dict[str, Any] = {"id": request.id, "ok": True, "n": 0}
        payload: Optional[Iterable[bytes]] = None
        try:
            result = self.dispatch(request)
            if isinstance(result, tuple):
                result, header["n"], payload = result
            header["result"] = result
        except AgentError as error:
            header.update(ok=False, error=error.to_json())
        except OSError as error:
            header.update(ok=False, error=self.describe_os_error(error, request.verb))
        except MemoryError:
            header.update(
                ok=False, error=AgentError("out-of-memory", "The device is out of memory.", MEMORY_HINT).to_json()
            )
        except Exception as error:  # noqa: BLE001 (the protocol promises: never a traceback on the wire)
            header.update(ok=False, error=internal_error(error).to_json())
        try:
            self.wire.send(header, payload)
        finally:
            request.payload.drain()

    def describe_os_error(self, error: OSError, verb: str) -> Dict[str, Any]:
        """An ``OSError`` as data; a full disk tells what is free, and never advises the verb that met it."""
        translated = translate_os_error(error)
        if translated.code == "disk-full" and verb == "gc":
            translated.hint = "Delete something else on the device first: gc needs a few KiB for its own notes."
        if translated.code == "disk-full" and self.root:
            with contextlib.suppress(OSError):
                translated.details["free_bytes"] = free_bytes(self.root)
        return translated.to_json()

    def dispatch(self, request: Request) -> Any:
        """Finds the verb, sees that it may run, runs it."""
        verb = self.verbs.get(request.verb)
        if verb is None and request.verb == "trust":
            raise pinned_error("This device is pinned, and this login cannot change what it trusts.")
        if verb is None:
            raise bad_request(f"This agent has no verb {request.verb[:50]!r}; it speaks protocol {PROTOCOL}.")
        if self.root is None and request.verb != "hello":
            raise bad_request("The first request must be hello.")
        request.read_body()
        looking = request.dry_run and request.verb in ("activate", "rollback", "gc")
        if request.verb in ("put", "commit", "activate", "rollback", "record", "gc") and not looking:
            if self.lock_fd is None and self.lock_later is not None:
                self.take_lock(self.home(), self.lock_later)
            if self.lock_fd is None:
                raise bad_request(f"{request.verb} needs the lock: say hello with lock true.")
            self.note_verb(request.verb)
        elif request.verb == "measure":
            self.note_verb("check")
        return verb(request)

    def home(self) -> str:
        """The root folder of this session."""
        if self.root is None:
            raise bad_request("The first request must be hello.")
        return self.root

    def hello(self, request: Request) -> Dict[str, Any]:
        """Opens the session: root, app, and the lock where something is to be changed."""
        args = request.args
        if take(args, "protocol", int) != PROTOCOL:
            raise bad_request(f"This agent speaks protocol {PROTOCOL}, not {args['protocol']}.")
        self.wire.silence_s = take_seconds(args, "silence_s", SILENCE_S)
        wanted: str = take(args, "root", str)
        if not wanted or not is_file_name(wanted):
            raise bad_request("'root' names no folder.")
        root = os.path.realpath(os.path.join(os.path.expanduser("~"), os.path.expanduser(wanted)))
        if self.pin is not None:
            if wanted != DEFAULT_ROOT and root != self.pin.root:
                raise pinned_error(f"This device is pinned to the folder {self.pin.root}; {wanted} is out of bounds.")
            root = self.pin.root
        if self.lock_fd is not None and root != self.root:
            raise bad_request("This session already holds the lock of another root.")
        self.app = take_name(args, "app", APP_PATTERN) if args.get("app") is not None else None
        if args.get("lock") is True and self.lock_fd is None:
            who = take_who(args, "who")
            # A session that changes nothing leaves nothing: a root that is not there is made by the first change.
            self.lock_later = None if os.path.isdir(root) else who
            if self.lock_later is None:
                self.take_lock(root, who)
        self.root = root
        apps = {app: summarize(root, app, history=10) for app in list_apps(root)}
        if args.get("look") is True:
            seen = look(root)
        else:
            facts, notes = read_facts(root)
            seen = {"facts": facts, "notes": notes}
        seen["pinned"] = None if self.pin is None else {"agent": self.pin.agent}
        return {"protocol": PROTOCOL, "root": root, "apps": apps, "rebuilt": self.rebuilt, **seen}

    def take_lock(self, root: str, who: str) -> None:
        """Takes the lock of a root, which is the kernel's (flock): it falls with the process, so none is ever stale."""
        make_folder(root)
        path = confined(root, "lock")
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = read_json(path)
                os.close(descriptor)
                raise locked_error(root, holder) from None
            with contextlib.suppress(FileNotFoundError):
                if os.stat(path).st_ino == os.fstat(descriptor).st_ino:
                    break
            os.close(descriptor)
        self.lock_fd = descriptor
        self.holder = {"who": who, "since": now(), "verb": "hello", "pid": os.getpid()}
        self.note_verb("hello")
        make_folder(confined(root, "incoming"))
        self.sweep_incoming(root, everything=False)
        for app in list_apps(root):
            kept = settle_if_possible(root, app)
            if kept is not None:
                self.rebuilt[app] = kept

    def note_verb(self, verb: str) -> None:
        """Writes into the lock who holds it and what for; it only tells people."""
        self.holder["verb"] = verb
        if self.lock_fd is not None:
            data = json.dumps(self.holder).encode("ascii")
            with contextlib.suppress(OSError):  # a full disk must not keep anybody from making room
                os.pwrite(self.lock_fd, data, 0)
                os.ftruncate(self.lock_fd, len(data))

    def sweep_incoming(self, root: str, everything: bool) -> None:
        """Removes what others left in ``incoming/``: half-built folders, and after a commit the staged files as well.

        A folder of a running measurement (younger than an hour; its session may hold no lock) stays.
        """
        folder = confined(root, "incoming")
        for name in os.listdir(folder):
            path = os.path.join(folder, name)
            staged = DIGEST_PATTERN.fullmatch(name[:64]) is not None
            with contextlib.suppress(FileNotFoundError):
                fresh = name.startswith("measure-") and time.time() - os.lstat(path).st_mtime < 3600
                if not fresh and (everything or not staged):
                    remove_tree(path)

    def probe(self, request: Request) -> Dict[str, Any]:
        """What this device is, and all that ``hello`` tells of it with ``look``."""
        return look(self.home())

    def choose_app(self, request: Request) -> str:
        """The app that a request is about; it may stay unnamed where the device holds just one."""
        if request.args.get("app") is not None:
            return take_name(request.args, "app", APP_PATTERN)
        if self.app is not None:
            return self.app
        apps = list_apps(self.home())
        if not apps:
            raise AgentError("no-app", f"There is no app in {self.home()} on this device.", "Push a bundle first.")
        if len(apps) > 1:
            raise AgentError(
                "several-apps",
                f"There are several apps on this device: {', '.join(apps)}.",
                "Name one with --app.",
                apps=apps,
            )
        return apps[0]

    def known_app(self, request: Request) -> str:
        """The app that a request is about, which must be on this device."""
        app = self.choose_app(request)
        apps = list_apps(self.home())
        if app not in apps:
            raise AgentError(
                "no-app",
                f"There is no app {app} in {self.home()} on this device (there: {', '.join(apps) or 'none'}).",
                "Push a bundle first, name another app with --app, or another folder with --root.",
                apps=apps,
            )
        return app

    def status(self, request: Request) -> Dict[str, Any]:
        """A release's life on this device."""
        return summarize(self.home(), self.known_app(request), HISTORY_KEPT)

    def replay(self, state: Dict[str, Any], request: Request) -> Optional[Dict[str, Any]]:
        """The stored result of an operation that was done before; None for a new one, and for what is only asked."""
        if request.dry_run:
            return None
        stored = state["operations"].get(take_name(request.args, "op", NAME_PATTERN))
        if not isinstance(stored, dict):
            return None
        if isinstance(stored.get("error"), dict):
            raise AgentError.from_json(stored["error"])
        result = stored.get("result")
        return result if isinstance(result, dict) else None

    # -- staging

    def missing(self, request: Request) -> Dict[str, Any]:
        """Which of these files are here already (all their bytes, some from an interrupted push, or none)."""
        root = self.home()
        contents = index_contents(root)
        have = {}
        for entry in take_list(request.args, "files"):
            sha256, size = take_name(entry, "sha256", DIGEST_PATTERN), take_size(entry, "bytes")
            found = self.find_content(root, contents, sha256, size)
            part = confined(root, "incoming", f"{sha256}.part")
            have[sha256] = size if found else min(size_of(part), max(size - 1, 0))
        runtime = request.args.get("runtime")
        present = False
        if isinstance(runtime, dict) and runtime.get("id") is not None:
            require_executable(root)
            present = is_runtime_whole(self.runtime_folder(take_name(runtime, "id", NAME_PATTERN)))
        return {"have": have, "runtime_present": present}

    def find_content(self, root: str, contents: Dict[str, List[str]], sha256: str, size: int) -> Optional[str]:
        """The path of a verified file with this digest, staged or in a release."""
        for path in [confined(root, "incoming", sha256), *contents.get(sha256, [])]:
            with contextlib.suppress(OSError):
                info = os.lstat(path)
                seen = (sha256, info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns)
                if seen in self.verified or is_whole(path, size, sha256):
                    self.verified.add(seen)
                    return path
        return None

    def put(self, request: Request) -> Dict[str, Any]:
        """Stages one file under the name of its digest; the host may go on where an interrupted push stopped."""
        root = self.home()
        sha256 = take_name(request.args, "sha256", DIGEST_PATTERN)
        size, offset = take_size(request.args, "bytes"), take_size(request.args, "offset")
        if offset + request.payload.remaining > size:
            raise bad_request("The payload goes beyond the end of the file.")
        part, whole = confined(root, "incoming", f"{sha256}.part"), confined(root, "incoming", sha256)
        make_folder(os.path.dirname(part))
        if offset > size_of(part):
            raise bad_request(f"The file starts at {offset}, but only {size_of(part)} bytes of it are here.")
        require_space(part, request.payload.remaining)
        try:
            hasher = self.receive_part(request.payload, part, sha256, offset)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                remove_tree(part)
            raise
        received = size_of(part)
        if received == size:
            if hasher.hexdigest() != sha256:
                remove_tree(part)
                raise AgentError("digest-mismatch", f"What arrived is not the file {sha256[:12]}…", "Push again.")
            os.replace(part, whole)
            sync_folder(os.path.dirname(whole))
            info = os.lstat(whole)
            self.verified.add((sha256, info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns))
        return {"bytes": received}

    def receive_part(self, payload: Payload, part: str, sha256: str, offset: int) -> Any:
        """Writes a payload at an offset of a partial file, durably; returns the running digest of the whole file."""
        hashed, hasher = self.hashers.pop(sha256, (-1, None))
        with open(part, "r+b" if os.path.exists(part) else "w+b", buffering=0) as file:
            if hashed != offset:
                hasher = hashlib.sha256()
                for start in range(0, offset, CHUNK):
                    hasher.update(file.read(min(CHUNK, offset - start)))
            file.truncate(offset)
            file.seek(offset)
            for chunk in iter(payload.read, b""):
                hasher.update(chunk)
                view = memoryview(chunk)
                while view:
                    view = view[file.write(view) :]
            self.hashers[sha256] = (file.tell(), hasher)
            os.fsync(file.fileno())
        return hasher.copy()

    # -- committing

    def commit(self, request: Request) -> Dict[str, Any]:
        """Makes a release out of staged files, verified and durable, and sets it as the candidate."""
        root, args = self.home(), request.args
        app, release = take_name(args, "app", APP_PATTERN), take_name(args, "release", RELEASE_PATTERN)
        device: Dict[str, Any] = take(args, "device", dict)
        make_folder(confined(root, "apps", app, "releases"))
        state = load_state(root, app)
        done = self.replay(state, request)
        if done is not None:
            return done
        folder = release_folder(root, app, release)
        signature = take_signature(args)
        manifest = self.staged_manifest(folder, args)
        if self.pin is not None:
            self.require_admissible(self.pin, manifest, app, release, signature)
            device = self.pinned_device(manifest[1], args)
        note_counter(root, app, release, manifest[1].get("counter"))
        if args.get("runtime") is not None:
            self.install_runtime(take(args, "runtime", dict))
        already = os.path.isdir(folder) and not find_damage(folder, release)
        before = setup_digest(folder)
        committed_at = commit_time(root, app, release) or now()
        found = {"interpreter": sys.executable, "python": platform.python_version()}
        device = dict(device, schema=SCHEMA, committed_at=committed_at, **found)
        beside = {"device.json": json.dumps(device, ensure_ascii=False, indent=1).encode("utf-8", "surrogatepass")}
        if signature:
            beside[SIGNATURE] = signature
        if already:
            self.rewrite_beside(folder, beside)
        else:
            self.place_release(root, folder, release, take_list(args, "files"), beside)
        if before != setup_digest(folder):
            state["verdicts"].pop(release, None)  # what it passed with is not what it would run with now
        install_door(root, folder)
        result = {"release": release, "already": already}
        state["candidate"] = release
        state["operations"][args["op"]] = {"result": result}
        save_state(root, app, state)
        self.sweep_incoming(root, everything=True)
        return result

    def place_release(
        self, root: str, folder: str, release: str, files: List[Dict[str, Any]], beside: Dict[str, bytes]
    ) -> None:
        """Assembles a release in ``incoming/``, verifies it there and moves it into place (or mends a damaged one).

        ``beside`` holds what lies beside the release's own files: device.json, and the signature if there is one.
        """
        staged = confined(root, "incoming", f"release-{os.urandom(8).hex()}")
        contents = index_contents(root)
        if len({take_path(entry) for entry in files}) != len(files):
            raise AgentError("digest-mismatch", f"{release} names a file twice.", "Build the bundle again.")
        require_space(root, 0)
        make_folder(staged)
        try:
            for entry in files:
                path, sha256 = take_path(entry), take_name(entry, "sha256", DIGEST_PATTERN)
                found = self.find_content(root, contents, sha256, take_size(entry, "bytes"))
                if found is None:
                    raise AgentError("digest-mismatch", f"{path} is not here, or not whole.", "Push again.", path=path)
                make_folder(os.path.dirname(confined(staged, path)))
                link_or_copy(found, confined(staged, path))
            require_manifest(staged, release, files)
            for name, data in beside.items():
                write_atomically(os.path.join(staged, name), data)
            sync_tree(staged)
            if os.path.isdir(folder):
                mend_tree(staged, folder)
            else:
                os.rename(staged, folder)
                sync_folder(os.path.dirname(folder))
        finally:
            remove_tree(staged)
        change_tree_mode(folder, writable=False)

    def rewrite_beside(self, folder: str, beside: Dict[str, bytes]) -> None:
        """Notes for a release that is there already what was chosen on this device today, and who signed it."""
        for name, data in beside.items():
            path = os.path.join(folder, name)
            if size_of(path) != len(data) or digest_file(path) != hashlib.sha256(data).hexdigest():
                change_tree_mode(folder, writable=True)
                write_atomically(path, data)
        change_tree_mode(folder, writable=False)

    # -- what a pinned device takes

    def staged_manifest(self, folder: str, args: Dict[str, Any]) -> Tuple[str, Dict[str, Any]]:
        """The path and the content of the manifest that is to be committed; nothing where it is not here."""
        for entry in take_list(args, "files"):
            if take_path(entry) == "manifest.json":
                sha256 = take_name(entry, "sha256", DIGEST_PATTERN)
                here = {sha256: [os.path.join(folder, "manifest.json")]}
                path = self.find_content(self.home(), here, sha256, take_size(entry, "bytes"))
                if path is not None:
                    return path, read_json(path)
        return "", {}

    def require_admissible(
        self, pin: Pin, manifest: Tuple[str, Dict[str, Any]], app: str, release: str, signature: Optional[bytes]
    ) -> None:
        """Refuses a release that no allowed signer signed for this app, or that is not newer than all before."""
        path, content = manifest
        if not path or (content.get("name"), f"{content.get('version')}-{digest_file(path)[:12]}") != (app, release):
            raise AgentError(
                "digest-mismatch", f"The manifest is not that of release {release} of {app}.", "Build the bundle again."
            )
        if signature is None:
            raise unsigned_error(release)
        staged = confined(self.home(), "incoming", f"signature-{os.urandom(8).hex()}")
        make_folder(os.path.dirname(staged))
        try:
            write_atomically(staged, signature)
            pin.require_signer(path, staged, release)
        finally:
            remove_tree(staged)
        require_newer(self.home(), app, release, content.get("counter"))

    def pinned_device(self, manifest: Dict[str, Any], args: Dict[str, Any]) -> Dict[str, Any]:
        """The device.json of a pinned device: nothing of it leads anywhere but to what the manifest vouches for."""
        runtime = args.get("runtime")
        wheels = [] if runtime is None else take_list(take(args, "runtime", dict), "wheels")
        listed = {entry.get("path"): entry.get("sha256") for entry in take_list(manifest, "files")}
        lines = []
        for wheel in wheels:
            name, sha256 = take_name(wheel, "filename", NAME_PATTERN), take_name(wheel, "sha256", DIGEST_PATTERN)
            if listed.get(f"wheels/{name}") != sha256 or wheel.get("dist") != name.split("-")[0]:
                raise AgentError(
                    "digest-mismatch", f"The signed manifest lists no wheel {name} such as this.", "Push again."
                )
            lines.append(f"{name} {sha256}\n")
        found = hashlib.sha256("".join(sorted(lines)).encode("ascii")).hexdigest()[:16] if lines else None
        if found != (None if runtime is None else runtime.get("id")):
            raise AgentError("digest-mismatch", "The runtime's id does not fit its wheels.", "Push again.")
        told = take(take(args, "device", dict), "runtime", dict)
        platform_told = take(take(args, "device", dict), "platform", dict)
        installed = told.get("installed")
        return {
            "pin": None if self.pin is None else self.pin.mark,
            "platform": {key: str(platform_told.get(key)) for key in ("python", "arch", "libc")},
            "runtime": {
                "package": told.get("package") if told.get("package") in RUNTIME_PACKAGES else None,
                "version": str(told.get("version")),
                "id": None if found is None else os.path.basename(self.runtime_folder(found)),
                "dists": [wheel["dist"] for wheel in wheels],
                "installed": [name for name in RUNTIME_PACKAGES if isinstance(installed, list) and name in installed],
            },
        }

    def runtime_folder(self, runtime_id: str) -> str:
        """Where an unpacked runtime lies; a pinned device believes in none that it did not unpack itself."""
        name = runtime_id if self.pin is None else f"{runtime_id}-{self.pin.mark}"
        return confined(self.home(), "runtimes", name)

    def require_trusted(self, folder: str, release: str) -> None:
        """On a pinned device, refuses to run what no allowed signer signed, or what was set up before, by whomever."""
        if self.pin is None:
            return
        signature = confined(folder, SIGNATURE)
        if not os.path.isfile(signature):
            raise unsigned_error(release)
        self.pin.require_signer(confined(folder, "manifest.json"), signature, release)
        if read_json(confined(folder, "device.json")).get("pin") != self.pin.mark:
            raise AgentError(
                "pinned",
                f"Release {release} was set up here before this device was pinned: what it runs with may be anybody's.",
                "Push its bundle again; that sets it up anew.",
            )

    def trust(self, request: Request) -> Dict[str, Any]:
        """Pins this device for a deploying account: lays down the agent, which is the payload, and what it holds to."""
        if request.payload.remaining > AGENT_LIMIT:
            raise bad_request("The agent that is to be laid down is larger than 4 MiB.")
        return lay_pin(request.args, b"".join(iter(request.payload.read, b"")))

    def install_runtime(self, runtime: Dict[str, Any]) -> None:
        """Unpacks a runtime's wheels, each into a folder of its own, unless the runtime is here and whole."""
        root = self.home()
        runtime_id = take_name(runtime, "id", NAME_PATTERN)
        folder = self.runtime_folder(runtime_id)
        require_executable(folder)
        if is_runtime_whole(folder):
            return
        make_folder(os.path.dirname(folder))
        staged = confined(root, "incoming", f"runtime-{os.urandom(8).hex()}")
        make_folder(staged)
        try:
            for wheel in take_list(runtime, "wheels"):
                name = take_name(wheel, "filename", NAME_PATTERN)
                sha256, size = take_name(wheel, "sha256", DIGEST_PATTERN), take_size(wheel, "bytes")
                archive = confined(root, "incoming", sha256)
                if self.find_content(root, {}, sha256, size) is None:
                    raise AgentError("digest-mismatch", f"The wheel {name} is not here, or not whole.", "Push again.")
                unpack_wheel(archive, name, confined(staged, take_name(wheel, "dist", NAME_PATTERN)))
            # One sync for the thousand small files of a runtime: an fsync for each takes minutes on an SD card.
            os.sync()
            if os.path.isdir(folder):
                mend_tree(staged, folder)
            else:
                os.rename(staged, folder)
                sync_folder(os.path.dirname(folder))
        finally:
            remove_tree(staged)

    # -- switching

    def activate(self, request: Request) -> Dict[str, Any]:
        """Switches to a release that passed its check here (or says that it was not checked)."""
        root, app = self.home(), self.known_app(request)
        state = load_state(root, app)
        done = self.replay(state, request)
        if done is not None:
            return done
        release = request.args.get("release")
        if release is None:
            release = state["candidate"]
            if release is None:
                raise AgentError("no-candidate", f"{app} has no candidate to activate.", CANDIDATE_HINT)
            if release in state["bad"]:
                raise AgentError(
                    "marked-bad",
                    f"The candidate {release} of {app} is marked bad: its hooks failed on this device.",
                    "Push a mended bundle; or mend what the hooks complained about, and activate it by its name: "
                    f"edgepack activate DEVICE --release {release}.",
                )
        release = named_release(root, app, release)
        unchecked = request.args.get("unchecked") is True
        folder = require_whole(root, app, release)
        self.require_trusted(folder, release)
        if self.pin is not None:
            require_newer(root, app, release, read_manifest(folder)[0].get("counter"))
        if not unchecked:
            require_pass(state, app, release, folder)
        return self.switch(request, app, state, release, unchecked)

    def rollback(self, request: Request) -> Dict[str, Any]:
        """Switches back to the release that was active before, or to a named one that was active or passed once."""
        root, app = self.home(), self.known_app(request)
        state = load_state(root, app)
        done = self.replay(state, request)
        if done is not None:
            return done
        release = request.args.get("release")
        if release is None:
            current = read_current(root, app)
            again = is_interrupted(state, "rollback", current)
            release = current if again else find_previous(root, app, state, current)
            if release is None:
                raise AgentError(
                    "no-previous",
                    f"{app} has no earlier release to go back to.",
                    "`edgepack status DEVICE` lists the releases; name one with --release.",
                )
        release = named_release(root, app, release)
        folder = require_whole(root, app, release)
        self.require_trusted(folder, release)
        was_active = any(entry.get("to") == release and entry.get("outcome") == "done" for entry in state["history"])
        if not was_active:
            require_pass(state, app, release, folder)
        return self.switch(request, app, state, release, unchecked=False)

    def switch(
        self, request: Request, app: str, state: Dict[str, Any], release: str, unchecked: bool
    ) -> Dict[str, Any]:
        """Intent, swap, hooks, history; a hook that fails swaps back. A dry run does none of it."""
        root, op, hooks = self.home(), request.args.get("op"), Hooks(request.args.get("hooks"))
        if self.pin is not None:
            self.pin.require_hooks(hooks)
        current = read_current(root, app)
        last = state["history"][-1] if state["history"] else {}
        interrupted = last.get("outcome") == "interrupted" and last.get("to") == release
        result: Dict[str, Any] = {
            "app": app,
            "current": release,
            "previous": last.get("from") if interrupted else current,
            "changed": current != release or interrupted,
            "unchecked": unchecked,
            "hooks": [],
            "was_bad": release in state["bad"],
            "withdrawn": None,
        }
        if result["changed"]:
            entry = {"op": op, "verb": request.verb, "from": result["previous"], "to": release, "at": now()}
            entry.update(by=take_who(request.args, "by"), unchecked=unchecked)
            if not request.dry_run:
                state["intent"] = entry
                save_state(root, app, state)
                if current != release:
                    point_current(root, app, release)
                result["hooks"], failure = hooks.run(hook_environment(root, app, release))
                if failure is not None:
                    self.swap_back(app, state, entry, hooks, failure)
                    raise failure
            candidate = state["candidate"]
            conclude(state, entry, "done")
            result["withdrawn"] = candidate if state["candidate"] is None else None
            state["bad"] = [name for name in state["bad"] if name != release]
        if request.dry_run:
            return result
        state["operations"][op] = {"result": result}
        save_state(root, app, state)
        return result

    def swap_back(
        self, app: str, state: Dict[str, Any], entry: Dict[str, Any], hooks: Hooks, failure: AgentError
    ) -> None:
        """Undoes an activation whose hooks failed, and runs the hook again for the release that is back."""
        root, before = self.home(), entry["from"]
        if before not in list_releases(root, app):
            before = None
        state["intent"] = dict(entry, back=True, error=failure.to_json(), **{"from": before})
        with contextlib.suppress(OSError):  # a note that cannot be written must not keep the old release from returning
            save_state(root, app, state)
        point_current(root, app, before)
        conclude_failure(state, entry, failure.to_json())
        save_state(root, app, state)
        if before is not None and hooks.after:
            run_hook("after_activate", hooks.after, hooks.timeout_s, hook_environment(root, app, before))

    def record(self, request: Request) -> Dict[str, Any]:
        """Keeps the verdict of a check on this device; activate asks for it."""
        root, app = self.home(), self.known_app(request)
        release, verdict = take_name(request.args, "release", RELEASE_PATTERN), take(request.args, "verdict", dict)
        state = load_state(root, app)
        done = self.replay(state, request)
        if done is not None:
            return done
        folder = require_release(root, app, release)
        word = take(verdict, "verdict", str)
        if word not in ("pass", "fail", "inconclusive"):
            raise bad_request(f"Not a verdict: {word!r}.")
        found = dict(verdict, at=now(), setup=self.setups.get(folder) or setup_digest(folder))
        passed = read_current(root, app) == release and read_verdict(state, release, folder) == "pass"
        if word == "inconclusive" and passed:
            # Not to know takes no PASS away from what is active; what was found stands beside it.
            found = dict(state["verdicts"][release], rechecked=found)
        state["verdicts"][release] = found
        state["operations"][request.args["op"]] = {"result": {}}
        save_state(root, app, state)
        return {}

    def gc(self, request: Request) -> Dict[str, Any]:
        """Removes old releases, and the runtimes that no release needs any more; with ``dry_run`` it only tells.

        With ``forget`` the app itself goes, with all that it left, unless it is in use.
        """
        root, app = self.home(), self.known_app(request)
        keep = take_size(request.args, "keep")
        state = load_state(root, app)
        done = self.replay(state, request)
        if done is not None:
            return done
        current = read_current(root, app)
        if request.args.get("forget") is True:
            return self.forget(root, app, current)
        wanted = {current, state["candidate"], find_previous(root, app, state, current)}
        newest = sorted((commit_time(root, app, name), name) for name in list_releases(root, app))
        wanted.update(name for _, name in newest[max(len(newest) - keep, 0) :])
        removed = [name for _, name in newest if name not in wanted]
        folders = [release_folder(root, app, name) for name in removed]
        folders += self.unused_runtimes(root, without=folders)
        result = {"removed": removed, "bytes": freed_bytes(folders)}
        if request.dry_run:
            return result
        for folder in folders:
            self.discard(folder)
        for name in removed:
            state["verdicts"].pop(name, None)
        state["bad"] = [name for name in state["bad"] if name not in removed]
        state["operations"][request.args["op"]] = {"result": result}
        save_state(root, app, state)
        return result

    def forget(self, root: str, app: str, current: Optional[str]) -> Dict[str, Any]:
        """Removes an app that was only tried out, with all that it left; never one that is in use."""
        if current is not None:
            raise bad_request(f"{app} is active ({current}): it cannot be forgotten.")
        removed = list_releases(root, app)
        releases = [release_folder(root, app, name) for name in removed]
        runtimes = self.unused_runtimes(root, without=releases)
        result = {"removed": removed, "bytes": freed_bytes([*releases, *runtimes])}
        for folder in (confined(root, "apps", app), *runtimes):
            self.discard(folder)
        return result

    def discard(self, folder: str) -> None:
        """Takes a folder out of its place in one rename, then removes it."""
        trash = confined(self.home(), "incoming", f"trash-{os.urandom(8).hex()}")
        make_folder(os.path.dirname(trash))
        change_tree_mode(folder, writable=True)
        os.rename(folder, trash)
        sync_folder(os.path.dirname(folder))
        remove_tree(trash)

    def unused_runtimes(self, root: str, without: List[str]) -> List[str]:
        """The unpacked runtimes that no release of any app uses, once the releases in these folders are gone."""
        releases = (release_folder(root, app, name) for app in list_apps(root) for name in list_releases(root, app))
        used = {runtime_of(folder) for folder in releases if folder not in without}
        unused = set(list_names(os.path.join(root, "runtimes"), NAME_PATTERN)) - used
        return [confined(root, "runtimes", name) for name in sorted(unused)]

    # -- measuring

    def choose_release(self, request: Request) -> Tuple[str, str]:
        """The release that a check is about, and its folder: the named one, the candidate or the current one."""
        root, app = self.home(), self.known_app(request)
        release = request.args.get("release") or load_state(root, app)["candidate"] or read_current(root, app)
        if release is None:
            raise AgentError("no-candidate", f"{app} has no release to check.", "Push a bundle first.")
        return release, require_release(root, app, named_release(root, app, release))

    def manifest(self, request: Request) -> Tuple[Dict[str, Any], int, Iterable[bytes]]:
        """A release's manifest as the payload: the budget and the way to measure stand in it."""
        release, folder = self.choose_release(request)
        path = confined(folder, "manifest.json")
        size = size_of(path)
        if not 0 < size <= MANIFEST_LIMIT:
            raise AgentError("release-damaged", f"The manifest of {release} is gone.", "Push its bundle again.")
        return {"release": release}, size, read_chunks(path, size)

    def measure(self, request: Request) -> Dict[str, Any]:
        """Runs a release's own loader with its own runtime, and hands on what it measured."""
        root = self.home()
        release, folder = self.choose_release(request)
        options: Dict[str, Any] = take(request.args, "options", dict)
        if self.pin is not None:
            require_whole(root, self.known_app(request), release)
            self.require_trusted(folder, release)
            require_numbers(options)
        require_memory(folder)
        self.setups[folder] = setup_digest(folder)
        make_folder(confined(root, "incoming"))
        output = confined(root, "incoming", f"measure-{os.urandom(8).hex()}")
        make_folder(output)
        MEASURE_FOLDERS.append(output)
        limit_s = take_seconds(options, "limit_s", take_seconds(options, "max_seconds", 60.0) + MEASURE_SLACK_S)
        run = MeasureRun(folder, output, options, limit_s)
        run.wait(lambda progress: self.wire.send({"id": request.id, "progress": progress, "n": 0}))
        measurement = read_json(os.path.join(output, "measurement.json"))
        if not measurement:
            raise run.failure()
        outputs = os.path.join(output, "outputs.npz")
        here = os.path.isfile(outputs)
        measurement["release"] = release
        measurement["outputs"] = os.path.basename(output) if here else None
        measurement["outputs_bytes"] = size_of(outputs) if here else 0
        return measurement

    def collect(self, request: Request) -> Tuple[Dict[str, Any], int, Iterable[bytes]]:
        """The outputs that a measurement of this session wrote (.npz)."""
        token = take_name(request.args, "token", NAME_PATTERN)
        path = confined(self.home(), "incoming", token, "outputs.npz")
        if os.path.dirname(path) not in MEASURE_FOLDERS or not os.path.isfile(path):
            raise bad_request("There is no measurement with this token in this session.")
        size = os.path.getsize(path)
        return {"bytes": size, "sha256": digest_file(path)}, size, read_chunks(path, size)


class MeasureRun:
    """One run of a release's loader in a child: its progress comes through a pipe, its result is a file."""

    def __init__(self, folder: str, output: str, options: Dict[str, Any], limit_s: float) -> None:
        interpreter = read_json(os.path.join(folder, "device.json")).get("interpreter")
        if not isinstance(interpreter, str) or not os.access(interpreter, os.X_OK):
            raise AgentError(
                "no-runtime",
                f"The Python that this release was set up for is gone: {interpreter}.",
                "Push its bundle again.",
            )
        self.output = output
        self.limit_s = limit_s
        self.timed_out = False
        self._oom_kills = count_oom_kills()
        self._progress, write_end = os.pipe()
        options = dict(options, progress_fd=write_end, watch_stdin=True)
        loader = os.path.join(folder, "loader.py")
        argv = [interpreter, "-I", loader, "measure", output, "--options", json.dumps(options)]
        try:
            # The child ends when its standard input does, so it does not outlive an agent that was killed.
            self.child = CHILDREN.start(argv, stdin=subprocess.PIPE, pass_fds=(write_end,), cwd=output)
        finally:
            os.close(write_end)
        self.tail = Tail(self.child.stdout)

    def wait(self, report: Callable[[Dict[str, Any]], None]) -> None:
        """Waits for the child's end and passes its progress on; one that shows no life for ``limit_s`` is ended."""
        deadline = time.monotonic() + self.limit_s
        pending = b""
        while self.child.poll() is None and not self.timed_out:
            self.timed_out = time.monotonic() > deadline
            if select.select([self._progress], [], [], 0.1)[0]:
                data = os.read(self._progress, 65536)
                if not data:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        self.child.wait(0.1)
                *lines, pending = (pending + data)[-65536:].split(b"\n")
                for line in lines:
                    deadline = time.monotonic() + self.limit_s
                    report_line(line, report)
        os.close(self._progress)
        if self.timed_out:
            CHILDREN.kill(self.child)
        else:
            CHILDREN.done(self.child)

    def failure(self) -> AgentError:
        """Why the child wrote no measurement."""
        stated = read_json(os.path.join(self.output, "error.json"))
        if stated:
            return AgentError.from_json(stated)
        code, tail = self.child.returncode, self.tail.text()
        details: Dict[str, Any] = {"exit": code, "output": tail}
        if self.timed_out:
            return AgentError(
                "timeout",
                f"The measurement showed no life for {self.limit_s:g} s; it was ended.",
                "See whether the device is busy or the accelerator hangs (unplug it, plug it in), then check again.",
                **details,
            )
        if code == -signal.SIGKILL:
            sure = (
                "ran out of memory" if count_oom_kills() > self._oom_kills else "was killed, most likely for its memory"
            )
            return AgentError("out-of-memory", f"The measurement {sure}.", MEMORY_HINT, **details)
        if code < 0:
            name = signal_name(-code)
            hint = "The runtime or the delegate crashed; the error's details hold its output."
            return AgentError("killed", f"The measurement died of {name}.", hint, signal=name, **details)
        if free_bytes(self.output) < DISK_MARGIN:
            return AgentError(
                "disk-full",
                "The device's disk is full: the measurement could not be written.",
                "Free some space on the device, then check again.",
                **details,
            )
        last = tail.strip().splitlines()[-1:] or ["it said nothing"]
        hint = (
            "The loader's whole output is in the error's details. Push the bundle again; if that is no cure, report it."
        )
        return AgentError("measure-failed", f"The loader ended with {code}: {last[0][:300]}", hint, **details)


def report_line(line: bytes, report: Callable[[Dict[str, Any]], None]) -> None:
    """Passes on one line of progress, if it is one."""
    try:
        progress = parse_json(line)
    except (ValueError, RecursionError):
        return
    if isinstance(progress, dict) and len(line) < 4096:
        report(progress)


def signal_name(number: int) -> str:
    """A signal as people write it."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def count_oom_kills() -> int:
    """How many processes the kernel has killed for memory since it started."""
    found = re.search(r"^oom_kill (\d+)$", read_text("/proc/vmstat"), re.MULTILINE)
    return int(found.group(1)) if found else 0


def index_contents(root: str) -> Dict[str, List[str]]:
    """Where the releases on this device hold which content: SHA-256 to paths (not verified)."""
    contents: Dict[str, List[str]] = {}
    for app in list_apps(root):
        for release in list_releases(root, app):
            folder = release_folder(root, app, release)
            manifest, sha256 = read_manifest(folder)
            with contextlib.suppress(AgentError):
                contents.setdefault(sha256, []).append(os.path.join(folder, "manifest.json"))
                for path, _, digest in manifest_files(manifest):
                    contents.setdefault(digest, []).append(confined(folder, path))
    return contents


def read_chunks(path: str, size: int) -> Iterator[bytes]:
    """Exactly ``size`` bytes of a file in chunks; zeros where it became shorter, so that the frame stays whole."""
    with open(path, "rb") as file:
        while size:
            chunk = file.read(min(CHUNK, size)) or b"\0" * min(CHUNK, size)
            size -= len(chunk)
            yield chunk


def size_of(path: str) -> int:
    """A file's size; 0 where there is none."""
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0


def commit_time(root: str, app: str, release: str) -> str:
    """When a release was committed, for ordering."""
    return str(read_json(os.path.join(release_folder(root, app, release), "device.json")).get("committed_at") or "")


def no_release(root: str, app: str, release: str) -> AgentError:
    """A release was named that is not here."""
    there = list_releases(root, app)
    meant = [found for found in there if found.startswith(release)]
    hint = "Name one that is there, or push its bundle first: edgepack push FILE.edgepack DEVICE."
    return AgentError(
        "no-release",
        f"{app} has no release {release} on this device (there: {', '.join(there) or 'none'}).",
        f"Did you mean --release {meant[0]}?" if len(meant) == 1 else hint,
    )


def named_release(root: str, app: str, name: Any) -> str:
    """A release id that a person gave; a version without its digest is no release either, and the error lists those."""
    if not isinstance(name, str):
        raise bad_request("'release' has to be text.")
    if not RELEASE_PATTERN.fullmatch(name):
        raise no_release(root, app, name[:100])
    return name


def require_release(root: str, app: str, release: str) -> str:
    """The folder of a release that is here."""
    folder = release_folder(root, app, release)
    if not os.path.isdir(folder):
        raise no_release(root, app, release)
    return folder


def require_pass(state: Dict[str, Any], app: str, release: str, folder: str) -> None:
    """Raises ``not-checked`` where no PASS is recorded for this release with what it runs with on this device."""
    word = read_verdict(state, release, folder)
    if word != "pass":
        found = f"its last check here ended in {word}" if word else "it was not checked here"
        raise AgentError(
            "not-checked",
            f"Release {release} of {app} has no PASS on this device: {found}.",
            f"Check it: edgepack check DEVICE --release {release}; "
            f"or take it unchecked: edgepack activate DEVICE --release {release} --unchecked.",
            verdict=word,
        )


def require_memory(folder: str) -> None:
    """Raises ``memory-short`` where the model and its runtime cannot fit into the memory that is available."""
    available = memory_bytes("MemAvailable")
    needed = size_of(os.path.join(folder, "model.tflite")) + MEMORY_FOR_RUNTIME
    if available is not None and available < needed:
        raise AgentError(
            "memory-short",
            f"The device has {available} bytes of memory available; the model and its runtime need about {needed}.",
            MEMORY_HINT,
            available_bytes=available,
            needed_bytes=needed,
        )


def require_executable(path: str) -> None:
    """Raises ``noexec`` where shared libraries may not be loaded from the file system of a path that may be to come."""
    mount = os.path.realpath(path)
    while not os.path.ismount(mount):
        mount = os.path.dirname(mount)
    if os.statvfs(mount).f_flag & os.ST_NOEXEC:
        raise AgentError(
            "noexec",
            f"{mount} is mounted noexec: the runtime's libraries cannot be loaded from {path}.",
            f"Keep edgepack's folder on another file system with --root PATH, or allow it: sudo mount -o "
            f"remount,exec {shlex.quote(mount)}",
            mount=mount,
        )


def require_manifest(staged: str, release: str, files: List[Dict[str, Any]]) -> None:
    """Sees that a staged release is exactly what its manifest says, and its id what its manifest's digest says."""
    manifest, sha256 = read_manifest(staged)
    if not sha256 or not sha256.startswith(release[-12:]):
        raise AgentError(
            "digest-mismatch", f"The manifest is not that of release {release}.", "Build the bundle again."
        )
    expected = {path: digest for path, _, digest in manifest_files(manifest)}
    given = {entry["path"]: entry["sha256"] for entry in files if entry["path"] != "manifest.json"}
    if expected != given:
        odd = sorted(path for path in set(expected) | set(given) if expected.get(path) != given.get(path))
        found = f"The files do not match the manifest of {release}: {', '.join(odd[:5])}."
        raise AgentError("digest-mismatch", found, "Build the bundle again.")


def install_door(root: str, folder: str) -> None:
    """Keeps ``lib/edgepack_device.py`` at the newest version that any release brought; mends a changed one."""
    try:
        with open(os.path.join(folder, DOOR), "rb") as file:
            brought = file.read(MANIFEST_LIMIT)
    except FileNotFoundError:
        return
    path = confined(root, "lib", DOOR)
    try:
        with open(path, "rb") as file:
            there = file.read(MANIFEST_LIMIT)
    except FileNotFoundError:
        there = b""
    if brought != there and door_version(brought) >= door_version(there):
        make_folder(os.path.dirname(path))
        write_atomically(path, brought)


def door_version(source: bytes) -> int:
    """The ``DOOR_VERSION`` of an ``edgepack_device.py``; -1 where it names none."""
    found = DOOR_VERSION_PATTERN.search(source)
    return int(found.group(1)) if found else -1


def locked_error(root: str, holder: Dict[str, Any]) -> AgentError:
    """Somebody else works on this root; the lock's content tells who."""
    who, since, verb = (str(holder.get(key) or "somebody")[:200] for key in ("who", "since", "verb"))
    return AgentError(
        "locked",
        f"{who} holds the lock of {root} on the device ({'' if verb == 'hello' else verb + ', '}since {since}).",
        "Try again when that is done; the lock falls by itself when its session ends.",
        holder=holder,
    )


def internal_error(error: Exception) -> AgentError:
    """A fault of the agent itself, with the place where it happened."""
    trace = error.__traceback__
    places = []
    while trace is not None:
        places.append(f"{trace.tb_frame.f_code.co_name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return AgentError(
        "internal",
        f"The agent failed: {type(error).__name__}: {error}",
        "This is a fault of edgepack: report it, with the places in the error's details.",
        where=places[-5:],
    )


# ------------------------------------------------------------------------------------------------------ the session


def watch_silence(wire: Wire) -> None:
    """Ends the agent when the host has sent nothing for too long: half-open connections hold no lock forever."""
    while True:
        time.sleep(min(1.0, wire.silence_s / 4))
        if wire.silent_for_s() > wire.silence_s:
            end_agent(3)


def read_requests(wire: Wire, requests: queue.Queue[Optional[Request]]) -> None:
    """Reads frames for as long as there are any; answers pings at once and queues the rest."""
    try:
        while True:
            header = wire.read_header()
            payload = Payload(wire, header["n"])
            if header["verb"] == "ping" and not header["n"]:
                wire.send({"id": header["id"], "ok": True, "n": 0, "result": {}})
                continue
            requests.put(Request(header, payload))
            payload.drained.wait()
    except AgentError as error:
        wire.send({"id": None, "ok": False, "n": 0, "error": error.to_json()})
        end_agent(2)
    except OSError:
        end_agent(0)


def pass_bootstrap() -> str:
    """Throws away, unread, the agent that a host streams; returns its nonce. Ends where it is no host that speaks."""
    signal.alarm(FIRST_WORD_S)  # the silence watch begins with the session
    stream: Any = sys.stdin.buffer
    line = b""
    while not line.endswith(b"\n"):
        byte = stream.read(1)
        line += byte
        # Byte for byte: scp and sftp say what no host says at once, and then wait.
        if not byte or not re.fullmatch(rb"\d{1,7}( [0-9a-f]{0,64}\n?)?", line):
            sys.exit("This key may run edgepack's agent and nothing else.")
    size, nonce = line.split()
    left = int(size)
    signal.alarm(int(SILENCE_S))
    while left:
        chunk = stream.read1(min(left, CHUNK))
        if not chunk:
            sys.exit(0)
        left -= len(chunk)
    signal.alarm(0)
    return str(nonce.decode("ascii"))


def main() -> None:
    """Serves one session on standard input and output."""
    for name in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(name, end_on_signal)
    pinned = sys.argv[1:] == ["--pinned"]
    wire = Wire(pass_bootstrap() if pinned else NONCE)
    try:
        agent = Agent(wire, Pin(os.path.dirname(os.path.abspath(__file__))) if pinned else None)
    except AgentError as error:
        wire.send({"id": None, "ok": False, "n": 0, "error": error.to_json()})
        end_agent(2)
        return
    requests: queue.Queue[Optional[Request]] = queue.Queue(64)
    threading.Thread(target=watch_silence, args=(wire,), daemon=True).start()
    threading.Thread(target=read_requests, args=(wire, requests), daemon=True).start()
    try:
        while True:
            request = requests.get()
            if request is not None:
                agent.answer(request)
    except BrokenPipeError:
        end_agent(0)


if __name__ == "__main__":
    main()
