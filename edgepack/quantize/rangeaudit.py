"""What calibration samples do to activation ranges: which rows alone stretch one, and whether there are enough rows.

Min-max calibration gives each tensor the range of everything that it has ever held: one odd sample makes every step of
an int8 scale coarser for all the others, and too few samples cut off what the model meets later.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack.documents import Finding
from edgepack.errors import MisfitError
from edgepack.hostruntime import HostModel
from edgepack.tflite import read_model

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

STRETCH = 1.5
"""A row that makes a range by this factor wider than all the others do costs it 0.6 of a bit. Of the 100 calibration
rows of MLPerf Tiny's keyword spotting the widest does 1.3."""

STRETCH_OF_FEW = 3.0
"""Among fewer than 100 rows each one counts for more: of 300 random sets of 16 such rows 3 % have a row that does 3,
and nearly half one that does 1.5; of sets of 100 rows 3 % have one that does 1.5."""

STILL_GROWING = 0.25
"""Ranges that are by more than this wider with all rows than on average with half of them have not been seen whole. Of
300 random sets of 100 rows of keyword spotting 1 % do so much (0.14 in the median), of sets of 16 every second."""

_LOWS, _HIGHS = "lows.npy", "highs.npy"
_FEWEST_ROWS = 8
_MANY_ROWS = 100
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Ranges:
    """The least and the largest number [runs, tensors] that each float tensor held in each run; tensors by name.

    A run is one row of the samples, or ``rows_per_run`` where the model's batch is pinned to more. ``runs`` are their
    numbers where not all were observed, () where they were. Tensors that hold nothing after a run (a loop's outputs
    that nobody reads) are left out.
    """

    tensors: tuple[str, ...]
    lows: Array
    highs: Array
    rows_per_run: int = 1
    runs: tuple[int, ...] = ()


def observe_ranges(
    model: Path, batches: Callable[[int], Iterable[Mapping[str, Array]]], runs: tuple[int, ...] = ()
) -> Ranges:
    """Run a float .tflite over ``batches(size)``, of as many rows as it takes, and note each activation's range.

    ``runs`` are the batches' numbers in the whole set, () for all of it.

    Raises MisfitError "runtime-refused".
    """
    import numpy as np

    content = read_model(model)
    written = [index for one in content.operators if one.subgraph == 0 for index in one.outputs if index >= 0]
    indices = dict.fromkeys([*(tensor.index for tensor in content.inputs), *written])
    tensors = [tensor for index in indices if (tensor := content.tensor(0, index)).dtype == "float32"]
    host = HostModel(model, min(4, os.cpu_count() or 1), keep_all=True)
    ends: list[dict[int, tuple[float, float]]] = []
    for batch in batches(host.batch):
        values = host.tensors(batch, [tensor.index for tensor in tensors])
        ends.append({index: _ends(array) for index, array in values.items()})
    tensors = [tensor for tensor in tensors if all(tensor.index in run for run in ends)]
    lows, highs = ([[run[tensor.index][side] for tensor in tensors] for run in ends] for side in (0, 1))
    shape = (len(ends), len(tensors))
    return Ranges(
        tuple(tensor.name for tensor in tensors),
        np.array(lows, np.float64).reshape(shape),
        np.array(highs, np.float64).reshape(shape),
        host.batch,
        runs,
    )


def save_ranges(ranges: Ranges, folder: Path) -> dict[str, Any]:
    """Keep them: the numbers as .npy files in ``folder``, the rest as the JSON value that comes back."""
    import numpy as np

    np.save(folder / _LOWS, ranges.lows, allow_pickle=False)
    np.save(folder / _HIGHS, ranges.highs, allow_pickle=False)
    return {"tensors": list(ranges.tensors), "rows_per_run": ranges.rows_per_run, "runs": list(ranges.runs)}


def load_ranges(told: Mapping[str, Any], folder: Path) -> Ranges:
    """What :func:`save_ranges` kept in ``folder``, and told.

    Raises MisfitError "runtime-refused" where it was told ``refused`` instead.
    """
    import numpy as np

    if "refused" in told:
        raise MisfitError("runtime-refused", str(told["refused"]), hint="Convert the model again.")
    lows, highs = (np.load(folder / name, allow_pickle=False) for name in (_LOWS, _HIGHS))
    return Ranges(tuple(told["tensors"]), lows, highs, int(told["rows_per_run"]), tuple(told["runs"]))


def audit_ranges(ranges: Ranges, name: str, first_row: int = 0, rows: int | None = None) -> tuple[Finding, ...]:
    """Notes "range-stretched" and "ranges-still-grow" on calibration samples called ``name``; pure.

    Rows are counted from ``first_row``, the first row's number in its file; there are ``rows``. Fewer than 8 runs say
    nothing, and fewer than 100 that are not all nothing of how ranges grow.
    """
    if not _says_something(ranges):
        return ()
    lows, highs = _with_zero(ranges)
    factors = stretch_factors(lows, highs)
    many = len(ranges.lows) >= _MANY_ROWS
    stretching = factors.max(axis=1) > (STRETCH if many else STRETCH_OF_FEW)
    found = [_stretched(ranges, factors, lows, highs, name, first_row, stretching)] if stretching.any() else []
    calm = int((~stretching).sum())
    if calm and (many or not ranges.runs):
        wide = widths(lows[~stretching], highs[~stretching])
        if (_ratio(wide[2], wide[1]) - 1).max() > STILL_GROWING:
            found.append(_growing(ranges, wide, name, calm, rows))
    return tuple(found)


def stretching_rows(ranges: Ranges) -> tuple[int, ...]:
    """The rows, counted within the set, that "range-stretched" is said of; of a run of several rows all of them."""
    if not _says_something(ranges):
        return ()
    limit = STRETCH if len(ranges.lows) >= _MANY_ROWS else STRETCH_OF_FEW
    stretching = (stretch_factors(*_with_zero(ranges)).max(axis=1) > limit).nonzero()[0]
    firsts = [(ranges.runs[run] if ranges.runs else int(run)) * ranges.rows_per_run for run in stretching]
    return tuple(row for first in firsts for row in range(first, first + ranges.rows_per_run))


def _says_something(ranges: Ranges) -> bool:
    return len(ranges.lows) >= _FEWEST_ROWS and bool(ranges.tensors)


def _with_zero(ranges: Ranges) -> tuple[Array, Array]:
    """The ends of each range, which holds zero as a quantized one always does."""
    import numpy as np

    return np.minimum(ranges.lows, 0), np.maximum(ranges.highs, 0)


def stretch_factors(lows: Array, highs: Array) -> Array:
    """By how much each run alone widens each range [runs, tensors]: the range with it over the range without it."""
    import numpy as np

    runs = len(lows)
    least, largest = np.sort(lows, axis=0)[:2], np.sort(highs, axis=0)[-2:]
    # The first of equal runs: a range that two runs reach is stretched by neither.
    widest_low, widest_high = lows.argmin(axis=0), highs.argmax(axis=0)
    run = np.arange(runs)[:, None]
    low = np.where(run == widest_low, least[1], least[0])
    high = np.where(run == widest_high, largest[0], largest[1])
    return _ratio(largest[1] - least[0], high - low)


def widths(lows: Array, highs: Array) -> Array:
    """How wide each range is with a quarter of the runs, on average over all quarters, with half and all [3, tensors].

    Whatever their order: the largest of ``m`` runs out of ``n`` is the k-th largest of all with the probability that
    the k - 1 larger ones are not among the ``m``, and it is.
    """
    import numpy as np

    runs = len(lows)
    from_above, from_below = np.sort(highs, axis=0)[::-1], np.sort(lows, axis=0)
    found = []
    for some in _parts(runs):
        chances = some / np.arange(runs, some - 1, -1)
        chances *= np.concatenate([[1.0], np.cumprod(1 - chances[:-1])])
        found.append(chances @ (from_above - from_below)[: len(chances)])
    return np.array(found, np.float64)


def _parts(runs: int) -> tuple[int, int, int]:
    return max(1, runs // 4), max(1, runs // 2), runs


def _ratio(whole: Array, part: Array) -> Array:
    """1 where both are nothing, and 1000 where only the part is."""
    import numpy as np

    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = whole / part
    limited: Array = np.minimum(np.where(whole == 0, 1.0, ratio), 1000.0)
    return limited


def _stretched(
    ranges: Ranges, factors: Array, lows: Array, highs: Array, name: str, first_row: int, stretching: Array
) -> Finding:
    import numpy as np

    by_run = factors.max(axis=1)
    runs = [int(run) for run in np.argsort(-by_run, kind="stable") if stretching[run]]
    worst, tensor = runs[0], int(factors[runs[0]].argmax())
    others = np.delete(np.arange(len(lows)), worst)
    before = f"{lows[others, tensor].min():.3g}..{highs[others, tensor].max():.3g}"
    after = f"{lows[:, tensor].min():.3g}..{highs[:, tensor].max():.3g}"
    subject = short_name(ranges.tensors[tensor])
    shown = ", ".join(_rows(run, ranges, first_row) for run in runs[:_NAMED]) + (", ..." if len(runs) > _NAMED else "")
    return Finding(
        "range-stretched",
        "note",
        subject,
        f"{name}: {_rows(worst, ranges, first_row)} alone stretches the range of {subject!r} from {before} to {after}, "
        f"{by_run[worst]:.1f} times: int8 steps become as much coarser for every sample"
        + (f" ({len(runs)} samples stretch a range: {shown})." if len(runs) > 1 else "."),
        "Look at these samples, and leave out of the calibration what the model will not meet.",
    )


def _growing(ranges: Ranges, wide: Array, name: str, runs: int, rows: int | None) -> Finding:
    import numpy as np

    grown = _ratio(wide[2], wide[1]) - 1
    worst = int(grown.argmax())
    subject = short_name(ranges.tensors[worst])
    growing = int(np.count_nonzero(grown > STILL_GROWING))
    quarter, half, whole = (some * ranges.rows_per_run for some in _parts(runs))
    looked = f" looked at of the {rows}" if ranges.runs and rows is not None else ""
    return Finding(
        "ranges-still-grow",
        "note",
        subject,
        f"{name}: the second half of the samples{looked} still widens the range of {subject!r} by {grown[worst]:.0%}: "
        f"on average it is {wide[0, worst]:.3g} wide with {quarter} samples, {wide[1, worst]:.3g} with {half} and "
        f"{wide[2, worst]:.3g} with {whole} ({growing} of {len(ranges.tensors)} ranges grow by more than "
        f"{STILL_GROWING:.0%}).",
        "Give more calibration samples, or more typical ones.",
    )


def short_name(tensor: str) -> str:
    """A tensor's name as a person knows it: of a fused layer ("a;b;c") the first."""
    return tensor.split(";", 1)[0]


def _rows(run: int, ranges: Ranges, first_row: int) -> str:
    first = first_row + (ranges.runs[run] if ranges.runs else run) * ranges.rows_per_run
    return f"row {first}" if ranges.rows_per_run == 1 else f"rows {first} to {first + ranges.rows_per_run - 1}"


def _ends(values: Array) -> tuple[float, float]:
    """The least and the largest finite number, 0 and 0 where there is none."""
    import numpy as np

    if not values.size:
        return 0.0, 0.0
    low, high = float(values.min()), float(values.max())
    if np.isfinite(low) and np.isfinite(high):
        return low, high
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
