"""Files, done durably, and none outside of the root."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shlex
import shutil
import stat
from typing import Any, Dict, Iterator, List

from .arguments import parse_json
from .errors import AgentError, bad_request
from .limits import BODY_LIMIT, CHUNK, DISK_MARGIN


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


def read_foreign(path: str, limit: int) -> bytes:
    """A file of another account, read by one that can do more: no link is followed, no pipe waited for.

    Raises OSError, also where the file is no regular one or larger than ``limit``.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode) or info.st_size > limit:
            raise OSError(errno.EINVAL, "not a small regular file", path)
        return file.read(limit)


def read_text(path: str, limit: int = 65536) -> str:
    """A small text file of the system; empty where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(limit).decode("utf-8", "replace").replace("\0", "")
    except OSError:
        return ""


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


def list_names(folder: str, pattern: Any) -> List[str]:
    """The folders in a folder whose names match, sorted; none where it does not exist."""
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(n for n in names if pattern.fullmatch(n) and os.path.isdir(os.path.join(folder, n)))


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


def is_executable(mount: str) -> bool:
    """Whether shared libraries may be loaded from the file system that is mounted there."""
    return not os.statvfs(mount).f_flag & os.ST_NOEXEC


def mount_of(path: str) -> str:
    """Where the file system of a path is mounted, which itself may be to come."""
    mount = os.path.realpath(path)
    while not os.path.ismount(mount):
        mount = os.path.dirname(mount)
    return mount


def require_executable(path: str) -> None:
    """Raises ``noexec`` where shared libraries may not be loaded from the file system of a path that may be to come."""
    mount = mount_of(path)
    if not is_executable(mount):
        raise AgentError(
            "noexec",
            f"{mount} is mounted noexec: the runtime's libraries cannot be loaded from {path}.",
            f"Keep edgepack's folder on another file system with --root PATH, or allow it: sudo mount -o "
            f"remount,exec {shlex.quote(mount)}",
            mount=mount,
        )
