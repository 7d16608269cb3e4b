"""Sets of samples in numpy's own files: an .npz, or a folder of .npy; nothing is ever unpickled.

Opening reads headers only. Arrays are mapped where they lie plainly on the disk, and streamed out of compressed
archives, so that sets larger than memory pass through.
"""

from __future__ import annotations

import dataclasses
import zipfile
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from edgepack.errors import InputError
from edgepack.files import require_regular
from edgepack.quantize.arrays import LABELS, SINGLE_INPUT, Port, SampleArray, row_bytes
from edgepack.quantize.reading import reading

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

NPY_FOLDER = "a folder of .npy"
_ENCRYPTED = 0x1  # bit 0 of a ZIP entry's flags (APPNOTE.TXT 4.4.4)
_MOST_ROW_BYTES = 1 << 30
_SKIPPED_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class StoredArray:
    """Where one array lies: an ``entry`` of the .npz ``path``, or (entry None) a .npy file of its own."""

    name: str
    path: Path
    entry: str | None
    shape: tuple[int, ...]
    dtype: str
    fortran: bool
    # Where the data begins in ``path``; None where the archive has it compressed.
    offset: int | None

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return row_bytes(self.shape, self.dtype)


@dataclass(frozen=True, slots=True)
class ArrayFiles:
    """Arrays with the files that each is read from: one, or one for each sample."""

    kind: str
    stored: tuple[tuple[SampleArray, tuple[StoredArray, ...]], ...]
    left_out: tuple[str, ...] = ()

    @property
    def arrays(self) -> tuple[SampleArray, ...]:
        """All of them, text too."""
        return tuple(array for array, _ in self.stored)

    def fitted(self, inputs: Sequence[Port]) -> ArrayFiles:
        """These very arrays: they say themselves what they are."""
        return self

    def read(self, names: Collection[str], start: int, stop: int, size: int) -> Iterator[dict[str, Array]]:
        """Raises InputError "broken-samples" where a file ends early or a checksum does not fit."""
        streams = {
            array.name: _read_single(pieces, start, stop, size)
            if array.single
            else _read_whole(pieces[0], start, stop, size)
            for array, pieces in self.stored
            if array.name in names
        }
        for _ in range(start, stop, size):
            yield {name: next(stream) for name, stream in streams.items()}


def open_npz(path: Path) -> ArrayFiles:
    """The arrays of an .npz. Raises ValueError, zipfile.BadZipFile, InputError as :func:`read_header`."""
    with zipfile.ZipFile(path) as archive:
        entries = [entry for entry in archive.infolist() if entry.filename.endswith(".npy")]
        arrays = [_npz_array(path, archive, entry) for entry in entries]
    stored = ((SampleArray(array.name, array.shape, array.dtype), (array,)) for array in arrays if array.shape)
    return ArrayFiles("an .npz", tuple(stored))


def _npz_array(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> StoredArray:
    name = entry.filename.removesuffix(".npy")
    if entry.flag_bits & _ENCRYPTED:
        raise ValueError(f"{entry.filename} is encrypted")
    with archive.open(entry) as stream:
        array = read_header(stream, name, path, entry.filename)
        data_offset = stream.tell()
    _check_length(array, entry.file_size - data_offset)
    if entry.compress_type != zipfile.ZIP_STORED:
        return array
    with path.open("rb") as file:  # a local header: 30 bytes, then name and extra field (APPNOTE.TXT 4.3.7)
        file.seek(entry.header_offset)
        local = file.read(30)
    lengths = int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little")
    return dataclasses.replace(array, offset=entry.header_offset + 30 + lengths + data_offset)


def open_npy_folder(path: Path) -> ArrayFiles:
    """A folder is an unpacked .npz, or one file per sample: docs/quantize.md says how the two are told apart."""
    files = [_npy_array(file) for file in sorted(path.glob("*.npy"))]
    labels = next((file for file in files if file.name == LABELS), None)
    others = [file for file in files if file.name != LABELS and file.dtype[1] not in "US"]
    alike = len({(file.shape, file.dtype) for file in others}) == 1
    counted = labels is None or labels.shape[:1] == (len(others),)
    one_each = len(others) > 1 and alike and counted and all(file.name != SINGLE_INPUT for file in others)
    by_row = labels is not None and all(file.shape[:1] == labels.shape[:1] for file in others)
    if labels is not None and counted and not by_row and all(file.name != SINGLE_INPUT for file in others):
        refuse_odd_sample(path, others)
    whole = [file for file in files if not one_each or file is labels]
    stored: list[tuple[SampleArray, tuple[StoredArray, ...]]]
    stored = [(SampleArray(file.name, file.shape, file.dtype), (file,)) for file in whole if file.shape]
    if one_each:
        shape = (len(others), *others[0].shape)
        stored.append((SampleArray(SINGLE_INPUT, shape, others[0].dtype, single=True), tuple(others)))
    return ArrayFiles(NPY_FOLDER, tuple(stored))


def refuse_odd_sample(path: Path, files: Sequence[StoredArray]) -> None:
    """Raise InputError "odd-sample" where, of files that are a sample each, most are alike and some are not."""
    kinds = Counter((file.shape, file.dtype) for file in files).most_common(1)
    odd = [file for file in files if (file.shape, file.dtype) != kinds[0][0]] if kinds else []
    if not odd or len(files) < 3 or 2 * len(odd) >= len(files):
        return
    shape, dtype = kinds[0][0]
    first, *more = odd
    one, others = (first.shape, shape) if first.shape != shape else (first.dtype[1:], dtype[1:])
    besides = f" (and {len(more)} more are odd)" if more else ""
    raise InputError(
        "odd-sample",
        f"{path}: {first.path.name} is {_told(one)}{besides}, the others {_told(others)}.",
        hint="With one file for each sample, make it as the others are, or take it and its label out.",
    )


def _told(what: tuple[int, ...] | str) -> str:
    return what if isinstance(what, str) else str(list(what))


def _npy_array(path: Path) -> StoredArray:
    require_regular(path)
    with path.open("rb") as stream:
        array = read_header(stream, path.stem, path, None)
        offset = stream.tell()
        end = stream.seek(0, 2)
    _check_length(array, end - offset)
    return dataclasses.replace(array, offset=offset)


def read_header(stream: IO[bytes], name: str, path: Path, entry: str | None) -> StoredArray:
    """Shape and type of a .npy; an object array is refused, and text where numbers have to be."""
    import numpy as np

    version = np.lib.format.read_magic(stream)  # type: ignore[no-untyped-call]
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)  # type: ignore[no-untyped-call]
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)  # type: ignore[no-untyped-call]
    else:
        raise ValueError(f"{name} has the .npy version {version}")
    if dtype.hasobject:
        raise InputError(
            "object-array",
            f"{path}: the array {name!r} holds Python objects, which edgepack never unpickles.",
            hint="Save it as numbers: numpy.stack(list_of_arrays).astype('float32').",
        )
    if dtype.kind in "US" and name == LABELS:
        raise word_labels(path)
    text_elsewhere = dtype.kind in "US" and name != SINGLE_INPUT  # names of classes, say
    if dtype.kind not in "fiub" and not text_elsewhere:
        raise InputError(
            "bad-samples",
            f"{path}: the array {name!r} has the type {dtype}.",
            hint="Save real numbers: float32 or integers.",
        )
    array = StoredArray(
        name, path, entry, tuple(int(n) for n in shape), dtype.str, bool(fortran and len(shape) > 1), None
    )
    if array.row_bytes > _MOST_ROW_BYTES:
        raise InputError(
            "samples-too-large",
            f"{path}: one row of {name!r} takes {array.row_bytes} bytes.",
            hint="The first dimension has to count the samples.",
        )
    return array


def word_labels(place: str | Path) -> InputError:
    """What to say of labels that are words: only the model's outputs have an order of the classes."""
    return InputError(
        "bad-label",
        f"{place}: the labels are words, and have to be the numbers of the model's outputs.",
        hint="Number them in that order: classes = ['yes', 'no', ...]; y = [classes.index(word) for word in y]. Of a "
        "CSV file or a folder of images edgepack does it: classes = [...] in [samples] of edgepack.toml.",
    )


def _check_length(array: StoredArray, length: int) -> None:
    wanted = (array.shape[0] if array.shape else 1) * array.row_bytes
    if length != wanted:
        raise ValueError(f"{array.name!r} of shape {list(array.shape)} needs {wanted} bytes, and {length} are there")


def _read_whole(stored: StoredArray, start: int, stop: int, size: int) -> Iterator[Array]:
    with reading(stored.path):
        if stored.offset is None:
            yield from _read_compressed(stored, start, stop, size)
        elif stored.fortran:
            yield from _read_mapped(stored, start, stop, size)
        else:
            # Read, not mapped: what was mapped and touched counts as this process's memory.
            with stored.path.open("rb") as stream:
                stream.seek(stored.offset + start * stored.row_bytes)
                yield from _read_rows(stream, stored, start, stop, size)


def _read_rows(stream: IO[bytes], stored: StoredArray, start: int, stop: int, size: int) -> Iterator[Array]:
    import numpy as np

    for first in range(start, stop, size):
        count = min(size, stop - first)
        data = stream.read(count * stored.row_bytes)
        yield np.frombuffer(data, np.dtype(stored.dtype)).reshape(count, *stored.shape[1:])


def _read_mapped(stored: StoredArray, start: int, stop: int, size: int) -> Iterator[Array]:
    import numpy as np

    whole = np.memmap(stored.path, np.dtype(stored.dtype), "r", stored.offset or 0, stored.shape, "F")
    for first in range(start, stop, size):
        yield np.array(whole[first : min(first + size, stop)], order="C")


def _read_single(pieces: Sequence[StoredArray], start: int, stop: int, size: int) -> Iterator[Array]:
    import numpy as np

    for first in range(start, stop, size):
        rows = []
        for piece in pieces[first : min(first + size, stop)]:
            with reading(piece.path):
                rows.append(np.load(piece.path, allow_pickle=False))
        yield np.stack(rows)


def _read_compressed(stored: StoredArray, start: int, stop: int, size: int) -> Iterator[Array]:
    if stored.fortran:
        raise InputError(
            "samples-too-large",
            f"{stored.path}: {stored.name!r} is compressed in Fortran order, so that its rows cannot be streamed.",
            hint="Save numpy.ascontiguousarray(array).",
        )
    with zipfile.ZipFile(stored.path) as archive, archive.open(str(stored.entry)) as stream:
        read_header(stream, stored.name, stored.path, stored.entry)
        _skip(stream, start * stored.row_bytes)
        yield from _read_rows(stream, stored, start, stop, size)


def _skip(stream: IO[bytes], length: int) -> None:
    while length > 0:
        length -= len(stream.read(min(length, _SKIPPED_BYTES))) or length
