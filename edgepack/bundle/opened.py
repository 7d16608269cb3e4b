"""An opened bundle: its files, each as a stream of its own bytes, and their digests recomputed."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from edgepack.bundle.manifest import CHECK_SET_NAME, MANIFEST_NAME, Manifest
from edgepack.bundle.packing import is_packed, unpack
from edgepack.digest import PIECE, sha256_file
from edgepack.errors import InputError, IntegrityError
from edgepack.events import Event, Reporter, ignore_events

if TYPE_CHECKING:
    from edgepack.bundle.checkset import ArrayHeader

AGAIN = "Copy it again, or make it anew with `edgepack bundle`."
"""What to do about a damaged bundle."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of an opened bundle: its size and digest, and where its ``stored`` bytes lie in the bundle file."""

    path: str
    bytes: int
    sha256: str
    stored: int
    offset: int


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened bundle: its structure is checked and its manifest parsed; the files' digests are not recomputed yet.

    ``signature`` is the text of the SSHSIG over ``manifest_bytes``, None on an unsigned one; it can be read, and
    :func:`edgepack.bundle.signature.check_signature` says whether it is right.
    """

    path: Path
    manifest: Manifest
    manifest_bytes: bytes
    release: str
    size: int
    entries: Mapping[str, Entry]
    signature: bytes | None = None

    def open_entry(self, path: str) -> BinaryIO:
        """A stream of exactly that file's bytes; the caller closes it."""
        if path == MANIFEST_NAME:
            return io.BytesIO(self.manifest_bytes)
        entry = self.entries.get(path)
        if entry is None:
            raise InputError(
                "no-such-entry", f"{self.path} holds no {path}.", hint="`edgepack inspect` lists its files."
            )
        content = self._content(entry)
        return content if isinstance(content, io.BytesIO) else io.BufferedReader(content, PIECE)

    def _content(self, entry: Entry) -> _Region | io.BytesIO:
        region = _Region(self.path, entry.offset, entry.stored)
        if not is_packed(entry.path):
            return region
        with region:
            content = unpack(region.readall(), entry.bytes)
        if content is None:
            raise IntegrityError(
                "bad-bundle", f"{entry.path} in {self.path} is not packed as edgepack packs it.", hint=AGAIN
            )
        return io.BytesIO(content)

    def sha256(self) -> str:
        """The digest of the whole bundle file."""
        return sha256_file(self.path)

    def check_set(self) -> Mapping[str, ArrayHeader]:
        """What the arrays of the check set say of themselves; raises ValueError where no device would take them."""
        from edgepack.bundle.checkset import read_headers

        with self.open_entry(CHECK_SET_NAME) as stream:
            return read_headers(stream)

    def verify(self, report: Reporter = ignore_events) -> None:
        """Recompute every file's digest; :class:`IntegrityError` "digest-mismatch" names the first that differs.

        A check set that no device could read is "bad-check-set". The ZIP's CRCs, which the digests make superfluous and
        which cost half as much again, are not recomputed.
        """
        total = sum(entry.bytes for entry in self.entries.values())
        done = 0
        for entry in self.entries.values():
            report(Event("verify", entry.path, done, total, "bytes"))
            with self._content(entry) as content:
                if hashlib.file_digest(content, "sha256").hexdigest() != entry.sha256:
                    raise _digest_error(self.path, entry.path)
            done += entry.bytes
        report(Event("verify", "every digest is right", done, total, "bytes"))
        if CHECK_SET_NAME in self.entries:
            self._require_check_set()

    def _require_check_set(self) -> None:
        try:
            self.check_set()
        except ValueError as error:
            raise IntegrityError(
                "bad-check-set",
                f"{CHECK_SET_NAME} in {self.path} is none that a device could take: {error}.",
                hint="Make the bundle anew, with a check set that `edgepack quantize` makes of fewer samples.",
            ) from None


class _Region(io.RawIOBase):
    """The bytes of one member and no others."""

    def __init__(self, path: Path, offset: int, size: int) -> None:
        super().__init__()
        self._stream = path.open("rb", buffering=0)
        self._begin = offset
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(base + offset, 0)
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        self._stream.seek(self._begin + self._position)
        count = self._stream.readinto(memoryview(buffer)[: max(self._size - self._position, 0)]) or 0
        self._position += count
        return count

    def close(self) -> None:
        self._stream.close()
        super().close()


def _digest_error(path: Path, entry: str) -> IntegrityError:
    return IntegrityError(
        "digest-mismatch", f"{entry} in {path} is not what the manifest says: its digest differs.", hint=AGAIN
    )
