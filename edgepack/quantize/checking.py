"""What is wrong with sets of samples, found from the files alone, before minutes are spent on a conversion."""

from __future__ import annotations

import difflib
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgepack.errors import InputError
from edgepack.events import Event, Reporter
from edgepack.quantize.rows import chunk_rows, read_rows
from edgepack.quantize.samples import LABELS, SINGLE_INPUT, SampleArray, Samples

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_DIGEST_BYTES = 16

TOLERATED_SHARE = 0.01
"""Of the judging samples, each counted once, how many may be calibrated on as well: they flatter by a point at most."""


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of a model: its name, shape with the batch first (None where it is open) and dtype."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class CheckedSamples:
    """A set whose every row was read and found sound.

    ``rows`` has a digest of each row's inputs as float32, so that the same sample is recognized in another file, under
    another name or type; ``digest`` is that of all inputs as they are stored, names, shapes and types included.
    """

    samples: Samples
    rows: tuple[bytes, ...]
    digest: str


def check_content(samples: Samples, *, need_labels: bool, report: Reporter) -> CheckedSamples:
    """Read every row once, and refuse what is not finite.

    Raises InputError: "not-finite", "no-labels", "bad-samples", "broken-samples".
    """
    _check_labels(samples, need_labels)
    hashes = [hashlib.blake2b(digest_size=_DIGEST_BYTES) for _ in range(samples.rows)]
    whole = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for array in sorted(samples.inputs, key=lambda one: one.name):
        whole.update(repr((array.name, array.shape[1:], array.dtype, array.stacked)).encode())
        if array.rows < samples.stop:
            continue  # a table of names, say; if the model wants it after all, bind_inputs refuses it
        row = samples.start
        for rows in read_rows(array, samples.start, samples.stop, chunk_rows(array)):
            _require_finite(samples, array, rows, row)
            whole.update(rows.tobytes())
            for values in _as_float32(rows):
                hashes[row - samples.start].update(values.tobytes())
                row += 1
            report(Event("quantize", f"checking {samples.path.name}", row - samples.start, samples.rows, "samples"))
    return CheckedSamples(samples, tuple(one.digest() for one in hashes), whole.hexdigest())


def _as_float32(rows: Array) -> Array:
    import numpy as np

    with np.errstate(over="ignore"):
        return np.ascontiguousarray(rows, dtype=np.float32)


def _require_finite(samples: Samples, array: SampleArray, rows: Array, first: int) -> None:
    import numpy as np

    if rows.dtype.kind != "f":
        return
    bad = ~np.isfinite(_as_float32(rows)).reshape(len(rows), -1).all(axis=1)
    if bad.any():
        row = first + int(bad.argmax())
        raise InputError(
            "not-finite",
            f"{samples.path}: row {row} of {array.name!r} holds NaN, infinity or a number beyond float32.",
            hint="Remove or repair the row; one such value ruins every quantization range.",
            row=row,
        )


def _check_labels(samples: Samples, needed: bool) -> None:
    labels = samples.named(LABELS)
    if labels is None:
        if needed:
            have = ", ".join(array.name for array in samples.arrays) or "nothing"
            raise InputError(
                "no-labels", f"{samples.path} has no labels: the key y is missing (there is {have}).",
                hint="Save the labels as y: numpy.savez(FILE, x=..., y=...).",
            )  # fmt: skip
        return
    if labels.rows < samples.stop:
        raise InputError(
            "bad-samples",
            f"{samples.path} has {labels.rows} labels for {samples.stop} samples.",
            hint="One label a row.",
        )
    for rows in read_rows(labels, samples.start, samples.stop, chunk_rows(labels)):
        _require_finite(samples, labels, rows, samples.start)


def read_labels(samples: Samples, rows: int | None = None) -> Array | None:
    """The labels of the set's rows (or of its first ``rows``), [N] or one-hot [N, classes]; None where it has none."""
    labels = samples.named(LABELS)
    if labels is None:
        return None
    count = samples.rows if rows is None else rows
    (found,) = read_rows(labels, samples.start, samples.start + count, count)
    return found


def refuse_overlap(calibrating: CheckedSamples, judging: CheckedSamples) -> list[tuple[int, int]]:
    """Raise InputError "overlap" where rows that set the ranges also judge the result.

    Those are the rows of one file that stand in both ranges, and equal content, in one file or in two: more than one
    sample, and more than :data:`TOLERATED_SHARE` of those that judge. Returns the rows of fewer that look alike: real
    recordings repeat themselves (silence).
    """
    calibration, evaluation = calibrating.samples, judging.samples
    rows = {digest: row for row, digest in enumerate(calibrating.rows, calibration.start)}
    pairs = [(rows[digest], row) for row, digest in enumerate(judging.rows, evaluation.start) if digest in rows]
    shared = len({calibrating.rows[row - calibration.start] for row, _ in pairs})
    both = range(max(calibration.start, evaluation.start), min(calibration.stop, evaluation.stop))
    if both and calibration.path.samefile(evaluation.path):
        pairs = [(row, row) for row in both]
    elif shared < 2 or shared <= TOLERATED_SHARE * len(set(judging.rows)):
        return pairs
    shown = ", ".join(f"{a} = {b}" for a, b in pairs[:3]) + (", ..." if len(pairs) > 3 else "")
    raise InputError(
        "overlap",
        f"{evaluation.text} shares {len(pairs)} {'row' if len(pairs) == 1 else 'rows'} with the calibration "
        f"{calibration.text} ({shown}): an accuracy over them would flatter.",
        hint="Take rows apart, for example FILE#0:100 to calibrate and FILE#100:500 to evaluate.",
        rows=[list(pair) for pair in pairs[:100]],
    )


def bind_inputs(samples: Samples, inputs: Sequence[Port]) -> dict[str, SampleArray]:
    """Which array feeds which input.

    Raises InputError "bad-samples": a name, shape, type or count that does not fit the model.
    """
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
    near = difflib.get_close_matches(port.name, have, 1, 0.4)
    meant = f" Did you mean {near[0]!r}?" if near else ""
    or_x = " (or x)" if len(inputs) == 1 else ""
    return InputError(
        "bad-samples",
        f"{samples.path} has no array {port.name!r}{or_x}, which the model's input is called; "
        f"it has {', '.join(have)}.{meant}",
        hint="Name the arrays after the inputs: numpy.savez(FILE, "
        + ", ".join(f"{one.name}=..." for one in inputs) + ", y=...).",
        expected=[one.name for one in inputs], got=have,
    )  # fmt: skip


def _check_shape(samples: Samples, array: SampleArray, port: Port) -> None:
    wanted, got = port.shape[1:], array.shape[1:]
    if array.stacked and got[:1] == (1,) and len(got) == len(wanted) + 1:
        got = got[1:]
    fits = len(wanted) == len(got) and all(a in (None, b) for a, b in zip(wanted, got, strict=True))
    if not fits or array.rows < samples.stop:
        raise InputError(
            "bad-samples",
            f"{samples.path}: {array.name!r} has the shape {_shape(array.shape)}, "
            f"but the model's input {port.name!r} takes {_shape(('N', *wanted))}"
            + (f" with N of at least {samples.stop}." if fits else "."),
            hint="Reshape the samples as the model was trained: the samples first, then the input's own dimensions.",
            expected=list(port.shape), got=list(array.shape),
        )  # fmt: skip


def _shape(sizes: Sequence[object]) -> str:
    return "[" + ", ".join("any" if size is None else str(size) for size in sizes) + "]"


def _check_type(samples: Samples, array: SampleArray, port: Port) -> None:
    import numpy as np

    if not np.can_cast(np.dtype(array.dtype), np.dtype(port.dtype), "same_kind"):
        raise InputError(
            "bad-samples",
            f"{samples.path}: {array.name!r} is {np.dtype(array.dtype)}, "
            f"but the model's input {port.name!r} takes {port.dtype}.",
            hint=f"Save it as {port.dtype}: array.astype({port.dtype!r}).",
            expected=port.dtype, got=str(np.dtype(array.dtype)),
        )  # fmt: skip


def read_batches(
    samples: Samples, inputs: Sequence[Port], size: int, rows: int | None = None
) -> Iterator[dict[str, Array]]:
    """The inputs of the set's rows, ``size`` at a time, by input name, in the inputs' types; the last may be shorter.

    ``rows`` takes only the first so many.
    """
    bound = bind_inputs(samples, inputs)
    stop = samples.stop if rows is None else min(samples.stop, samples.start + rows)
    streams = {name: read_rows(array, samples.start, stop, size) for name, array in bound.items()}
    for _ in range(math.ceil((stop - samples.start) / size)):
        yield {port.name: _cast(next(streams[port.name]), port, samples) for port in inputs}


def _cast(rows: Array, port: Port, samples: Samples) -> Array:
    import numpy as np

    rows = rows.reshape(len(rows), *rows.shape[2:]) if rows.ndim == len(port.shape) + 1 else rows
    cast = np.ascontiguousarray(rows, dtype=port.dtype)
    if cast.dtype.kind in "iu" and not np.array_equal(cast, rows):
        raise InputError(
            "bad-samples",
            f"{samples.path}: numbers for {port.name!r} do not fit into {port.dtype}.",
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
