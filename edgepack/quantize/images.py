"""Sets of samples in folders of pictures, decoded and scaled as ``[samples]`` of edgepack.toml says.

Sub-folders are classes, ``labels.csv`` (columns ``file`` and ``label``) says otherwise, and a folder of pictures with
neither has no labels. Samples are taken from the classes in turn, so that any range of rows has a share of each.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack.errors import InputError
from edgepack.files import require_regular
from edgepack.quantize.arrays import LABELS, SINGLE_INPUT, Port, SampleArray
from edgepack.quantize.labels import labelling_of
from edgepack.quantize.preprocessing import COLORS, Preprocessing
from edgepack.quantize.tables import named_columns

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

LABELS_FILE = "labels.csv"
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
_SILENT = ("thumbs.db", "desktop.ini", LABELS_FILE)  # what file managers leave, and what is no picture on purpose
_WORKERS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """Pictures by their names below ``path``. ``shape`` and ``dtype`` are those that the model takes.

    While the model is not known (``shape`` None), each picture comes at its own size, as uint8 RGB. ``sorted_classes``
    are the names that were numbered by sorting them, because nobody stated their order.
    """

    path: Path
    files: tuple[str, ...]
    labels: tuple[float, ...] | None
    label_dtype: str
    preprocessing: Preprocessing
    left_out: tuple[str, ...] = ()
    sorted_classes: tuple[str, ...] = ()
    shape: tuple[int, int, int] | None = None
    dtype: str = "<f4"
    kind: str = "a folder of images"

    @property
    def arrays(self) -> tuple[SampleArray, ...]:
        """The pictures as ``x``, the labels as ``y``."""
        count = len(self.files)
        pictures = SampleArray(SINGLE_INPUT, (count, *(self.shape or (None, None, None))), self.dtype)
        if self.labels is None:
            return (pictures,)
        return pictures, SampleArray(LABELS, (count,), self.label_dtype)

    def fitted(self, inputs: Sequence[Port]) -> ImageFolder:
        """With the size and the colours of the model's input, where they are not stated.

        Raises InputError "bad-samples" where the model takes no pictures, "no-size" where nobody says how large.
        """
        port = self._image_port(inputs)
        options = self.preprocessing
        colors = options.colors or ("gray" if port.shape[3] == 1 else "rgb")
        channels = COLORS[colors]
        height, width = options.size or port.shape[1:3]
        if height is None or width is None:
            raise InputError(
                "no-size",
                f"The model takes images of any size, and {self.path} needs one.",
                hint="Write size = [height, width] into [samples] of edgepack.toml.",
            )
        if any(len(numbers) not in (0, 1, channels) for numbers in (options.mean, options.std)):
            raise InputError(
                "bad-samples",
                f"mean and std of [samples] are for 3 colours, and the model's input {port.name!r} takes {channels}.",
                hint="Give one number for each, or colors.",
            )
        plain = options.range == (0.0, 255.0) and not options.mean and not options.std
        dtype = port.dtype if plain and not port.dtype.startswith("float") else "<f4"
        chosen = dataclasses.replace(options, colors=colors)
        return dataclasses.replace(self, preprocessing=chosen, shape=(height, width, channels), dtype=dtype)

    def _image_port(self, inputs: Sequence[Port]) -> Port:
        """The one input, which takes pictures."""
        if len(inputs) == 1 and len(inputs[0].shape) == 4 and inputs[0].shape[3] in (None, 1, 3):
            return inputs[0]
        shapes = " and ".join(
            "[" + ", ".join(["N", *("any" if size is None else str(size) for size in port.shape[1:])]) + "]"
            for port in inputs
        )
        raise InputError(
            "bad-samples",
            f"{self.path} is a folder of images, [N, height, width, 1 or 3], and the model takes {shapes}.",
            hint="Write a function that gives samples as the model takes them: --calibration module:function",
        )

    def read(self, names: Collection[str], start: int, stop: int, size: int) -> Iterator[dict[str, Array]]:
        """Raises InputError "bad-image" with the file that is to blame."""
        import numpy as np

        pictures = self._pictures(start, stop) if SINGLE_INPUT in names else iter(())
        for first in range(start, stop, size):
            last = min(first + size, stop)
            rows: dict[str, Array] = {}
            if SINGLE_INPUT in names:
                rows[SINGLE_INPUT] = np.stack(list(itertools.islice(pictures, last - first)))
            if LABELS in names and self.labels is not None:
                rows[LABELS] = np.array(self.labels[first:last], np.float64).astype(self.label_dtype)
            yield rows

    def _pictures(self, start: int, stop: int) -> Iterator[Array]:
        """In order, decoded by several threads (Pillow lets go of Python's lock), a few ahead."""
        from edgepack.quantize.pictures import decoder

        decode = decoder(self.preprocessing, self.shape, self.dtype)
        return _ahead(decode, (self.path / name for name in self.files[start:stop]))


def open_image_folder(path: Path, preprocessing: Preprocessing) -> ImageFolder:
    """The pictures of a folder; their names are read, they are not.

    Raises InputError "no-range" where nobody says what pixels become, "bad-samples", "bad-label", "bad-columns".
    """
    if preprocessing.range is None:
        raise InputError(
            "no-range",
            f"{path} is a folder of images, and nothing says which numbers the model was trained with.",
            hint="Write [samples] range = [0.0, 1.0] into edgepack.toml if training divided pixels by 255, [-1.0, 1.0] "
            "as MobileNet takes them, or [0.0, 255.0] if the model takes pixels as they are.",
        )
    if (path / LABELS_FILE).is_file():
        return _listed(path, preprocessing)
    classes = sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    own, beside = _images(path, path)
    inside = {folder.name: _images(folder, path) for folder in classes}
    left_out = (*beside, *(name for _, names in inside.values() for name in names))
    if not any(images for images, _ in inside.values()):
        folders = [f"{folder.name}/" for folder in classes]
        return ImageFolder(path, tuple(own), None, "<i8", preprocessing, (*folders, *left_out))
    if own:
        raise InputError(
            "bad-samples",
            f"{path} holds images ({own[0]}, ...) beside sub-folders of images.",
            hint="Sub-folders are classes: put every image into one, or write labels.csv.",
        )
    numbers = _folder_numbers(path, {name: len(images) for name, (images, _) in inside.items()}, preprocessing)
    in_turn = itertools.zip_longest(*([(name, numbers[folder]) for name in inside[folder][0]] for folder in inside))
    rows = [row for turn in in_turn for row in turn if row is not None]
    files, labels = tuple(name for name, _ in rows), tuple(float(number) for _, number in rows)
    named = () if preprocessing.classes else tuple(numbers)
    return ImageFolder(path, files, labels, "<i8", preprocessing, left_out, named)


def is_image_folder(path: Path) -> bool:
    """Whether pictures lie in the folder or one below."""
    places = [path, *(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))]
    return any(entry.suffix.lower() in SUFFIXES for place in places for entry in place.iterdir())


def _images(folder: Path, root: Path) -> tuple[list[str], list[str]]:
    """The names below ``root`` of the pictures in a folder, sorted, and of what is none; no sub-folder is entered.

    Raises InputError "not-a-file" about a pipe that is called like a picture.
    """
    images: list[str] = []
    others: list[str] = []
    for entry in sorted(folder.iterdir()):
        name = entry.relative_to(root).as_posix()
        if entry.name.startswith(".") or entry.name.lower() in _SILENT or (folder == root and entry.is_dir()):
            continue
        if entry.suffix.lower() not in SUFFIXES or entry.is_dir():
            others.append(name)
            continue
        require_regular(entry)
        images.append(name)
    return images, others


def _folder_numbers(path: Path, counts: dict[str, int], preprocessing: Preprocessing) -> dict[str, int]:
    """The label of each sub-folder: its place in ``classes``, else among the sorted names, as Keras numbers them."""
    if preprocessing.classes:
        labelling = labelling_of(counts, preprocessing.classes, str(path))
        return {name: int(labelling.number(name, f"{path / name}")) for name in counts}
    empty = [name for name, count in counts.items() if not count]
    hint = "Write classes = [...] into [samples] of edgepack.toml, in the order of the model's outputs"
    if empty:
        raise InputError(
            "bad-label",
            f"{path / empty[0]} holds no images: whether it counts as a class decides every label after it.",
            hint=f"Remove it. Or: {hint[0].lower()}{hint[1:]}.",
        )
    for number, name in enumerate(counts):
        if name.isdecimal() and int(name) != number:
            raise InputError(
                "bad-label",
                f"{path}: the sub-folder {name!r} has the place {number} among the sorted names: "
                f"is its label {name} or {number}?",
                hint=f"{hint}.",
            )
    return {name: number for number, name in enumerate(counts)}


def _listed(path: Path, preprocessing: Preprocessing) -> ImageFolder:
    """The pictures that labels.csv names, in its order."""
    listing = path / LABELS_FILE
    lines = list(named_columns(listing, ["file", "label"]))
    for number, (name, _) in lines:
        if not (path / name).is_file():
            fault = f"{listing}, line {number}: there is no {path / name}."
            raise InputError("no-samples", fault, hint="Mend the line, or remove it.")
    labelling = labelling_of((label for _, (_, label) in lines), preprocessing.classes, str(listing))
    labels = tuple(labelling.number(label, f"{listing}, line {number}") for number, (_, label) in lines)
    files = tuple(name for _, (name, _) in lines)
    named = () if preprocessing.classes else labelling.classes
    return ImageFolder(path, files, labels, labelling.dtype, preprocessing, (), named)


def _ahead(work: Callable[[Path], Callable[[], Array]], paths: Iterator[Path]) -> Iterator[Array]:
    """What ``work`` gives for each path, in order: it opens here, and what it returns runs in a few threads."""
    waiting: deque[Future[Array]] = deque()
    with ThreadPoolExecutor(_WORKERS) as pool:
        try:
            for path in paths:
                waiting.append(pool.submit(work(path)))
                if len(waiting) > _WORKERS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
