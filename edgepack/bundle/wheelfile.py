"""Looking into a wheel before it goes into a bundle: is it one, is it the one that its name says, is it whole."""

from __future__ import annotations

import csv
import hashlib
import re
import zipfile
import zlib
from base64 import urlsafe_b64encode
from email.parser import HeaderParser
from pathlib import Path

from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from edgepack.errors import InputError, IntegrityError

METADATA_LIMIT = 2 * 1024 * 1024
"""METADATA and RECORD of the largest runtime have 100 KB."""
UNPACKED_LIMIT = 1024 * 1024 * 1024
"""The most that a wheel may unpack to, in bytes: what the device takes at the most."""
_CHUNK = 1 << 20


def require_wheel(path: Path) -> None:
    """Hold a wheel against its file name and its RECORD (binary distribution format, PEP 427).

    Raises :class:`InputError` "bad-wheel" for what is no wheel or another one than its name says, and
    :class:`IntegrityError` "damaged-wheel" where a file in it is not what its RECORD names.
    """
    try:
        with zipfile.ZipFile(path) as wheel:
            members = [member for member in wheel.infolist() if not member.is_dir()]
            if sum(member.file_size for member in members) > UNPACKED_LIMIT:
                raise _bad(path, "it unpacks to more than 1 GiB")
            folder = _check_metadata(path, wheel, members)
            _check_record(path, wheel, members, f"{folder}/RECORD")
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, UnicodeDecodeError) as error:
        raise _bad(path, "it is no whole zip file") from error
    except OSError as error:
        raise InputError(
            "bad-wheel", f"{path} cannot be read: {error.strerror}.", hint="Name a folder that is yours."
        ) from error


def record_sha256(path: Path) -> str:
    """The SHA-256 of a wheel's own RECORD, which vouches for each of its files. Raises InputError "bad-wheel"."""
    try:
        with zipfile.ZipFile(path) as wheel:
            records = [name for name in wheel.namelist() if re.fullmatch(r"[^/]+\.dist-info/RECORD", name)]
            if len(records) != 1:
                raise _bad(path, "it has no RECORD, or several")
            return hashlib.sha256(_read(path, wheel, records[0]).encode("utf-8")).hexdigest()
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, UnicodeDecodeError) as error:
        raise _bad(path, "it is no whole zip file") from error


def _check_metadata(path: Path, wheel: zipfile.ZipFile, members: list[zipfile.ZipInfo]) -> str:
    """The name of the one .dist-info folder, whose METADATA says what the file name says."""
    names = {member.filename for member in members}
    folders = sorted({name.partition("/")[0] for name in names if re.match(r"[^/]+\.dist-info/", name)})
    if len(folders) != 1 or not {f"{folders[0]}/{one}" for one in ("METADATA", "WHEEL", "RECORD")} <= names:
        raise _bad(path, "it lacks METADATA, WHEEL or RECORD in its .dist-info folder")
    said = HeaderParser().parsestr(_read(path, wheel, f"{folders[0]}/METADATA"))
    name, version, _, _ = parse_wheel_filename(path.name)
    if canonicalize_name(said.get("Name") or "") != name or not _is(said.get("Version"), version):
        raise _bad(path, f"its METADATA is that of {said.get('Name')} {said.get('Version')}")
    return folders[0]


def _is(said: str | None, version: Version) -> bool:
    try:
        return said is not None and Version(said) == version
    except InvalidVersion:
        return False


def _check_record(path: Path, wheel: zipfile.ZipFile, members: list[zipfile.ZipInfo], record: str) -> None:
    try:
        rows = [row for row in csv.reader(_read(path, wheel, record).splitlines()) if row]
    except csv.Error as error:
        raise _bad(path, "its RECORD cannot be read") from error
    digests = {row[0]: row[1] for row in rows if len(row) >= 2}
    for member in members:
        name = member.filename
        if name in (record, f"{record}.jws", f"{record}.p7s"):
            continue
        if not digests.get(name, "").startswith("sha256="):
            raise _damaged(path, f"{name[:200]!r} is not in its RECORD")
        if _digest(wheel, member) != digests[name].removeprefix("sha256=").rstrip("="):
            raise _damaged(path, f"{name[:200]!r} does not have the digest that its RECORD names")
    absent = sorted(set(digests) - {member.filename for member in members})
    if absent:
        raise _damaged(path, f"its RECORD names {absent[0][:200]!r}, which it does not hold")


def _read(path: Path, wheel: zipfile.ZipFile, name: str) -> str:
    with wheel.open(name) as source:
        content = source.read(METADATA_LIMIT + 1)
    if len(content) > METADATA_LIMIT:
        raise _bad(path, f"{name[:200]!r} is larger than 2 MiB")
    return content.decode("utf-8")


def _digest(wheel: zipfile.ZipFile, member: zipfile.ZipInfo) -> str:
    sha256 = hashlib.sha256()
    with wheel.open(member) as source:
        while chunk := source.read(_CHUNK):
            sha256.update(chunk)
    return urlsafe_b64encode(sha256.digest()).decode().rstrip("=")


def _bad(path: Path, why: str) -> InputError:
    return InputError(
        "bad-wheel", f"{path} is not the wheel that its name says: {why}.", hint="Build or fetch it again."
    )


def _damaged(path: Path, why: str) -> IntegrityError:
    return IntegrityError("damaged-wheel", f"{path} is damaged: {why}.", hint="Build or fetch it again.")
