"""What a check set holds, read from the headers of its arrays and without numpy; a .npz can claim anything.

A device reads the arrays whole (``ondevice/loader.py`` has the same bounds), so what it could not hold is told here,
before anything is sent. NPY format versions 1 to 3: numpy.lib.format.
"""

from __future__ import annotations

import math
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO

MAX_BYTES = 512 << 20
"""What the arrays of a check set may hold together."""
MAX_DIRECTORY_BYTES = 256 << 10
"""A line for each input and output, and one for the labels; zipfile reads the directory into memory at once."""

_MAX_HEADER_BYTES = 65_535
_END = struct.Struct("<4sHHHHIIH")
_LOCATOR_BYTES = 20
_DTYPE = re.compile(r"'descr': '[<>|=]?([?biufcSUV])(\d{1,6})'")
_SHAPE = re.compile(r"'shape': \(((?:\d{1,12}, ?)*(?:\d{1,12})?)\)")


@dataclass(frozen=True, slots=True)
class ArrayHeader:
    """What an array says of itself."""

    shape: tuple[int, ...]
    bytes: int


def read_headers(stream: BinaryIO) -> Mapping[str, ArrayHeader]:
    """The arrays of a check set by their names, as in "input/image". Raises ValueError, in words for people.

    Memory stays below 16 MiB, whatever the file says.
    """
    try:
        _require_small_directory(stream)
        with zipfile.ZipFile(stream) as archive:
            headers = {info.filename.removesuffix(".npy"): _header(archive, info) for info in archive.infolist()}
            if len(headers) < len(archive.infolist()):
                raise ValueError("it holds an array twice")
    except (OSError, EOFError, KeyError, RuntimeError, struct.error, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(str(error)[:200]) from None
    total = sum(header.bytes for header in headers.values())
    if total > MAX_BYTES:
        raise ValueError(f"its arrays hold {total:,} bytes, and a device takes {MAX_BYTES >> 20} MiB at most")
    return headers


def _require_small_directory(stream: BinaryIO) -> None:
    """The end record (APPNOTE.TXT 4.3.16) stands at the end, and no zip64 one before it: zipfile would go by that."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(size - _END.size - _LOCATOR_BYTES, 0))
    tail = stream.read()
    locator, end = tail[: -_END.size], tail[-_END.size :]
    if not end.startswith(b"PK\5\6") or not end.endswith(b"\0\0"):
        raise ValueError("it is no .npz")
    if locator.startswith(b"PK\6\7") or _END.unpack(end)[5] > MAX_DIRECTORY_BYTES:
        raise ValueError("its directory is larger than that of any check set")
    stream.seek(0)


def _header(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> ArrayHeader:
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # those whose output zipfile can limit
        raise ValueError(f"{info.filename[:80]!r} is compressed in a way that arrays are not")
    with archive.open(info) as stream:
        magic = stream.read(8)
        width = 2 if magic[6:7] == b"\x01" else 4
        length = int.from_bytes(stream.read(width), "little")
        text = stream.read(min(length, _MAX_HEADER_BYTES)).decode("latin-1")
    dtype, shape = _DTYPE.search(text), _SHAPE.search(text)
    if not magic.startswith(b"\x93NUMPY") or dtype is None or shape is None:
        raise ValueError(f"{info.filename[:80]!r} is no array of numbers")
    sizes = tuple(int(length) for length in re.findall(r"\d+", shape[1]))
    one = int(dtype[2]) * (4 if dtype[1] == "U" else 1)
    header = ArrayHeader(sizes, math.prod(sizes) * one)
    if info.file_size != len(magic) + width + length + header.bytes:
        raise ValueError(f"{info.filename[:80]!r} has another size than it says")
    return header
