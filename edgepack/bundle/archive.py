"""Reading and writing a bundle file: a ZIP of which one writing only is accepted (:mod:`edgepack.bundle.layout`)."""

from __future__ import annotations

import hashlib
import io
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from edgepack.bundle import layout
from edgepack.bundle.layout import Member
from edgepack.bundle.manifest import (
    MANIFEST_NAME,
    MAX_FILES,
    MAX_MANIFEST_BYTES,
    SIGNATURE_NAME,
    bad_manifest,
    parse,
    release_id,
    safe_path,
)
from edgepack.bundle.opened import AGAIN, Bundle, Entry
from edgepack.bundle.packing import MAX_PACKED_BYTES, is_packed, packer
from edgepack.bundle.sshsig import MAX_SIGNATURE_BYTES, read_signature
from edgepack.bundledocuments import FileEntry
from edgepack.digest import PIECE, read_exactly
from edgepack.errors import InputError, IntegrityError
from edgepack.files import require_regular

_MAX_DIRECTORY_BYTES = MAX_FILES * (layout.CENTRAL_BYTES + 200)
_MAX_ARCHIVE_BYTES = (1 << 32) - 1


def open_bundle(path: Path) -> Bundle:
    """Open a bundle and check everything about it but the files' digests.

    Raises :class:`InputError` "not-a-bundle" where there is no file or it is something else, :class:`IntegrityError`
    where it is a bundle that was cut, changed or written by other means.
    """
    require_regular(path)
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            members = _read_members(stream, size, path)
            content = _read_text(stream, members[0], path)
            signed = len(members) > 1 and members[1].name == SIGNATURE_NAME
            signature = _read_text(stream, members[1], path) if signed else None
            _check_local_headers(stream, members, path)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError("not-a-bundle", f"{path} cannot be read: {reason}.", hint="Name a .edgepack file.") from error
    manifest = parse(content)
    if signature is not None:
        read_signature(signature)
    return Bundle(
        path=path,
        manifest=manifest,
        manifest_bytes=content,
        release=release_id(content, manifest.version),
        size=size,
        entries=_match(manifest.files, members[2 if signed else 1 :]),
        signature=signature,
    )


def is_bundle(path: Path) -> bool:
    """Whether a file is a bundle, be it a damaged one."""
    try:
        open_bundle(path)
    except InputError:
        return False
    except IntegrityError:
        return True
    return True


def write_archive(
    stream: BinaryIO,
    manifest_bytes: bytes,
    sources: Sequence[tuple[FileEntry, Path | bytes]],
    signature: bytes | None = None,
) -> None:
    """Write the manifest, its signature if there is one, then the files in the manifest's order.

    Each file is held against its entry on the way.

    Raises :class:`InputError` "changed-meanwhile" where a file is no longer what its entry says, "bundle-too-large"
    above 4 GiB.
    """
    total = len(manifest_bytes) + sum(entry.bytes for entry, _ in sources)
    if total + 2 * _MAX_DIRECTORY_BYTES > _MAX_ARCHIVE_BYTES:
        raise InputError(
            "bundle-too-large", f"The bundle would have {total} bytes; 4 GiB is the most.", hint="Use a smaller model."
        )
    members = []
    offset = 0
    texts = {MANIFEST_NAME: manifest_bytes} | ({} if signature is None else {SIGNATURE_NAME: signature})
    head = [(FileEntry(name, len(text), hashlib.sha256(text).hexdigest()), text) for name, text in texts.items()]
    for entry, source in [*head, *sources]:
        with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as content:
            members.append(_write_member(stream, entry, content, offset))
        offset = members[-1].end
    directory = b"".join(layout.central_header(member) for member in members)
    stream.write(directory)
    stream.write(layout.end_record(len(members), len(directory), offset))


def _write_member(stream: BinaryIO, entry: FileEntry, content: BinaryIO, offset: int) -> Member:
    """Copy one file behind a header that is filled in afterwards, when its CRC is known."""
    placeholder = Member(entry.path, 0, entry.bytes, entry.bytes, offset)
    stream.write(layout.local_header(placeholder))
    digest, crc, size = hashlib.sha256(), 0, 0
    packing = packer() if is_packed(entry.path) else None
    while piece := content.read(PIECE):
        digest.update(piece)
        crc = zlib.crc32(piece, crc)
        size += len(piece)
        stream.write(packing.compress(piece) if packing else piece)
    if packing:
        stream.write(packing.flush())
    if size != entry.bytes or digest.hexdigest() != entry.sha256:
        raise InputError(
            "changed-meanwhile", f"{entry.path} changed while it was being bundled.", hint="Run the command again."
        )
    member = Member(entry.path, crc, size, stream.tell() - placeholder.data_offset, offset)
    stream.seek(offset)
    stream.write(layout.local_header(member))
    stream.seek(member.end)
    return member


def _read_members(stream: BinaryIO, size: int, path: Path) -> tuple[Member, ...]:
    stream.seek(max(0, size - layout.END_BYTES))
    end = layout.parse_end(stream.read(layout.END_BYTES))
    if end is None:
        raise _not_ours(stream, size, path, "its end is missing or changed")
    count, directory_bytes, directory_offset = end
    if not 1 <= count <= MAX_FILES or directory_bytes > _MAX_DIRECTORY_BYTES:
        raise _not_ours(stream, size, path, "its directory is too large or empty")
    if directory_offset + directory_bytes + layout.END_BYTES != size:
        raise _not_ours(stream, size, path, "its directory lies about where it is")
    stream.seek(directory_offset)
    directory = stream.read(directory_bytes)
    members = layout.parse_directory(directory, count)
    if members is None or members[0].name != MANIFEST_NAME:
        strange = _strange_name(layout.directory_names(directory))
        raise _not_ours(stream, size, path, strange or "its directory is not one that edgepack writes")
    fault = _members_fault(members, directory_offset)
    if fault:
        raise _damaged(path, fault)
    return members


def _members_fault(members: Sequence[Member], directory_offset: int) -> str:
    strange = _strange_name([member.name for member in members])
    if strange is not None:
        return strange
    position = 0
    for member in members:
        if member.offset != position:
            return f"{member.name} does not follow the file before it"
        position = member.end
        if is_packed(member.name) and max(member.bytes, member.stored) > MAX_PACKED_BYTES:
            return f"{member.name} is larger than 1 MiB"
    if position != directory_offset:
        return "there are bytes that belong to no file"
    if members[0].bytes > MAX_MANIFEST_BYTES:
        return "its manifest is larger than 1 MiB"
    signed = len(members) > 1 and members[1].name == SIGNATURE_NAME
    if signed and members[1].bytes > MAX_SIGNATURE_BYTES:
        return "its signature is larger than 64 KiB"
    names = [member.name for member in members[2 if signed else 1 :]]
    if names != sorted(names) or len({name.casefold() for name in names}) < len(names):
        return "its files are not in order, or two have the same name"
    return ""


def _read_text(stream: BinaryIO, member: Member, path: Path) -> bytes:
    """The manifest or its signature."""
    stream.seek(member.data_offset)
    content = read_exactly(stream, member.bytes)
    if len(content) != member.bytes or zlib.crc32(content) != member.crc:
        raise _damaged(path, f"its {member.name} was changed")
    return content


def _check_local_headers(stream: BinaryIO, members: Sequence[Member], path: Path) -> None:
    for member in members:
        expected = layout.local_header(member)
        stream.seek(member.offset)
        if stream.read(len(expected)) != expected:
            raise _damaged(path, f"the header of {member.name} contradicts the directory")


def _match(files: Sequence[FileEntry], members: Sequence[Member]) -> dict[str, Entry]:
    if [(file.path, file.bytes) for file in files] != [(member.name, member.bytes) for member in members]:
        raise bad_manifest("it does not list the files that are there")
    return {
        file.path: Entry(file.path, file.bytes, file.sha256, member.stored, member.data_offset)
        for file, member in zip(files, members, strict=True)
    }


def _strange_name(names: Sequence[str]) -> str | None:
    """The first name that leads out of the bundle, or is there twice."""
    seen: set[str] = set()
    for name in names:
        if not safe_path(name):
            return f"the path {name[:200]!r} is not allowed"
        if name in seen:
            return f"it holds {name!r} twice"
        seen.add(name)
    return None


def _not_ours(stream: BinaryIO, size: int, path: Path, fault: str) -> InputError | IntegrityError:
    """A damaged bundle where one can be recognised from either end of the file, something else where not."""
    first = layout.local_header(Member(MANIFEST_NAME, 0, 0, 0, 0))
    stream.seek(0)
    head = stream.read(len(first))
    begins_as_zip = head.startswith(layout.LOCAL_MAGIC)
    begins_as_bundle = begins_as_zip and (len(head) < len(first) or head.endswith(MANIFEST_NAME.encode()))
    stream.seek(max(0, size - _MAX_DIRECTORY_BYTES - layout.END_BYTES))
    tail = stream.read(_MAX_DIRECTORY_BYTES + layout.END_BYTES)
    directory = tail.rfind(layout.CENTRAL_MAGIC)
    ends_as_bundle = directory >= 0 and MANIFEST_NAME.encode() in tail[tail.find(layout.CENTRAL_MAGIC) :]
    if begins_as_bundle or ends_as_bundle:
        return _damaged(path, fault)
    hint = "Make one with `edgepack bundle MODEL.tflite --target T ...`."
    if not size:
        return InputError("not-a-bundle", f"{path} is empty.", hint=f"If it was downloaded, do so again. {hint}")
    kind = "a ZIP, but no bundle" if begins_as_zip else "no bundle"
    return InputError("not-a-bundle", f"{path} is {kind}.", hint=hint)


def _damaged(path: Path, fault: str) -> IntegrityError:
    return IntegrityError(
        "bad-bundle", f"{path} is a damaged bundle, or was not written by edgepack: {fault}.", hint=AGAIN
    )
