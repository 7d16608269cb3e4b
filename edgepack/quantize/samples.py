"""Sets of samples: the grammar ``FILE#100:500``, and which kind of set a text names.

Opening reads headers, names of files and lines, no samples: those are read a few at a time, by whoever needs them. A
set is a frozen value; as text (:meth:`Samples.to_json`) it goes to another process, which opens it again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack.errors import InputError
from edgepack.quantize.arrayfiles import open_npy_folder, open_npz
from edgepack.quantize.arraynames import with_names
from edgepack.quantize.arrays import LABELS, SINGLE_INPUT, SampleArray, SampleStore
from edgepack.quantize.functions import SampleFunction, is_function, open_function
from edgepack.quantize.images import is_image_folder, open_image_folder
from edgepack.quantize.preprocessing import UNSTATED, Preprocessing, preprocessing_from
from edgepack.quantize.reading import reading
from edgepack.quantize.tables import SUFFIXES as CSV_SUFFIXES
from edgepack.quantize.tables import open_csv

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_RANGE = re.compile(r"([0-9]*):([0-9]*)")
_GRAMMAR = "FILE, FOLDER or module:function, and after it #100:500 for the rows 100 to 499."
_SAVE = "with numpy.savez(FILE, x=..., y=...)."
_KINDS = "Samples are an .npz, a CSV file, a folder of .npy or of images, or module:function."
_DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class Samples:
    """A set as it was written on the command line: where its arrays are, and the rows ``start`` to ``stop`` of them.

    ``place`` is the text without its range. ``content`` is what :func:`content_digest` makes of its rows, once they
    have been read: a function that gives others the next time is found out by it.
    """

    text: str
    place: str
    store: SampleStore
    start: int
    stop: int
    preprocessing: Preprocessing
    content: str = ""

    @property
    def name(self) -> str:
        """What to call it where there is little room."""
        return Path(self.place).name

    @property
    def rows(self) -> int:
        """How many samples the set has."""
        return self.stop - self.start

    @property
    def arrays(self) -> tuple[SampleArray, ...]:
        """Everything that the set holds."""
        return self.store.arrays

    def named(self, name: str) -> SampleArray | None:
        """The array of that name."""
        return next((array for array in self.arrays if array.name == name), None)

    @property
    def inputs(self) -> tuple[SampleArray, ...]:
        """What can be an input: ``x`` where it is there, else every array but labels and text."""
        single = self.named(SINGLE_INPUT)
        return (single,) if single else tuple(a for a in self.arrays if a.name != LABELS and not a.is_text)

    def is_of(self, other: Samples) -> bool:
        """Whether both take rows of the same file, folder or function."""
        one, two = (samples.place for samples in (self, other))
        if isinstance(self.store, SampleFunction) or isinstance(other.store, SampleFunction):
            return one == two
        return Path(one).samefile(two)

    def after(self, first: int) -> Samples:
        """The rows from that one on, counted within the set; part of a set is held against no digest."""
        return dataclasses.replace(self, start=self.start + first, content="") if first else self

    def read(self, names: Collection[str], size: int, rows: int | None = None) -> Iterator[dict[str, Array]]:
        """The arrays of these names, ``size`` rows at a time (the last piece may be shorter); ``rows``: the first only.

        Raises InputError about what cannot be read, and "unsteady-samples".
        """
        stop = self.stop if rows is None else min(self.stop, self.start + rows)
        if isinstance(self.store, SampleFunction) and self.content:
            return self._read_held(names, size, stop)
        return self.store.read(names, self.start, stop, size)

    def _read_held(self, names: Collection[str], size: int, stop: int) -> Iterator[dict[str, Array]]:
        """Read, and at the end hold what was read against ``content``."""
        inputs = [array.name for array in self.inputs]
        digests: list[bytes] = []
        for batch in self.store.read({*names, *inputs}, self.start, stop, size):
            digests += row_digests({name: batch[name] for name in inputs})
            yield {name: batch[name] for name in names}
        if stop == self.stop and content_digest(digests) != self.content:
            raise InputError(
                "unsteady-samples",
                f"{self.place} gives other samples each time it is called.",
                hint="Give the same ones in the same order: no shuffling, and a fixed seed for whatever is random.",
            )

    def to_json(self) -> str:
        """The text that :func:`samples_from_json` opens again, in another process."""
        return json.dumps(
            {
                "place": self.place, "start": self.start, "stop": self.stop, "text": self.text,
                "count": max(array.rows for array in self.arrays), "content": self.content,
                "preprocessing": self.preprocessing.to_json(),
            }
        )  # fmt: skip


def open_samples(text: str | Path, preprocessing: Preprocessing = UNSTATED) -> Samples:
    """The set of samples that ``text`` names.

    Raises InputError: "no-samples", "bad-range", "broken-samples", "object-array", "bad-samples", "empty-samples", and
    what the modules of the kinds say.
    """
    place, start, stop = parse_samples(str(text))
    store = _open_store(place, stop, preprocessing)
    count = _count(store)
    if count == 0:
        raise InputError("empty-samples", f"{place} holds no samples.", hint="Give at least one row.")
    stop = count if stop is None else stop
    if stop > count:
        raise InputError(
            "bad-range",
            f"{text} asks for rows up to {stop}, but {place} has {count}.",
            hint=f"Write {place}#{min(start, count - 1)}:{count}",
        )
    if start >= stop:
        raise InputError(
            "empty-samples", f"{text} takes no rows: {place} has {count}.", hint=f"Write {place}#0:{count}"
        )
    return Samples(str(text), place, store, start, stop, preprocessing)


def samples_from_json(text: str) -> Samples:
    """The set that :meth:`Samples.to_json` wrote down. Raises as :func:`open_samples`, and where it has changed."""
    value = json.loads(text)
    preprocessing = preprocessing_from(value["preprocessing"])
    store = _open_store(value["place"], value["stop"], preprocessing)
    if not isinstance(store, SampleFunction) and _count(store) != value["count"]:
        raise InputError(
            "broken-samples", f"{value['place']} has changed while it was read.", hint="Run again, and leave it alone."
        )
    return Samples(value["text"], value["place"], store, value["start"], value["stop"], preprocessing, value["content"])


def parse_samples(text: str) -> tuple[str, int, int | None]:
    """Place, first row and end row (None: to the end) of ``FILE`` or ``FILE#100:500``; a file's own # is left alone."""
    place, mark, span = text.rpartition("#")
    if not mark or Path(text).exists():
        return text, 0, None
    matched = _RANGE.fullmatch(span)
    if not matched:
        raise InputError("bad-range", f"{text!r}: {span!r} is no range of rows.", hint=f"Write {_GRAMMAR}")
    first, last = matched.groups()
    return place, int(first or 0), int(last) if last else None


def row_digests(batch: Mapping[str, Array]) -> list[bytes]:
    """One digest for each row of a batch: of its inputs as float32, in the order of their names.

    So the same sample is recognized in another file, under another name or type.
    """
    import numpy as np

    with np.errstate(over="ignore"):
        arrays = [np.ascontiguousarray(batch[name], dtype=np.float32) for name in sorted(batch)]
    hashes = [hashlib.blake2b(digest_size=_DIGEST_BYTES) for _ in arrays[0]]
    for array in arrays:
        for one, values in zip(hashes, array, strict=True):
            one.update(values.tobytes())
    return [one.digest() for one in hashes]


def content_digest(digests: Sequence[bytes]) -> str:
    """One digest of all rows, in their order."""
    return hashlib.blake2b(b"".join(digests), digest_size=_DIGEST_BYTES).hexdigest()


def _open_store(place: str, stop: int | None, preprocessing: Preprocessing) -> SampleStore:
    path = Path(place)
    if not path.exists() and is_function(place):
        return open_function(place, stop)
    if not path.exists():
        raise InputError("no-samples", f"There are no samples at {path}.", hint=f"Check the path. {_KINDS}")
    with reading(path):
        if path.is_dir():
            return _open_folder(path, preprocessing)
        if path.suffix.lower() in CSV_SUFFIXES:
            return open_csv(path, preprocessing)
        _refuse_other(path)
        return with_names(open_npz(path), preprocessing)


def _open_folder(path: Path, preprocessing: Preprocessing) -> SampleStore:
    if any(path.glob("*.npy")):
        return with_names(open_npy_folder(path), preprocessing)
    if is_image_folder(path):
        return open_image_folder(path, preprocessing)
    what = "a SavedModel" if (path / "saved_model.pb").exists() else "a folder without .npy files and without images"
    raise InputError("empty-samples", f"{path} holds no samples: it is {what}.", hint=_KINDS)


def _count(store: SampleStore) -> int:
    """Rows of ``x``; else the most that an array has which may be an input."""
    rows = {array.rows for array in store.arrays if array.name == SINGLE_INPUT} or {
        array.rows for array in store.arrays if array.name != LABELS and not array.is_text
    }
    return max(rows, default=0)


def _refuse_other(path: Path) -> None:
    """Say of a file that is no .npz what it is."""
    with path.open("rb") as stream:
        head = stream.read(8)
    if not zipfile.is_zipfile(path):
        what = "no .npz"
        if head.startswith(b"\x89HDF\r\n\x1a\n"):
            what = "an HDF5 file, a Keras model most likely, and no samples"
        elif head[4:8] == b"TFL3":
            what = "a .tflite, which is a model and no samples"
        elif head.startswith(b"PK\x03\x04"):
            raise InputError(
                "broken-samples", f"{path} is cut off or damaged.", hint=f"Copy it again, or write it {_SAVE}"
            )
        elif head.startswith(b"\x93NUMPY"):
            what = "a single .npy: put it into a folder as x.npy, with the labels beside it as y.npy"
        hint = f"Write it {_SAVE} {_KINDS}"
        raise InputError("broken-samples", f"{path} is {what}.", hint=hint)
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if not any(name.endswith(".npy") for name in names):
        keras = "config.json" in names and any(name.endswith(".h5") for name in names)
        what = "a Keras model" if keras else f"a ZIP archive without arrays ({', '.join(names[:3]) or 'empty'})"
        raise InputError("empty-samples", f"{path} holds no samples: it is {what}.", hint=_KINDS)
