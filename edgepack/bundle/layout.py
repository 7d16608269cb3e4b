"""The one way in which edgepack writes a ZIP: in a fixed order, with fixed times and modes; pure bytes.

A ZIP leaves a writer a hundred freedoms, and each is a place to hide something from a reader. Here every header follows
from (name, CRC, sizes, offset) alone, so a reader rebuilds the headers and compares: whatever differs is refused.
The name says whether a member is stored or packed (:mod:`edgepack.bundle.packing`).
Structures: PKWARE APPNOTE.TXT 6.3.10, sections 4.3.7 (local header), 4.3.12 (central directory), 4.3.16 (end).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from edgepack.bundle.packing import is_packed

_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_END = struct.Struct("<4sHHHHIIH")

LOCAL_MAGIC = b"PK\x03\x04"
CENTRAL_MAGIC = b"PK\x01\x02"
END_MAGIC = b"PK\x05\x06"
CENTRAL_BYTES = _CENTRAL.size
END_BYTES = _END.size

_VERSION = 20  # 2.0, what `zip` itself writes
_STORED, _BZIP2 = (0, 20), (12, 46)  # the method, and the version that a reader needs for it
_MADE_BY = (3 << 8) | _VERSION  # 3 = Unix: the external attributes hold a file mode
_MODE = 0o100644 << 16  # a regular file: no symlink, no device, no setuid
_DATE = (1 << 5) | 1  # 1980-01-01, the oldest that a ZIP can say


@dataclass(frozen=True, slots=True)
class Member:
    """One file, of ``bytes`` bytes, ``stored`` of them in the ZIP; ``offset`` is that of its local header."""

    name: str
    crc: int
    bytes: int
    stored: int
    offset: int

    @property
    def data_offset(self) -> int:
        """Where the file's own bytes begin."""
        return self.offset + _LOCAL.size + len(self.name)

    @property
    def end(self) -> int:
        """The offset after its last byte, where the next member begins."""
        return self.data_offset + self.stored


def local_header(member: Member) -> bytes:
    """What stands before the member's bytes."""
    name = member.name.encode("ascii")
    method, version = _BZIP2 if is_packed(member.name) else _STORED
    fields = (member.crc, member.stored, member.bytes, len(name), 0)
    return _LOCAL.pack(LOCAL_MAGIC, version, 0, method, 0, _DATE, *fields) + name


def central_header(member: Member) -> bytes:
    """The member's line in the central directory."""
    name = member.name.encode("ascii")
    method, version = _BZIP2 if is_packed(member.name) else _STORED
    fields = (member.crc, member.stored, member.bytes, len(name), 0, 0, 0, 0, _MODE, member.offset)
    return _CENTRAL.pack(CENTRAL_MAGIC, _MADE_BY, version, 0, method, 0, _DATE, *fields) + name


def end_record(count: int, directory_bytes: int, directory_offset: int) -> bytes:
    """The last 22 bytes."""
    return _END.pack(END_MAGIC, 0, 0, count, count, directory_bytes, directory_offset, 0)


def parse_end(content: bytes) -> tuple[int, int, int] | None:
    """(count, directory bytes, directory offset) of an end record as :func:`end_record` writes it, else None."""
    if len(content) != _END.size:
        return None
    fields = _END.unpack(content)
    count, size, offset = fields[4], fields[5], fields[6]
    return (count, size, offset) if end_record(count, size, offset) == content else None


def directory_names(content: bytes) -> list[str]:
    """The names in a central directory that others wrote, as far as it can be followed; for messages only."""
    names = []
    position = 0
    while position + _CENTRAL.size <= len(content):
        fields = _CENTRAL.unpack_from(content, position)
        if fields[0] != CENTRAL_MAGIC:
            break
        position += _CENTRAL.size
        names.append(content[position : position + fields[10]].decode("utf-8", "replace"))
        position += fields[10] + fields[11] + fields[12]
    return names


def parse_directory(content: bytes, count: int) -> tuple[Member, ...] | None:
    """The members of a central directory exactly as :func:`central_header` writes it, else None."""
    members = []
    position = 0
    for _ in range(count):
        if position + _CENTRAL.size > len(content):
            return None
        fields = _CENTRAL.unpack_from(content, position)
        name_bytes = content[position + _CENTRAL.size : position + _CENTRAL.size + fields[10]]
        if not name_bytes.isascii():
            return None
        name, size = name_bytes.decode("ascii"), fields[9]
        stored = fields[8] if is_packed(name) else size
        member = Member(name, crc=fields[7], bytes=size, stored=stored, offset=fields[16])
        expected = central_header(member)
        if content[position : position + len(expected)] != expected:
            return None
        members.append(member)
        position += len(expected)
    return tuple(members) if position == len(content) else None
