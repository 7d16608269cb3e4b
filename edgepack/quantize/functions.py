"""Samples out of a function of the user's: ``module:function`` returns an iterable of samples, one after the other.

A sample is an array, a pair (array, label), or a dict of arrays by the name of the input (``x`` where there is one),
``y`` being the label; a pair may begin with such a dict. The function is called again for each pass, and has to give
the same samples each time; :class:`edgepack.quantize.samples.Samples` holds them against a digest.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgepack.errors import InputError
from edgepack.quantize.arrays import LABELS, SINGLE_INPUT, Port, SampleArray
from edgepack.usercode import FAILURES, at_home, import_cure, line_of, load_function, told

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]
    Sample = dict[str, Array]

_FORM = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_HINT = "A sample is an array, a pair (array, label), or a dict of arrays by input name with y for the label."
# Nobody waits for more; a function without an end is told instead of followed.
_MOST_SAMPLES = 1_000_000


@dataclass(frozen=True, slots=True)
class SampleFunction:
    """A function's samples: what the first one is like, all of them are."""

    text: str
    arrays: tuple[SampleArray, ...]
    kind: str = "a function"
    left_out: tuple[str, ...] = ()

    def fitted(self, inputs: Sequence[Port]) -> SampleFunction:
        """These very samples: the function says itself what they are."""
        return self

    def read(self, names: Collection[str], start: int, stop: int, size: int) -> Iterator[dict[str, Array]]:
        """Raises InputError "samples-failed" with the function's own words, "bad-samples" with the sample's number."""
        import numpy as np

        wanted = [array for array in self.arrays if array.name in names]
        rows: list[Sample] = []
        with contextlib.closing(_samples_of(self.text, stop)) as samples:
            for number, sample in enumerate(samples):
                if number < start:
                    continue
                rows.append({array.name: _like(sample, array, f"{self.text}, sample {number}") for array in wanted})
                if len(rows) == size or number + 1 == stop:
                    yield {array.name: np.stack([row[array.name] for row in rows]) for array in wanted}
                    rows = []
                if number + 1 == stop:
                    return
        raise InputError(
            "unsteady-samples",
            f"{self.text} ended before its sample {stop - 1}.",
            hint="Take fewer rows (#0:500), or let each call begin anew: return a new generator, not the used one.",
        )


def is_function(text: str) -> bool:
    """Whether a text has the form ``module:function``."""
    return bool(_FORM.fullmatch(text))


def open_function(text: str, rows: int | None) -> SampleFunction:
    """The samples of ``module:function``; where nobody says how many ``rows`` there are, they are counted.

    Raises InputError "unknown-samples", "samples-failed", "bad-samples", "empty-samples", "endless-samples".
    """
    with contextlib.closing(_samples_of(text, _MOST_SAMPLES + 1 if rows is None else 1)) as samples:
        first = next(samples, None)
        if first is None:
            raise InputError("empty-samples", f"{text} gives no samples.", hint="Let it yield at least one.")
        count = 1 + sum(1 for _ in samples) if rows is None else max(1, rows)
    if count > _MOST_SAMPLES:
        raise InputError(
            "endless-samples", f"{text} gives more than {_MOST_SAMPLES} samples.", hint=f"Take some: {text}#0:500"
        )
    arrays = (SampleArray(name, (count, *value.shape), value.dtype.str, single=True) for name, value in first.items())
    return SampleFunction(text, tuple(arrays))


def _load(text: str) -> Callable[[], Iterable[object]]:
    try:
        function = load_function(text)
    except FAILURES as error:
        raise InputError(
            "unknown-samples",
            f"The samples {text!r} cannot be loaded: {told(error)}.",
            hint=import_cure(text, error)
            or "Write FILE, FOLDER or module:function; modules are looked up in the current folder too.",
        ) from error
    if not callable(function):
        raise InputError("unknown-samples", f"{text!r} is not a function.", hint=f"Let it return samples. {_HINT}")
    loaded: Callable[[], Iterable[object]] = function
    return loaded


def _samples_of(text: str, most: int) -> Generator[Sample, None, None]:
    """Call the function and give its samples, at most ``most``."""
    function = _load(text)
    number = 0
    iterator: Iterator[object] | None = None
    try:
        while number < most:
            try:
                with at_home():
                    if iterator is None:
                        iterator = iter(function())
                    given = next(iterator, _END)
            except FAILURES as error:
                raise _failed(text, number, iterator is None, error) from error
            if given is _END:
                return
            yield _arrays_of(given, f"{text}, sample {number}")
            number += 1
    finally:
        close = getattr(iterator, "close", None)
        if callable(close):
            with contextlib.suppress(Exception):  # it is over, and what was read of it is whole
                close()


_END = object()


def _failed(text: str, number: int, at_start: bool, error: BaseException) -> InputError:
    where = "when it was called" if at_start else f"at sample {number}"
    if at_start and isinstance(error, TypeError):
        hint = f"It is called without arguments and returns an iterable of samples. {_HINT}"
    else:
        module, _, function = text.partition(":")
        hint = f"Mend the function; python -c 'import {module}; list({module}.{function}())' shows the whole traceback."
    return InputError("samples-failed", f"{text} failed {where}{line_of(error)}: {told(error)}.", hint=hint)


def _arrays_of(given: object, where: str) -> Sample:
    """A sample as arrays by name."""
    labelled = isinstance(given, tuple) and len(given) == 2
    inputs, label = given if isinstance(given, tuple) and len(given) == 2 else (given, None)
    if isinstance(inputs, list) and len(inputs) == 1 and hasattr(inputs[0], "shape"):
        inputs = inputs[0]  # as TensorFlow's representative_dataset gives the one input
    if isinstance(inputs, tuple):
        raise _bad(where, f"a tuple of {len(inputs)} is no sample")
    named = dict(inputs) if isinstance(inputs, Mapping) else {SINGLE_INPUT: inputs}
    if labelled:
        named[LABELS] = label
    if not any(name != LABELS for name in named):
        raise _bad(where, "there is no input")
    return {str(name): _array_of(value, f"{where}, {name!r}") for name, value in named.items()}


def _array_of(value: object, where: str) -> Array:
    import numpy as np

    try:
        array = np.asarray(value)
    except Exception as error:  # a foreign tensor's conversion may raise anything, ragged lists do
        raise _bad(where, f"{type(value).__name__} is no array ({error})") from error
    if array.dtype.kind not in "fiub":
        raise _bad(where, f"it is {type(value).__name__} of type {array.dtype}, no numbers")
    return array


def _like(sample: Mapping[str, Array], array: SampleArray, where: str) -> Array:
    """The sample's array, which has to be as in the first sample."""
    import numpy as np

    value = sample.get(array.name)
    if value is None:
        raise _bad(where, f"there is no {array.name!r}, which sample 0 has (there is {', '.join(sample)})")
    if value.shape != array.shape[1:]:
        raise _bad(where, f"{array.name!r} has the shape {list(value.shape)}, and {list(array.shape[1:])} in sample 0")
    if not np.can_cast(value.dtype, array.dtype, "same_kind"):
        raise _bad(where, f"{array.name!r} is {value.dtype}, and {np.dtype(array.dtype)} in sample 0")
    return value.astype(array.dtype, copy=False)


def _bad(where: str, fault: str) -> InputError:
    return InputError("bad-samples", f"{where}: {fault}.", hint=_HINT)
