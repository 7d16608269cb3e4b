"""Sets of samples: the grammar ``FILE#100:500``, `.npz` files and folders of `.npy`.

Opening reads headers only; nothing is ever unpickled. The rows are read by :mod:`edgepack.quantize.rows`.
"""

from __future__ import annotations

import dataclasses
import math
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from edgepack.errors import InputError

LABELS = "y"
SINGLE_INPUT = "x"
_RANGE = re.compile(r"([0-9]*):([0-9]*)")
_GRAMMAR = "FILE, or FILE#100:500 for the rows 100 to 499."
_ENCRYPTED = 0x1  # bit 0 of a ZIP entry's flags (APPNOTE.TXT 4.4.4)
_MOST_ROW_BYTES = 1 << 30


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
        return _row_bytes(self.shape, self.dtype)


@dataclass(frozen=True, slots=True)
class SampleArray:
    """Rows of one input or of the labels: a stored array, or several files with one sample each (``pieces``)."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    pieces: tuple[StoredArray, ...]
    stacked: bool

    @property
    def rows(self) -> int:
        """How many samples there are before a range is taken."""
        return self.shape[0]

    @property
    def row_bytes(self) -> int:
        """Bytes of one sample."""
        return _row_bytes(self.shape, self.dtype)


@dataclass(frozen=True, slots=True)
class Samples:
    """A set as it was written on the command line: its arrays by name and the rows ``start`` to ``stop`` of them."""

    text: str
    path: Path
    arrays: tuple[SampleArray, ...]
    start: int
    stop: int

    @property
    def rows(self) -> int:
        """How many samples the set has."""
        return self.stop - self.start

    def named(self, name: str) -> SampleArray | None:
        """The array of that name."""
        return next((array for array in self.arrays if array.name == name), None)

    @property
    def inputs(self) -> tuple[SampleArray, ...]:
        """What can be an input: ``x`` where it is there, else every array but the labels."""
        single = self.named(SINGLE_INPUT)
        return (single,) if single else tuple(array for array in self.arrays if array.name != LABELS)


def open_samples(text: str | Path) -> Samples:
    """The set of samples that ``text`` names; headers are read, contents are not.

    Raises InputError: "no-samples", "bad-range", "broken-samples", "object-array", "bad-samples", "empty-samples".
    """
    path, start, stop = parse_samples(str(text))
    if not path.exists():
        raise InputError("no-samples", f"There are no samples at {path}.", hint=f"Write {_GRAMMAR}")
    with reading(path):
        arrays = _open_folder(path) if path.is_dir() else _open_npz(path)
    rows = {array.rows for array in arrays if array.name == SINGLE_INPUT} or {
        array.rows for array in arrays if array.name != LABELS
    }
    count = max(rows, default=0)
    if count == 0:
        raise InputError("empty-samples", f"{path} holds no samples.", hint="Give at least one row.")
    stop = count if stop is None else stop
    if stop > count:
        raise InputError(
            "bad-range",
            f"{text} asks for rows up to {stop}, but {path} has {count}.",
            hint=f"Write {path}#{start}:{count}",
        )
    if start >= stop:
        raise InputError("empty-samples", f"{text} takes no rows.", hint=f"Write {_GRAMMAR}")
    return Samples(str(text), path, arrays, start, stop)


def parse_samples(text: str) -> tuple[Path, int, int | None]:
    """Path, first row and end row (None: to the end) of ``FILE`` or ``FILE#100:500``; a file's own # is left alone."""
    name, mark, span = text.rpartition("#")
    if not mark or Path(text).exists():
        return Path(text), 0, None
    matched = _RANGE.fullmatch(span)
    if not matched:
        raise InputError("bad-range", f"{text!r}: {span!r} is no range of rows.", hint=f"Write {_GRAMMAR}")
    first, last = matched.groups()
    return Path(name), int(first or 0), int(last) if last else None


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Whatever a damaged file makes numpy, zipfile and zlib raise becomes InputError."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, KeyError, NotImplementedError, RuntimeError) as fault:
        raise InputError(
            "broken-samples",
            f"{path} cannot be read as samples: {fault}.",
            hint="Write it again with numpy.savez(FILE, x=..., y=...).",
        ) from fault
    except OSError as fault:
        raise InputError(
            "no-samples", f"{path} cannot be read: {fault.strerror or fault}.", hint="Check path and permissions."
        ) from fault


def _open_npz(path: Path) -> tuple[SampleArray, ...]:
    if not zipfile.is_zipfile(path):
        raise InputError(
            "broken-samples",
            f"{path} is no .npz.",
            hint="Write it with numpy.savez(FILE, x=..., y=...), or name a folder.",
        )
    with zipfile.ZipFile(path) as archive:
        entries = [entry for entry in archive.infolist() if entry.filename.endswith(".npy")]
        arrays = [_npz_array(path, archive, entry) for entry in entries]
    return tuple(SampleArray(array.name, array.shape, array.dtype, (array,), False) for array in arrays if array)


def _npz_array(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> StoredArray | None:
    name = entry.filename.removesuffix(".npy")
    if entry.flag_bits & _ENCRYPTED:
        raise ValueError(f"{entry.filename} is encrypted")
    with archive.open(entry) as stream:
        array = read_header(stream, name, path, entry.filename)
        data_offset = stream.tell()
    if array is None:
        return None
    _check_length(array, entry.file_size - data_offset)
    if entry.compress_type != zipfile.ZIP_STORED:
        return array
    with path.open("rb") as file:  # a local header: 30 bytes, then name and extra field (APPNOTE.TXT 4.3.7)
        file.seek(entry.header_offset)
        local = file.read(30)
    lengths = int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little")
    return dataclasses.replace(array, offset=entry.header_offset + 30 + lengths + data_offset)


def _open_folder(path: Path) -> tuple[SampleArray, ...]:
    """A folder is an unpacked .npz, or one file per sample: docs/quantize.md says how the two are told apart."""
    files = [array for file in sorted(path.glob("*.npy")) if (array := _npy_array(file))]
    labels = next((file for file in files if file.name == LABELS), None)
    others = [file for file in files if file.name != LABELS]
    alike = len({(file.shape, file.dtype) for file in others}) == 1
    counted = labels is None or labels.shape[:1] == (len(others),)
    one_each = len(others) > 1 and alike and counted and all(file.name != SINGLE_INPUT for file in others)
    whole = [file for file in files if not one_each or file is labels]
    arrays = [SampleArray(file.name, file.shape, file.dtype, (file,), False) for file in whole if file.shape]
    if one_each:
        shape = (len(others), *others[0].shape)
        arrays.append(SampleArray(SINGLE_INPUT, shape, others[0].dtype, tuple(others), True))
    return tuple(arrays)


def _npy_array(path: Path) -> StoredArray | None:
    with path.open("rb") as stream:
        array = read_header(stream, path.stem, path, None)
        offset = stream.tell()
        end = stream.seek(0, 2)
    if array is None:
        return None
    _check_length(array, end - offset)
    return dataclasses.replace(array, offset=offset)


def read_header(stream: IO[bytes], name: str, path: Path, entry: str | None) -> StoredArray | None:
    """Shape and type of a .npy; None for text beside the samples; an object array is refused."""
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
    if dtype.kind in "US" and name not in (SINGLE_INPUT, LABELS):
        return None  # names of classes, say
    if dtype.kind not in "fiub":
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


def _check_length(array: StoredArray, length: int) -> None:
    wanted = (array.shape[0] if array.shape else 1) * array.row_bytes
    if length != wanted:
        raise ValueError(f"{array.name!r} of shape {list(array.shape)} needs {wanted} bytes, and {length} are there")


def _row_bytes(shape: tuple[int, ...], dtype: str) -> int:
    import numpy as np

    return math.prod(shape[1:]) * np.dtype(dtype).itemsize
