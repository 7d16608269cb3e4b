"""Sets of samples in CSV files: a line names the columns, every other line is a sample.

Read as a stream, a line at a time; what is wrong is told with its line. The columns of each input come from ``inputs``
of ``[samples]`` (left out: ``x`` is every column but the label's, in their order), the label's from ``label`` (left
out: ``y``, or ``label``). The file is UTF-8; comma, semicolon or tab is found out from the line of names.
"""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack.errors import InputError
from edgepack.quantize.arrays import LABELS, SINGLE_INPUT, Port, SampleArray
from edgepack.quantize.labels import Labelling, labelling_of, listed, number_of
from edgepack.quantize.preprocessing import Preprocessing
from edgepack.quantize.reading import reading
from edgepack.strict_toml import nearest

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

SUFFIXES = (".csv", ".tsv")
_LABEL_COLUMNS = (LABELS, "label")


@dataclass(frozen=True, slots=True)
class CsvTable:
    """Columns of a CSV file as arrays: ``columns`` has their places by the name of the array.

    ``sorted_classes`` are the words of labels that were numbered by sorting them, because nobody stated their order.
    """

    path: Path
    arrays: tuple[SampleArray, ...]
    columns: tuple[tuple[str, tuple[int, ...]], ...]
    header: tuple[str, ...]
    labelling: Labelling
    sorted_classes: tuple[str, ...] = ()
    kind: str = "a CSV file"
    left_out: tuple[str, ...] = ()

    def fitted(self, inputs: Sequence[Port]) -> CsvTable:
        """A line is flat: it takes the model's shape where their sizes agree, and whole numbers stay whole."""
        ports = {port.name: port for port in inputs}
        if len(inputs) == 1:
            ports[SINGLE_INPUT] = inputs[0]
        arrays = (_fitted(array, ports.get(array.name)) for array in self.arrays)
        return dataclasses.replace(self, arrays=tuple(arrays))

    def read(self, names: Collection[str], start: int, stop: int, size: int) -> Iterator[dict[str, Array]]:
        """Raises InputError "bad-number", "bad-label", "broken-samples", each with its line."""
        wanted = [array for array in self.arrays if array.name in names]
        lines = iter(_lines(self.path))
        next(lines)  # the names of the columns
        for _ in range(start):
            next(lines, None)
        for first in range(start, stop, size):
            count = min(size, stop - first)
            chunk = [line for _, line in zip(range(count), lines, strict=False)]
            if len(chunk) < count:
                raise _changed(self.path)
            yield {array.name: self._numbers(array, chunk) for array in wanted}

    def _numbers(self, array: SampleArray, chunk: Sequence[tuple[int, list[str]]]) -> Array:
        import numpy as np

        places = dict(self.columns)[array.name]
        if array.name == LABELS:
            values = [self.labelling.number(line[places[0]], self._where(number, places[0])) for number, line in chunk]
            return np.array(values, np.float64).astype(array.dtype)
        texts = [[line[place] for place in places] for _, line in chunk]
        try:
            rows = np.array(texts, np.float64)
        except ValueError:
            rows = np.array([[math.nan]])
        if not np.isfinite(rows).all():  # once more, slowly, for the one that is to blame
            rows = np.array(
                [[number_of(line[place], self._where(number, place)) for place in places] for number, line in chunk]
            )
        if array.dtype == "<i8":
            self._require_whole(rows, places, chunk)
        return rows.astype(array.dtype).reshape(len(chunk), *(size or 1 for size in array.shape[1:]))

    def _require_whole(self, rows: Array, places: Sequence[int], chunk: Sequence[tuple[int, list[str]]]) -> None:
        import numpy as np

        broken = np.argwhere(rows != np.floor(rows))
        if len(broken):
            row, column = broken[0]
            raise InputError(
                "bad-number",
                f"{self._where(chunk[row][0], places[column])}: {rows[row, column]:g} is no whole number, "
                "which the model's input takes.",
                hint="Write whole numbers.",
            )

    def _where(self, line: int, column: int) -> str:
        return f"{self.path}, line {line}, column {self.header[column]!r}"


def open_csv(path: Path, preprocessing: Preprocessing) -> CsvTable:
    """The table of a CSV file; it is read through once, for the number of its lines and the words of its labels.

    Raises InputError "broken-samples", "bad-columns", "bad-label".
    """
    lines = iter(_lines(path))
    header = tuple(next(lines)[1])
    label = _label_column(path, header, preprocessing)
    inputs = _input_columns(path, header, label, preprocessing)
    rows, words = 0, set()
    for _, line in lines:
        rows += 1
        if label is not None:
            words.add(line[label])
    arrays = [SampleArray(name, (rows, len(places)), "<f8") for name, places in inputs]
    labelling = Labelling((), "<i8")
    if label is not None and words:
        labelling = labelling_of(words, preprocessing.classes, f"{path}, column {header[label]!r}")
        arrays.append(SampleArray(LABELS, (rows,), labelling.dtype))
        inputs.append((LABELS, (label,)))
    named = () if preprocessing.classes else labelling.classes
    return CsvTable(path, tuple(arrays), tuple(inputs), header, labelling, named)


def named_columns(path: Path, names: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Line number and these columns of every line. Raises InputError "bad-columns", "broken-samples"."""
    lines = iter(_lines(path))
    header = next(lines)[1]
    places = [_place(path, header, name) for name in names]
    for number, line in lines:
        yield number, [line[place] for place in places]


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields: first the names, then each sample; blank lines are passed over."""
    with reading(path), path.open(encoding="utf-8-sig", newline="") as file:
        try:
            first = file.readline()
        except UnicodeDecodeError as fault:
            raise _broken(path, 1, f"it is no UTF-8: {fault.reason}") from fault
        file.seek(0)
        delimiter = max(",;\t", key=first.count)
        reader = csv.reader(file, delimiter=delimiter, strict=True, skipinitialspace=True)
        header: list[str] = []
        try:
            for line in reader:
                if not any(field.strip() for field in line):
                    continue
                if not header:
                    header = [field.strip() for field in line]
                    _check_header(path, header)
                    yield reader.line_num, header
                    continue
                if len(line) != len(header):
                    raise _broken(
                        path, reader.line_num, f"there are {len(line)} fields, and {len(header)} columns have a name"
                    )
                yield reader.line_num, [field.strip() for field in line]
        except csv.Error as fault:
            raise _broken(path, reader.line_num, str(fault)) from fault
        except UnicodeDecodeError as fault:
            raise _broken(path, reader.line_num + 1, f"it is no UTF-8 from here on: {fault.reason}") from fault
        if not header:
            hint = "Write a line of names, then one for each sample."
            raise InputError("empty-samples", f"{path} is empty.", hint=hint)


def _check_header(path: Path, header: Sequence[str]) -> None:
    fault = ""
    if all(_is_number(name) for name in header):
        fault = f"the first line has to name the columns, and it holds numbers ({', '.join(header[:3])}, ...)"
    elif any("\0" in name for name in header):
        fault = "it holds null characters, as no text does"
    elif "" in header:
        fault = f"column {header.index('') + 1} has no name in the first line"
    elif doubles := sorted({name for name in header if header.count(name) > 1}):
        fault = f"two columns have the name {doubles[0]!r}"
    if fault:
        raise InputError(
            "bad-columns", f"{path}: {fault}.", hint="Begin the file with one line that gives each column its own name."
        )


def _label_column(path: Path, header: Sequence[str], preprocessing: Preprocessing) -> int | None:
    if preprocessing.label is not None:
        return _place(path, header, preprocessing.label)
    return next((header.index(name) for name in _LABEL_COLUMNS if name in header), None)


def _input_columns(
    path: Path, header: Sequence[str], label: int | None, preprocessing: Preprocessing
) -> list[tuple[str, tuple[int, ...]]]:
    if not preprocessing.inputs:
        return [(SINGLE_INPUT, tuple(place for place in range(len(header)) if place != label))]
    return [(name, tuple(_place(path, header, column) for column in columns)) for name, columns in preprocessing.inputs]


def _place(path: Path, header: Sequence[str], name: str) -> int:
    if name in header:
        return list(header).index(name)
    near = nearest(name, header, limit=1)
    raise InputError(
        "bad-columns",
        f"{path} has no column {name!r}; it has {listed(header)}." + (f" Did you mean {near[0]!r}?" if near else ""),
        hint="Name columns as the first line of the file does: label and inputs in [samples] of edgepack.toml.",
    )


def _fitted(array: SampleArray, port: Port | None) -> SampleArray:
    if port is None or array.name == LABELS:
        return array
    dtype = "<f8" if port.dtype.startswith("float") else "<i8"
    shape = array.shape
    inner = [size for size in port.shape[1:] if size is not None]
    if len(inner) == len(port.shape) - 1 and math.prod(inner) == array.shape[1]:
        shape = (array.shape[0], *inner)
    return dataclasses.replace(array, shape=shape, dtype=dtype)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _broken(path: Path, line: int, fault: str) -> InputError:
    return InputError(
        "broken-samples", f"{path}, line {line}: {fault}.", hint="Mend that line, or write the file again as UTF-8 CSV."
    )


def _changed(path: Path) -> InputError:
    return InputError("broken-samples", f"{path} has become shorter while it was read.", hint="Run again.")
