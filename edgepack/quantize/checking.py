"""What is wrong with sets of samples, found from the files alone, before minutes are spent on a conversion."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgepack.errors import InputError
from edgepack.events import Event, Reporter
from edgepack.quantize.arrayfiles import ArrayFiles, word_labels
from edgepack.quantize.arrays import LABELS, SampleArray, chunk_rows
from edgepack.quantize.images import ImageFolder
from edgepack.quantize.labels import listed
from edgepack.quantize.rangerows import outermost_rows
from edgepack.quantize.samples import Samples, content_digest, row_digests
from edgepack.quantize.tables import CsvTable

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

# A hundredth of the stated range: rounding and codecs, not another scale.
_RANGE_TOLERANCE = 0.01


@dataclass(frozen=True, slots=True)
class Span:
    """The smallest and the largest value of an input over a whole set."""

    name: str
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class CheckedSamples:
    """A set whose every row was read and found sound.

    ``rows`` has a digest of each row's inputs as float32, so that the same sample is recognized in another file, under
    another name or type; ``digest`` is that of everything that decides what the model is fed: inputs as they are
    stored, names, shapes, types, preprocessing. ``constant`` holds the rows in which an input has one value throughout;
    ``classes`` is how often each label occurs, None where there are none or they are no classes. ``blank``: all rows
    have one value throughout, in every input. ``outermost`` are the rows, counted within the set, that reach furthest.
    """

    samples: Samples
    rows: tuple[bytes, ...]
    digest: str
    spans: tuple[Span, ...] = ()
    constant: tuple[int, ...] = ()
    classes: tuple[tuple[int, int], ...] | None = None
    blank: bool = False
    outermost: tuple[int, ...] = ()


def check_content(samples: Samples, *, need_labels: bool, report: Reporter) -> CheckedSamples:
    """Read every row once, and refuse what is not finite or outside the stated range.

    Raises InputError: "not-finite", "outside-range", "no-labels", "bad-samples", and what reading raises.
    """
    _check_labels(samples, need_labels)
    # What has fewer rows is a table of names, say; if the model wants it after all, bind_inputs refuses it.
    arrays = [array for array in samples.inputs if array.rows >= samples.stop]
    labels = samples.named(LABELS)
    names = [array.name for array in arrays]
    reader = _Reader(samples, arrays)
    wanted = [*names, LABELS] if labels is not None else names
    for batch in samples.read(wanted, chunk_rows(arrays)):
        reader.take({name: batch[name] for name in names}, batch.get(LABELS))
        report(Event("quantize", f"checking {samples.name}", reader.done, samples.rows, "samples"))
    return reader.checked()


class _Reader:
    """Takes a set's batches one after the other and adds up what is to be known of them."""

    def __init__(self, samples: Samples, arrays: Sequence[SampleArray]) -> None:
        facts = (samples.preprocessing.to_json(), [(a.name, a.shape[1:], a.dtype, a.single) for a in arrays])
        self._samples = samples
        self._whole = hashlib.blake2b(repr(facts).encode(), digest_size=16)
        self._rows: list[bytes] = []
        self._ends: dict[str, list[tuple[Array, Array]]] = {array.name: [] for array in arrays}
        self._constant: list[int] = []
        self._classes: Counter[int] | None = Counter()
        self._varied = False
        self._singles: set[str] = set()  # inputs of one number a row

    @property
    def done(self) -> int:
        """How many rows were taken."""
        return len(self._rows)

    def take(self, inputs: Mapping[str, Array], labels: Array | None) -> None:
        """The next rows. Raises InputError about the first that is not sound."""
        first = self._samples.start + self.done
        for name, rows in inputs.items():
            _require_finite(self._samples, name, rows, first)
            self._require_in_range(name, rows, first)
            self._whole.update(rows.tobytes())
            flat = rows.reshape(len(rows), -1)
            if flat.shape[1] > 1:
                constant = (flat == flat[:, :1]).all(axis=1)
                self._constant += (int(row) + first for row in constant.nonzero()[0])
                self._varied = self._varied or not bool(constant.all())
            else:
                self._singles.add(name)
            if flat.size:
                self._ends[name].append((flat.min(axis=1), flat.max(axis=1)))
        if labels is None:
            self._classes = None
        else:
            _require_finite(self._samples, LABELS, labels, first)
            self._count(labels)
        self._rows += row_digests(inputs)

    def _require_in_range(self, name: str, rows: Array, first: int) -> None:
        """Pictures are scaled as stated when they are fed; everything else has to be so already."""
        import numpy as np

        limits = self._samples.preprocessing.limits
        if limits is None or isinstance(self._samples.store, ImageFolder):
            return
        slack = _RANGE_TOLERANCE * (limits[1] - limits[0])
        flat = rows.reshape(len(rows), -1)
        outside = (flat < limits[0] - slack) | (flat > limits[1] + slack)
        if outside.any():
            row, column = np.argwhere(outside)[0]
            raise InputError(
                "outside-range",
                f"{self._samples.place}: row {first + int(row)} of {name!r} holds {flat[row, column]:g}, and [samples] "
                f"says that samples lie between {limits[0]:g} and {limits[1]:g}.",
                hint="Scale the samples as in training, or correct range in [samples] of edgepack.toml: it scales "
                "images, and is what all other samples are held against; leave it out to feed them unchecked.",
                row=first + int(row),
            )

    def _count(self, labels: Array) -> None:
        """Whole numbers, or one-hot rows, are classes."""
        import numpy as np

        if labels.ndim == 2 and labels.shape[1] > 1:
            labels = labels.argmax(axis=1)
        flat = labels.reshape(-1)
        if self._classes is None or len(flat) != len(labels) or (flat != np.floor(flat)).any():
            self._classes = None
        else:
            self._classes.update(int(label) for label in flat)

    def checked(self) -> CheckedSamples:
        """What came of it."""
        import numpy as np

        samples = dataclasses.replace(self._samples, content=content_digest(self._rows))
        ends = {
            name: tuple(map(np.concatenate, zip(*found, strict=True))) for name, found in self._ends.items() if found
        }
        spans = dict.fromkeys(self._ends, (math.inf, -math.inf))
        spans.update({name: (float(lows.min()), float(highs.max())) for name, (lows, highs) in ends.items()})
        reach = [np.stack(sides, axis=1).astype(np.float64) for sides in zip(*ends.values(), strict=True)]
        return CheckedSamples(
            samples,
            tuple(self._rows),
            self._whole.hexdigest(),
            tuple(Span(name, low, high) for name, (low, high) in spans.items()),
            tuple(dict.fromkeys(self._constant)),
            None if self._classes is None else tuple(sorted(self._classes.items())),
            not self._varied and all(spans[name][0] >= spans[name][1] for name in self._singles),
            outermost_rows(*reach) if reach else (),
        )


def refuse_uniform(calibration: CheckedSamples) -> None:
    """Raise InputError "uniform-samples" where the rows show nothing of what the model will see."""
    count = calibration.samples.rows
    if calibration.blank:
        fault = "holds one value throughout in every row"
    elif count > 1 and len(set(calibration.rows)) == 1:
        fault = f"holds the same sample {count} times"
    else:
        return
    raise InputError(
        "uniform-samples",
        f"{calibration.samples.text} {fault}: no range can be set by that.",
        hint="Calibrate with 100 to 500 typical samples; see how these were written.",
    )


def _require_finite(samples: Samples, name: str, rows: Array, first: int) -> None:
    import numpy as np

    if rows.dtype.kind != "f":
        return
    with np.errstate(over="ignore"):
        bad = ~np.isfinite(rows.astype(np.float32, copy=False)).reshape(len(rows), -1).all(axis=1)
    if bad.any():
        row = first + int(bad.argmax())
        raise InputError(
            "not-finite",
            f"{samples.place}: row {row} of {name!r} holds NaN, infinity or a number beyond float32.",
            hint="Correct the label, or take the row out: no metric can be taken of it."
            if name == LABELS
            else "Remove or repair the row; one such value ruins every quantization range.",
            row=row,
        )


def _check_labels(samples: Samples, needed: bool) -> None:
    labels = samples.named(LABELS)
    if labels is None:
        if needed:
            fault = f"{samples.place} has no labels ({_what_there_is(samples)})."
            raise InputError("no-labels", fault, hint=_label_hint(samples))
        return
    if labels.is_text:
        raise word_labels(samples.place)
    if labels.rows < samples.stop:
        raise InputError(
            "bad-samples",
            f"{samples.place} has {labels.rows} labels for {samples.stop} samples.",
            hint="One label a row.",
        )


def _what_there_is(samples: Samples) -> str:
    if isinstance(samples.store, CsvTable):
        return f"its columns are {listed(samples.store.header)}"
    return f"there is {', '.join(array.name for array in samples.arrays) or 'nothing'}"


def _label_hint(samples: Samples) -> str:
    match samples.store:
        case ArrayFiles():
            return (
                "Save the labels as y: numpy.savez(FILE, x=..., y=...); or name the array in edgepack.toml: "
                '[samples] label = "LABELS".'
            )
        case ImageFolder():
            return "Put the images into one sub-folder for each class, or write labels.csv with the columns file,label."
        case CsvTable():
            return "Name the label's column y, or write label = ... into [samples] of edgepack.toml."
        case _:
            return "Yield pairs (array, label), or dicts with the label as y."


def read_labels(samples: Samples, rows: int | None = None) -> Array | None:
    """The labels of the set's rows (or of its first ``rows``), [N] or one-hot [N, classes]; None where it has none."""
    if samples.named(LABELS) is None:
        return None
    import numpy as np

    return np.concatenate([batch[LABELS] for batch in samples.read([LABELS], min(samples.rows, 256), rows)])


def refuse_sorted_classes(samples: Samples, scores: int | None) -> None:
    """Raise InputError "bad-label" where names were numbered by sorting, and are not as many as the model's classes.

    ``scores`` is how many outputs a row has. A class that is missing would shift the number of every later one.
    """
    store = samples.store
    names = store.sorted_classes if isinstance(store, (ImageFolder, CsvTable)) else ()
    if names and scores not in (None, len(names)):
        raise InputError(
            "bad-label",
            f"{samples.place} has {len(names)} classes by name ({', '.join(names[:3])}, ...), and the model has "
            f"{scores}: numbered in their sorted order they would not be the model's.",
            hint="Write classes = [...] into [samples] of edgepack.toml, in the order of the model's outputs.",
        )
