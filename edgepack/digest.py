"""Digests of files, read in pieces so that size never matters for memory."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

PIECE = 1 << 20
_CACHED_PIECE = 1 << 18  # stays in a processor's cache; hashlib.file_digest takes as much


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file, as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class BackgroundDigest:
    """The SHA-256 of a file, computed while the block does something else; given up where that fails.

    hashlib lets other threads run meanwhile. What is no regular file is not opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._digest: str | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="edgepack-digest", daemon=True)

    def __enter__(self) -> BackgroundDigest:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped = True
        self._thread.join()

    def result(self) -> str:
        """The digest, once it is there. Raises OSError where the file cannot be read."""
        self._thread.join()
        return self._digest or sha256_file(self._path)

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # result() meets it again, where somebody hears of it
            if not self._path.is_file():
                return
            digest, piece = hashlib.sha256(), memoryview(bytearray(_CACHED_PIECE))
            with self._path.open("rb", buffering=0) as stream:
                while not self._stopped and (count := stream.readinto(piece)):
                    digest.update(piece[:count])
            self._digest = digest.hexdigest()


def read_exactly(stream: BinaryIO, size: int) -> bytes:
    """``size`` bytes, or fewer where the stream ends before."""
    parts = []
    while size > 0:
        part = stream.read(min(size, PIECE))
        if not part:
            break
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
