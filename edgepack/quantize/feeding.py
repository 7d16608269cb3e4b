"""What a model is fed where no samples were given, and its outputs row by row."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from edgepack.errors import MisfitError
from edgepack.quantize.arrays import Port
from edgepack.quantize.binding import read_batches
from edgepack.quantize.samples import Samples

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

# Synthetic rows stand in for samples where there are none; the seed makes a comparison repeatable.
_SEED = 20


def batches_of(samples: Samples | None, inputs: tuple[Port, ...], size: int, rows: int) -> Iterator[dict[str, Array]]:
    """The first ``rows`` of the samples, ``size`` at a time; invented ones where there are none."""
    return _synthetic(inputs, size, rows) if samples is None else read_batches(samples, inputs, size, rows)


def picked_batches(
    samples: Samples, inputs: tuple[Port, ...], size: int, wanted: Sequence[int]
) -> Iterator[dict[str, Array]]:
    """Of the samples, ``size`` at a time, the batches with these ascending numbers; all where none is named."""
    numbers = iter(wanted or itertools.count())
    place = next(numbers)
    rows = min(samples.rows, (wanted[-1] + 1) * size) if wanted else samples.rows
    for number, batch in enumerate(read_batches(samples, inputs, size, rows)):
        if number == place:
            yield batch
            place = next(numbers, -1)


def picked_rows(
    samples: Samples, inputs: tuple[Port, ...], size: int, picks: Sequence[int]
) -> Iterator[dict[str, Array]]:
    """Of the samples, ``size`` at a time, the rows with these ascending numbers, counted within the set."""
    import numpy as np

    if len(picks) == samples.rows:
        yield from read_batches(samples, inputs, size)
        return
    wanted, first = set(picks), 0
    held: dict[str, list[Array]] = {port.name: [] for port in inputs}
    for batch in read_batches(samples, inputs, size, picks[-1] + 1):
        count = len(next(iter(batch.values())))
        for place in range(count):
            if first + place in wanted:
                for name, rows in batch.items():
                    held[name].append(rows[place])
                if len(held[inputs[0].name]) == size or first + place == picks[-1]:
                    yield {name: np.stack(rows) for name, rows in held.items()}
                    held = {name: [] for name in held}
        first += count


def _synthetic(inputs: tuple[Port, ...], size: int, total: int) -> Iterator[dict[str, Array]]:
    """Normal numbers for float inputs, zeros for the rest (any index into a table exists); open sizes become 1."""
    import numpy as np

    draw = np.random.default_rng(_SEED)
    for first in range(0, total, size):
        count = min(size, total - first)
        shapes = {port.name: (count, *(1 if n is None else n for n in port.shape[1:])) for port in inputs}
        yield {
            port.name: draw.standard_normal(shapes[port.name]).astype(port.dtype)
            if port.dtype.startswith("float")
            else np.zeros(shapes[port.name], port.dtype)
            for port in inputs
        }


def by_row(values: Array, size: int) -> Array:
    """Outputs with one row per sample; what has no batch dimension belongs to the single sample that was run."""
    if values.ndim and values.shape[0] == size:
        return values
    if size != 1:
        raise MisfitError(
            "output-without-batch",
            f"The model gives an output of shape {list(values.shape)} for {size} samples, without a row for each.",
            hint="Pin the batch to 1.",
        )
    return values[None]
