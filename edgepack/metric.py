"""What accuracy means: a built-in metric or a user's own function; and what quantizing costs of it."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from edgepack.documents import Accuracy, Interval
from edgepack.errors import InputError
from edgepack.scoring import class_numbers, require_width, roc_auc, row_errors, topk_hits, two_classes
from edgepack.statistics import (
    FEWEST_RESAMPLES,
    ONE_SIDED_95,
    RESAMPLES,
    bootstrap_drops,
    mcnemar_p,
    pair_table,
    percentile_interval,
    proportion_interval,
    samples_to_narrow,
    samples_to_settle,
    table_drop_interval,
)
from edgepack.usercode import FAILURES, at_home, import_cure, line_of, load_function, told
from edgepack.words import METRIC_HELP

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_HINT = f"Write {METRIC_HELP.removesuffix('.')} that returns a number, larger being better."

OWN_RESAMPLES = 200
"""For the interval of a function of the user's, where nobody says how many: such a function may be slow.

5 drops lie below a 95 % interval, and 5 above. The number is fixed, so that a verdict depends on no machine's speed.
"""
MOST_RESAMPLES = 100_000


@dataclass(frozen=True, slots=True)
class Metric:
    """A number for outputs against labels.

    ``function(outputs, labels)`` gets the outputs as an array [N, ...] where the model has one output, else a dict of
    them by name. Where the metric is the mean of something that each row has, ``hits`` says whether a row is right
    (the metric is a share), or ``errors`` how wrong it is (the metric is an error, and less is better). ``by_class``:
    resamples keep the number of rows with each label. ``scores`` is the fewest and the most outputs a row that a
    built-in metric takes; with so many of them, ``check_labels(labels, scores)`` raises ValueError for labels that it
    cannot take, and ``chance(scores)`` is what guessing is worth. An interval by bootstrap takes ``resamples``, 0 for
    none.
    """

    name: str
    function: Callable[[Any, Array], float]
    hits: Callable[[Any, Array], Array] | None = None
    errors: Callable[[Any, Array], Array] | None = None
    by_class: bool = False
    scores: tuple[int, float] | None = None
    check_labels: Callable[[Array, int], object] | None = None
    chance: Callable[[int], float] | None = None
    resamples: int = RESAMPLES

    @property
    def is_own(self) -> bool:
        """Whether it is a function of the user's."""
        return self.name not in BUILT_IN

    @property
    def smaller_is_better(self) -> bool:
        """Whether it is an error."""
        return self.errors is not None

    def measure(self, outputs: Mapping[str, Array], labels: Array) -> float:
        """The metric. Raises InputError "metric-failed" where the function refuses, or gives no finite number.

        A function of the user's gets copies, which are its own to change; what it prints goes to stderr.
        """
        try:
            value = self._own(outputs, labels) if self.is_own else self.function(_as_given(outputs), labels)
            if isinstance(value, str | bytes) or getattr(getattr(value, "dtype", None), "kind", "f") in "USV":
                raise TypeError(f"it returned the text {value!r} instead of a number")
            value = float(value)
        except FAILURES as error:
            fault = f"The metric {self.name} failed{line_of(error)}: {told(error)}."
            raise InputError("metric-failed", fault, hint=self._hint(outputs, labels)) from error
        if not math.isfinite(value):
            fault = f"The metric {self.name} gave {value}, which is no number."
            raise InputError("metric-failed", fault, hint=self._hint(outputs, labels))
        return value

    def _own(self, outputs: Mapping[str, Array], labels: Array) -> Any:
        import numpy as np

        copies = {name: np.array(array) for name, array in outputs.items()}
        with at_home():
            return self.function(_as_given(copies), np.array(labels))

    def _hint(self, outputs: Mapping[str, Array], labels: Array) -> str:
        """How a metric is written, and of the user's own the command that shows its whole traceback."""
        module, colon, function = self.name.partition(":")
        if not colon:
            return _HINT
        zeros = {name: _zeros(array) for name, array in outputs.items()}
        shown = ", ".join(f"{name!r}: {text}" for name, text in zeros.items())
        given = f"{{{shown}}}" if len(zeros) > 1 else "".join(zeros.values())
        code = f"import {module}; from numpy import zeros; print({module}.{function}({given}, {_zeros(labels)}))"
        return f"{_HINT} It is called as in this command: python -c {shlex.quote(code)}"

    def refuse_misfit(self, outputs: Sequence[tuple[int | None, ...]]) -> None:
        """Say before a conversion that a built-in metric cannot be taken of outputs [N, ...] (None: an open size).

        Raises InputError "metric-misfit".
        """
        if self.scores is None:
            return
        fewest, most = self.scores
        sizes = [math.prod(n or fewest for n in shape[1:]) for shape in outputs]
        if len(sizes) == 1 and fewest <= sizes[0] <= most:
            return
        shown = ", ".join(str(["N", *("any" if n is None else n for n in shape[1:])]) for shape in outputs)
        asked = f"at least {fewest} scores" if fewest > 1 else "one score a row or two" if most == 2 else "numbers"
        raise InputError(
            "metric-misfit",
            f"{self.name} needs one output with {asked}, and the model has {shown}.",
            hint="Write your own: --metric module:function of (outputs, labels); several outputs come as a dict.",
        )

    def refuse_labels(self, outputs: Sequence[tuple[int | None, ...]], labels: Array, where: str) -> None:
        """Say before a conversion that labels [N, ...] are none for such outputs; ``where`` they stand is told.

        Raises InputError "bad-labels". A metric of the user's own, or an output of an open size, takes any.
        """
        scores = scores_of(outputs)
        if self.check_labels is None or scores is None:
            return
        try:
            self.check_labels(labels, scores)
        except ValueError as error:
            raise InputError(
                "bad-labels",
                f"{where}: {error}.",
                hint=f"Mend y as {self.name} needs it, or name another metric.",
            ) from error


def scores_of(outputs: Sequence[tuple[int | None, ...]]) -> int | None:
    """How many numbers a row the one output [N, ...] has; None where there are several, or it is not known."""
    if len(outputs) != 1 or any(n is None for n in outputs[0][1:]):
        return None
    return math.prod(n for n in outputs[0][1:] if n is not None)


def _mean_of(rows: Callable[[Any, Array], Array]) -> Callable[[Any, Array], float]:
    return lambda outputs, labels: float(rows(outputs, labels).mean())


_top5_hits = partial(topk_hits, k=5)
TOP1 = Metric(
    "top1", _mean_of(topk_hits), hits=topk_hits, scores=(2, math.inf), check_labels=class_numbers,
    chance=lambda classes: 1 / classes,
)  # fmt: skip
TOP5 = Metric(
    "top5", _mean_of(_top5_hits), hits=_top5_hits, scores=(6, math.inf), check_labels=class_numbers,
    chance=lambda classes: 5 / classes,
)  # fmt: skip
MAE = Metric("mae", _mean_of(row_errors), errors=row_errors, scores=(1, math.inf), check_labels=require_width)
ROC_AUC = Metric(
    "roc-auc", roc_auc, by_class=True, scores=(1, 2),
    check_labels=lambda labels, scores: two_classes(labels), chance=lambda scores: 0.5,
)  # fmt: skip
BUILT_IN = {metric.name: metric for metric in (TOP1, TOP5, MAE, ROC_AUC)}
SHARES = tuple(metric.name for metric in (TOP1, TOP5, ROC_AUC))
"""The metrics that lie between 0 and 1: a drop of 1 allows everything."""


def load_metric(text: str, resamples: int | None = None) -> Metric:
    """The built-in metric of that name, or that of ``module:function``; modules of the current folder are found too.

    ``resamples`` are for its interval; None takes 1,000, or :data:`OWN_RESAMPLES` for a function of the user's.

    Raises InputError "unknown-metric", "bad-resamples".
    """
    if resamples is not None and resamples != 0 and not FEWEST_RESAMPLES <= resamples <= MOST_RESAMPLES:
        raise InputError(
            "bad-resamples",
            f"{resamples} resamples make no interval.",
            hint=f"Take {FEWEST_RESAMPLES} to {MOST_RESAMPLES}, or 0 for no interval.",
        )
    if text in BUILT_IN:
        return BUILT_IN[text] if resamples is None else replace(BUILT_IN[text], resamples=resamples)
    module_name, colon, function_name = text.partition(":")
    if not colon or not module_name or not function_name:
        raise InputError("unknown-metric", f"There is no metric {text!r}.", hint=_HINT)
    try:
        function = load_function(text)
    except FAILURES as error:
        fault = f"The metric {text!r} cannot be loaded: {told(error)}."
        raise InputError("unknown-metric", fault, hint=import_cure(text, error) or _HINT) from error
    if not callable(function):
        raise InputError("unknown-metric", f"{text!r} is not a function.", hint=_HINT)
    return Metric(text, function, resamples=OWN_RESAMPLES if resamples is None else resamples)


@dataclass(frozen=True, slots=True)
class Drop:
    """What quantizing costs of a metric over n paired rows, and what says how sure that is.

    ``table`` counts the rows that both models have right, only the reference, only the quantized model, and neither,
    where the metric is a share; else ``resampled`` holds the drops of resamples, sorted (none where the metric
    refuses a resample, one that lacks a class, say, or where none were wanted). ``own_interval`` is that of the
    quantized model's metric.
    """

    metric: Metric
    reference: float
    quantized: float
    n: int
    table: tuple[int, int, int, int] | None = None
    resampled: tuple[float, ...] = ()
    own_interval: Interval | None = None

    @property
    def value(self) -> float:
        """How much worse the quantized model is."""
        lost = self.reference - self.quantized
        return -lost if self.metric.smaller_is_better else lost

    def interval(self, confidence: float = 0.95) -> Interval | None:
        """The two-sided interval: Newcombe's for a share, the bootstrap's for any other metric."""
        if self.table is not None:
            return table_drop_interval(*self.table, confidence=confidence)
        return percentile_interval(self.resampled, confidence) if self.resampled else None

    def needed_samples(self, limit: float) -> int | None:
        """About how many samples settle on which side of ``limit`` the drop lies; None where no number of them would.

        What settles it is the one-sided 95 % bound, as in the verdict's ``gate = "confident"``.
        """
        if self.table is not None:
            return samples_to_settle(self.table, limit)
        bounds = self.interval(ONE_SIDED_95)
        return None if bounds is None else samples_to_narrow(self.value, bounds, self.n, limit)

    def accuracy(self, max_drop: float | None) -> Accuracy:
        """All of it as a document; ``max_drop`` is the budget, if there is one."""
        return Accuracy(
            metric=self.metric.name,
            reference=self.reference,
            quantized=self.quantized,
            drop=self.value,
            samples=self.n,
            interval=self.interval(),
            p_value=None if self.table is None else mcnemar_p(self.table[1], self.table[2]),
            needed_samples=None if max_drop is None else self.needed_samples(max_drop),
            smaller_is_better=self.metric.smaller_is_better,
            quantized_interval=self.own_interval,
        )


def measure_drop(metric: Metric, reference: Mapping[str, Array], quantized: Mapping[str, Array], labels: Array) -> Drop:
    """The metric of both models over the same rows; arrays are [N, ...] by output name, labels [N] or [N, ...].

    Raises InputError "metric-failed".
    """
    found = Drop(metric, metric.measure(reference, labels), metric.measure(quantized, labels), len(labels))
    both = (_as_given(reference), _as_given(quantized))
    if metric.hits is not None:
        before, after = (metric.hits(outputs, labels) for outputs in both)
        own = proportion_interval(float(after.sum()), found.n)
        return replace(found, table=pair_table(before, after), own_interval=own)
    if metric.errors is not None:
        before, after = (metric.errors(outputs, labels) for outputs in both)
        grown = after - before
        drops = bootstrap_drops(lambda rows: float(grown[rows].mean()), [range(found.n)], metric.resamples)
        return replace(found, resampled=drops, own_interval=_own_interval(metric, quantized, labels))
    values: list[float] = []

    def drop_over(rows: Array) -> float:
        chosen = labels[rows]
        values.append(metric.measure(_rows(quantized, rows), chosen))
        return metric.measure(_rows(reference, rows), chosen) - values[-1]

    try:
        drops = bootstrap_drops(drop_over, _members(metric, labels), metric.resamples)
    except InputError:
        return found
    return replace(found, resampled=drops, own_interval=percentile_interval(sorted(values)) if values else None)


def _own_interval(metric: Metric, outputs: Mapping[str, Array], labels: Array) -> Interval | None:
    """The interval of one model's metric by itself."""
    if metric.hits is not None:
        return proportion_interval(float(metric.hits(_as_given(outputs), labels).sum()), len(labels))
    if metric.errors is not None:
        errors = metric.errors(_as_given(outputs), labels)
        found = bootstrap_drops(lambda rows: float(errors[rows].mean()), [range(len(labels))], metric.resamples)
        return percentile_interval(found) if found else None
    try:
        found = bootstrap_drops(
            lambda rows: metric.measure(_rows(outputs, rows), labels[rows]), _members(metric, labels), metric.resamples
        )
    except InputError:
        return None
    return percentile_interval(found) if found else None


def _members(metric: Metric, labels: Array) -> Sequence[Any]:
    """What resamples are drawn from."""
    return _groups(labels) if metric.by_class else [range(len(labels))]


def compare_accuracy(
    metric: Metric,
    reference: Mapping[str, Array] | None,
    quantized: Mapping[str, Array],
    labels: Array,
    max_drop: float | None = None,
) -> Accuracy:
    """:func:`measure_drop` as a document; without a reference the drop is None. ``max_drop`` is the budget, if any."""
    if reference is not None:
        return measure_drop(metric, reference, quantized, labels).accuracy(max_drop)
    value = metric.measure(quantized, labels)
    return Accuracy(
        metric.name,
        None,
        value,
        None,
        len(labels),
        None,
        smaller_is_better=metric.smaller_is_better,
        quantized_interval=_own_interval(metric, quantized, labels),
    )


def _groups(labels: Array) -> list[Array]:
    """The row numbers of each class; one-hot rows count as their class."""
    import numpy as np

    classes = labels.reshape(len(labels), -1)[:, -1]
    return [np.flatnonzero(classes == one) for one in np.unique(classes)]


def _as_given(outputs: Mapping[str, Array]) -> Any:
    return next(iter(outputs.values())) if len(outputs) == 1 else dict(outputs)


def _rows(outputs: Mapping[str, Array], rows: Array) -> dict[str, Array]:
    return {name: array[rows] for name, array in outputs.items()}


def _zeros(array: Array) -> str:
    return f"zeros({list(array.shape)}, {array.dtype.name!r})"
