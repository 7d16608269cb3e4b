"""Which array of a set feeds which input of the model, and its rows in the inputs' shapes and types."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack.errors import InputError
from edgepack.quantize.arrayfiles import NPY_FOLDER, ArrayFiles, refuse_odd_sample
from edgepack.quantize.arrays import LABELS, SINGLE_INPUT, Port, SampleArray
from edgepack.quantize.images import ImageFolder
from edgepack.quantize.samples import Samples
from edgepack.quantize.tables import CsvTable

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


def fit_samples(samples: Samples, inputs: Sequence[Port]) -> Samples:
    """The set in the shapes and types of the model's inputs, where these are the model's to say; checked against them.

    Raises InputError "bad-samples": a name, shape, type or count that does not fit the model; "no-size".
    """
    fitted = dataclasses.replace(samples, store=samples.store.fitted(inputs))
    bind_inputs(fitted, inputs)
    return fitted


def bind_inputs(samples: Samples, inputs: Sequence[Port]) -> dict[str, SampleArray]:
    """Which array of a fitted set feeds which input. Raises InputError "bad-samples"."""
    bound = {}
    for port in inputs:
        array = samples.named(port.name)
        if array is None and len(inputs) == 1:
            array = samples.named(SINGLE_INPUT)
        if array is None:
            raise _unknown_name(samples, port, inputs)
        _check_shape(samples, array, port)
        _check_type(samples, array, port)
        bound[port.name] = array
    return bound


def _unknown_name(samples: Samples, port: Port, inputs: Sequence[Port]) -> InputError:
    have = [array.name for array in samples.arrays]
    if isinstance(samples.store, ArrayFiles) and samples.store.kind == NPY_FOLDER and len(inputs) == 1:
        files = [files[0] for array, files in samples.store.stored if array.name != LABELS]
        refuse_odd_sample(Path(samples.place), files)
    # What another input is called by is not misspelt.
    free = [name for name in have if name not in {LABELS, *(one.name for one in inputs)}]
    near = difflib.get_close_matches(port.name, free, 1, 0.4)
    meant = f" {near[0]!r} looks like it: rename it." if near else ""
    or_x = " (or x)" if len(inputs) == 1 else ""
    names = [one.name for one in inputs]
    match samples.store:
        case CsvTable():
            hint = "Name the columns of each input: [samples.inputs] of edgepack.toml, " + ", ".join(
                f"{name} = [...]" for name in names
            )
        case ArrayFiles():
            listed = ", ".join(f"{name}=..." for name in names)
            array = free[0] if free else "ARRAY"
            hint = (
                f"Name the arrays after the inputs: numpy.savez(FILE, {listed}, y=...); or map them in edgepack.toml: "
                f'[samples.inputs] {port.name} = ["{array}"].'
            )
        case _:
            listed = ", ".join(f"{name!r}: ..." for name in names)
            hint = f"Name the arrays after the inputs: yield {{{listed}, 'y': ...}}."
    return InputError(
        "bad-samples",
        f"{samples.place} has no array {port.name!r}{or_x}, which the model's input is called; "
        f"it has {', '.join(have)}.{meant}",
        hint=hint, expected=names, got=have,
    )  # fmt: skip


def _check_shape(samples: Samples, array: SampleArray, port: Port) -> None:
    wanted, got = port.shape[1:], array.shape[1:]
    if array.single and got[:1] == (1,) and len(got) == len(wanted) + 1:
        got = got[1:]
    if len(wanted) != len(got) or not all(a in (None, b) for a, b in zip(wanted, got, strict=True)):
        raise InputError(
            "bad-samples",
            f"{samples.place}: {array.name!r} has the shape {_shape(array.shape)}, "
            f"but the model's input {port.name!r} takes {_shape(('N', *wanted))}.",
            hint=_shape_hint(samples),
            input=port.name, expected=list(port.shape), got=list(array.shape),
        )  # fmt: skip
    if array.rows < samples.stop:
        raise InputError(
            "bad-samples",
            f"{samples.place}: {array.name!r} has {array.rows} rows, and {samples.stop} are wanted: every array of a "
            f"set ({', '.join(f'{one.name} {one.rows}' for one in samples.arrays)}) needs a row for each sample.",
            hint=f"Save as many rows of {array.name!r}, or take fewer: {samples.place}#0:{array.rows}",
            expected=samples.stop, got=array.rows,
        )  # fmt: skip


def _shape_hint(samples: Samples) -> str:
    match samples.store:
        case ImageFolder():
            return "Correct size and colors in [samples] of edgepack.toml, or leave them out: the model has its own."
        case CsvTable():
            return "Say which columns are the input: [samples.inputs] x = [...] in edgepack.toml."
        case _:
            return "Reshape the samples as the model was trained: the samples first, then the input's own dimensions."


def _shape(sizes: Sequence[object]) -> str:
    return "[" + ", ".join("any" if size is None else str(size) for size in sizes) + "]"


def _check_type(samples: Samples, array: SampleArray, port: Port) -> None:
    import numpy as np

    if array.is_text:
        raise InputError(
            "bad-samples",
            f"{samples.place}: {array.name!r} is text ({np.dtype(array.dtype)}), "
            f"and the model's input {port.name!r} takes {port.dtype}.",
            hint="Save the numbers that the model was trained with.",
        )
    if not np.can_cast(np.dtype(array.dtype), np.dtype(port.dtype), "same_kind"):
        raise InputError(
            "bad-samples",
            f"{samples.place}: {array.name!r} is {np.dtype(array.dtype)}, "
            f"but the model's input {port.name!r} takes {port.dtype}.",
            hint=f"Save it as {port.dtype}: array.astype({port.dtype!r})."
            if not isinstance(samples.store, ImageFolder)
            else "Such a model takes pixels as they are: range = [0, 255] in [samples], without mean and std.",
            expected=port.dtype, got=str(np.dtype(array.dtype)),
        )  # fmt: skip


def read_batches(
    samples: Samples, inputs: Sequence[Port], size: int, rows: int | None = None
) -> Iterator[dict[str, Array]]:
    """The inputs of the set's rows, ``size`` at a time, by input name, in the inputs' types; the last may be shorter.

    ``rows`` takes only the first so many.
    """
    fitted = fit_samples(samples, inputs)
    bound = {name: array.name for name, array in bind_inputs(fitted, inputs).items()}
    for batch in fitted.read(set(bound.values()), size, rows):
        yield {port.name: _cast(batch[bound[port.name]], port, samples) for port in inputs}


def _cast(rows: Array, port: Port, samples: Samples) -> Array:
    import numpy as np

    rows = rows.reshape(len(rows), *rows.shape[2:]) if rows.ndim == len(port.shape) + 1 else rows
    cast = np.ascontiguousarray(rows, dtype=port.dtype)
    if cast.dtype.kind in "iu" and not np.array_equal(cast, rows):
        raise InputError(
            "bad-samples",
            f"{samples.place}: numbers for {port.name!r} do not fit into {port.dtype}.",
            hint="Save them in range.",
        )
    return cast


def padded(batch: Mapping[str, Array], size: int) -> dict[str, Array]:
    """The batch with its last row repeated until it has ``size`` rows."""
    import numpy as np

    return {
        name: rows if len(rows) == size else np.concatenate([rows, np.repeat(rows[-1:], size - len(rows), axis=0)])
        for name, rows in batch.items()
    }
