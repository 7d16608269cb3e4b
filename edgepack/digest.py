"""Digests of files, read in pieces so that size never matters for memory."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import BinaryIO

PIECE = 1 << 20


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file, as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


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
