"""Wheels: unpacked within bounds, each file held against the wheel's RECORD, then and later."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import stat
import struct
from base64 import urlsafe_b64encode
from typing import TYPE_CHECKING, Any, Dict, Iterator, Mapping, Optional

from .arguments import take_path
from .disk import confined, digest_file, list_names, read_foreign, remove_tree, require_space
from .errors import AgentError
from .failpoints import reach
from .limits import CHUNK, NAME_PATTERN

if TYPE_CHECKING:
    from zipfile import ZipFile, ZipInfo

UNPACKED_LIMIT = 4 * 1024**3
WHEEL_FILES_LIMIT = 10_000  # the runtimes and numpy have up to 1,500
WHEEL_DIRECTORY_LIMIT = 4 * 1024 * 1024
RECORD_LIMIT = 2 * 1024 * 1024


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


def unpack_wheel(archive: str, name: str, target: str, record: Optional[str] = None) -> None:
    """Unpacks a wheel with zipfile, each file against the wheel's RECORD, none outside of the target folder.

    ``record`` is the SHA-256 that its RECORD has to have, where somebody vouched for it. Whatever the archive says,
    memory stays below 64 MiB and the disk below the sizes that its directory names.
    """
    # Here and not above: only a push needs them, and each import costs a slow device milliseconds.
    import zipfile
    import zlib

    try:
        require_small_directory(archive, name)
        with zipfile.ZipFile(archive) as wheel:
            unpack_members(wheel, name, target, record)
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


def unpack_members(wheel: ZipFile, name: str, target: str, record: Optional[str]) -> None:
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
        content = source.read(RECORD_LIMIT)
    if record is not None and hashlib.sha256(content).hexdigest() != record:
        raise wheel_error(name, "its RECORD is not the one that the manifest names")
    digests = read_record(content.decode("utf-8", "replace"))
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
            reach("runtime:unpacking")
    if expected is not None and record_digest(sha256) != expected:
        shown = f"{info.filename[:200]!r} does not have the digest that its RECORD names"
        raise wheel_error(os.path.basename(str(wheel.filename)), shown)


def is_runtime_whole(folder: str, records: Optional[Mapping[str, str]] = None) -> bool:
    """True where every file of every unpacked wheel has the digest that its RECORD names.

    On a pinned device ``records`` has the SHA-256 of each distribution's RECORD, which was signed: then just these lie
    there, and no file that is in none of them but compiled Python (``remove_bytecode``).
    """
    dists = list_names(folder, NAME_PATTERN)
    if records is not None and (os.path.islink(folder) or dists != sorted(records)):
        return False
    return bool(dists) and all(is_dist_whole(os.path.join(folder, dist), (records or {}).get(dist)) for dist in dists)


def is_dist_whole(folder: str, expected_record: Optional[str]) -> bool:
    """True where the files of one unpacked wheel have the digests that its RECORD names, and that the expected one."""
    infos = [name for name in os.listdir(folder) if name.endswith(".dist-info")]
    if len(infos) != 1:
        return False
    record = f"{infos[0]}/RECORD"
    try:
        content = read_foreign(os.path.join(folder, record), RECORD_LIMIT)
        digests = read_record(content.decode("utf-8", "replace").replace("\0", ""))
    except (OSError, ValueError):
        return False
    if expected_record is not None:
        if hashlib.sha256(content).hexdigest() != expected_record:
            return False
        known = {record, f"{record}.jws", f"{record}.p7s", *map(installed_path, digests)}
        if any(path not in known for path in walk_strictly(folder)):
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


def walk_strictly(folder: str) -> Iterator[str]:
    """The relative paths of all under a folder that is no folder itself, links to folders too, or ``.`` for a link.

    Compiled Python in its ``__pycache__`` is left out: whoever runs the runtime leaves it there.
    """
    if os.path.islink(folder):
        yield "."
    for base, folders, files in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(base, name))]
        compiled = os.path.basename(base) == "__pycache__"
        for name in [*links, *(name for name in files if not (compiled and name.endswith(".pyc")))]:
            yield os.path.relpath(os.path.join(base, name), folder)


def remove_bytecode(folder: str) -> None:
    """Takes away the compiled Python under a folder: Python may believe it unseen, and makes it anew."""
    for base, folders, _ in os.walk(folder):
        if "__pycache__" in folders:
            folders.remove("__pycache__")
            remove_tree(os.path.join(base, "__pycache__"))
