"""Which files of a bundle lie in it packed, and how: the device side's Python sources, by bzip2.

They are text, and beside a small model most of a bundle. bzip2 because there is one implementation of it, whose output
for the same input has not changed since 1.0 (zlib's differs from build to build): the same bundle is the same bytes on
any machine. Everything else in a bundle is stored: models and wheels gain little, and are read piece by piece.
"""

from __future__ import annotations

import bz2

MAX_PACKED_BYTES = 1 << 20
"""No packed file is larger, packed or unpacked: it is unpacked in memory."""


def is_packed(name: str) -> bool:
    """Whether a file of that name lies packed in a bundle."""
    return name.endswith(".py")


def packer() -> bz2.BZ2Compressor:
    """What packs a file piece by piece; the result does not depend on where the pieces end."""
    return bz2.BZ2Compressor(9)


def unpack(packed: bytes, size: int) -> bytes | None:
    """The ``size`` bytes that a :func:`packer` made ``packed`` of, None where it is of no such bytes; holds no more."""
    unpacker = bz2.BZ2Decompressor()
    try:
        content = unpacker.decompress(packed, max_length=size + 1)
    except OSError:
        return None
    again = packer()
    return content if len(content) == size and again.compress(content) + again.flush() == packed else None
