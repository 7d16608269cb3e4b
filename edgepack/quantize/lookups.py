"""Samples that hold a number beyond the table that the model looks it up in: a token outside the vocabulary."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from edgepack.errors import InputError, InternalError
from edgepack.quantize.binding import padded
from edgepack.quantize.samples import Samples

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]
    Run = Callable[[Mapping[str, Array]], dict[str, Array]]

# LiteRT's kernels (gather.cc, gather_nd.cc, embedding_lookup.cc), and TensorFlow's GatherV2 and GatherNd.
_BEYOND = re.compile(
    r"index out of bounds|= (?P<number>-?[0-9]+) is not in \[0, (?P<size>[0-9]+)\)|does not index into param shape"
)


def run_rows(run: Run, batch: Mapping[str, Array], size: int, samples: Samples | None, first: int) -> dict[str, Array]:
    """The outputs of a batch, filled up to ``size`` rows; ``first`` is its first row's number within the set.

    Raises InputError "index-out-of-range" where a row holds what the model cannot look up, and whatever ``run`` raises.
    """
    try:
        return run(padded(batch, size))
    except Exception as fault:  # TensorFlow raises anything
        if samples is None or not _BEYOND.search(str(fault)):
            raise
        raise _beyond(run, batch, size, samples, first) from fault


def _beyond(run: Run, batch: Mapping[str, Array], size: int, samples: Samples, first: int) -> InputError:
    row, said = _first_row(run, batch, size)
    looked_up = {name: rows[row] for name, rows in batch.items() if rows.dtype.kind in "iu"}
    values = looked_up or {name: rows[row] for name, rows in batch.items()}
    if said["number"] is not None:
        values = {name: one for name, one in values.items() if (one == int(said["number"])).any()} or values
    held = ", ".join(f"{name!r} holds {one.min():g} to {one.max():g}" for name, one in values.items())
    table = (
        "the model's table" if said["size"] is None else f"the model's table, which has 0 to {int(said['size']) - 1}"
    )
    number = samples.start + first + row
    return InputError(
        "index-out-of-range",
        f"{samples.place}: row {number} asks for what lies beyond {table}: there {held}.",
        hint="Correct the row, or leave it out; was it made with another vocabulary than the model's?",
        row=number,
    )


def _first_row(run: Run, batch: Mapping[str, Array], size: int) -> tuple[int, re.Match[str]]:
    """The first row that fails alone, and what is said of it."""
    for row in range(len(next(iter(batch.values())))):
        try:
            run(padded({name: rows[row : row + 1] for name, rows in batch.items()}, size))
        except Exception as fault:
            if said := _BEYOND.search(str(fault)):
                return row, said
            raise
    raise InternalError("no-such-row", "A batch of samples failed of which each row passes alone.")
