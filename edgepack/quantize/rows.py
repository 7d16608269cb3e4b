"""Rows of a set of samples, a few at a time: sets larger than memory pass through.

Arrays are mapped where they lie plainly on the disk, and streamed out of compressed archives.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

from edgepack.errors import InputError
from edgepack.quantize.samples import SampleArray, StoredArray, read_header, reading

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_CHUNK_BYTES = 16 << 20


def read_rows(array: SampleArray, start: int, stop: int, size: int) -> Iterator[Array]:
    """The rows ``start`` to ``stop``, ``size`` at a time (the last piece may be shorter).

    Raises InputError "broken-samples" where the file ends early or a checksum does not fit.
    """
    if array.stacked:
        yield from _read_stacked(array, start, stop, size)
        return
    stored = array.pieces[0]
    with reading(stored.path):
        if stored.offset is None:
            yield from _read_streamed(stored, start, stop, size)
            return
        import numpy as np

        order: Any = "F" if stored.fortran else "C"
        whole = np.memmap(stored.path, np.dtype(stored.dtype), "r", stored.offset, stored.shape, order)
        for first in range(start, stop, size):
            yield np.array(whole[first : min(first + size, stop)], order="C")


def _read_stacked(array: SampleArray, start: int, stop: int, size: int) -> Iterator[Array]:
    import numpy as np

    for first in range(start, stop, size):
        rows = []
        for piece in array.pieces[first : min(first + size, stop)]:
            with reading(piece.path):
                rows.append(np.load(piece.path, allow_pickle=False))
        yield np.stack(rows)


def _read_streamed(stored: StoredArray, start: int, stop: int, size: int) -> Iterator[Array]:
    import numpy as np

    if stored.fortran:
        raise InputError(
            "samples-too-large",
            f"{stored.path}: {stored.name!r} is compressed in Fortran order, so that its rows cannot be streamed.",
            hint="Save numpy.ascontiguousarray(array).",
        )
    with zipfile.ZipFile(stored.path) as archive, archive.open(str(stored.entry)) as stream:
        read_header(stream, stored.name, stored.path, stored.entry)
        _skip(stream, start * stored.row_bytes)
        for first in range(start, stop, size):
            count = min(size, stop - first)
            data = stream.read(count * stored.row_bytes)
            yield np.frombuffer(data, np.dtype(stored.dtype)).reshape(count, *stored.shape[1:])


def _skip(stream: IO[bytes], length: int) -> None:
    while length > 0:
        length -= len(stream.read(min(length, _CHUNK_BYTES))) or length


def chunk_rows(array: SampleArray) -> int:
    """How many rows make a piece that is worth reading at once: about 16 MB."""
    return max(1, _CHUNK_BYTES // max(1, array.row_bytes))
