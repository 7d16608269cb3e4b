"""What accuracy means: top1, or a user's own function; and what quantizing costs of it over the same samples."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack.documents import Accuracy, Interval
from edgepack.errors import InputError
from edgepack.statistics import bootstrap_drop_interval, paired_drop_interval, top1, top1_hits

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_HINT = "Write top1, or module:function of (outputs, labels) that returns a number, larger being better."


@dataclass(frozen=True, slots=True)
class Metric:
    """A number for outputs against labels, larger being better.

    ``function(outputs, labels)`` gets the outputs as an array [N, ...] where the model has one output, else a dict of
    them by name. ``hits`` says for each row whether it is right; None where the metric is not a share of right rows.
    """

    name: str
    function: Callable[[Any, Array], float]
    hits: Callable[[Any, Array], Array] | None = None

    def measure(self, outputs: Mapping[str, Array], labels: Array) -> float:
        """The metric. Raises InputError "metric-failed" where the function refuses, or gives no finite number."""
        try:
            value = float(self.function(_as_given(outputs), labels))
        except Exception as error:  # a user's function may raise anything
            raise InputError(
                "metric-failed", f"The metric {self.name} failed: {type(error).__name__}: {error}.", hint=_HINT
            ) from error
        if not math.isfinite(value):
            raise InputError("metric-failed", f"The metric {self.name} gave {value}, which is no number.", hint=_HINT)
        return value


TOP1 = Metric("top1", top1, top1_hits)


def load_metric(text: str) -> Metric:
    """The metric ``top1``, or that of ``module:function``; modules are looked up in the current folder too.

    Raises InputError "unknown-metric".
    """
    if text == TOP1.name:
        return TOP1
    module_name, colon, function_name = text.partition(":")
    if not colon or not module_name or not function_name:
        raise InputError("unknown-metric", f"There is no metric {text!r}.", hint=_HINT)
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except Exception as error:  # importing a user's module may raise anything
        reason = f"{type(error).__name__}: {error}"
        raise InputError("unknown-metric", f"The metric {text!r} cannot be loaded: {reason}.", hint=_HINT) from error
    finally:
        sys.path.remove(here)
    if not callable(function):
        raise InputError("unknown-metric", f"{text!r} is not a function.", hint=_HINT)
    return Metric(text, function)


def compare_accuracy(
    metric: Metric, reference: Mapping[str, Array] | None, quantized: Mapping[str, Array], labels: Array
) -> Accuracy:
    """The metric of the float reference and of the quantized model over the same rows, the drop, its 95 % interval.

    Arrays are [N, ...] by output name, labels [N] or one-hot [N, classes]. Without a reference the drop is None; the
    interval is None too where the metric refuses a resample (one that lacks a class, say).
    """
    value = metric.measure(quantized, labels)
    if reference is None:
        return Accuracy(metric.name, None, value, None, len(labels), None)
    before = metric.measure(reference, labels)
    interval: Interval | None
    try:
        interval = drop_interval(metric, reference, quantized, labels)
    except InputError:
        interval = None
    return Accuracy(metric.name, before, value, before - value, len(labels), interval)


def drop_interval(
    metric: Metric,
    reference: Mapping[str, Array],
    quantized: Mapping[str, Array],
    labels: Array,
    confidence: float = 0.95,
) -> Interval:
    """The two-sided interval of the drop: Newcombe's for shares of right rows, the bootstrap for any other metric."""
    if metric.hits is not None:
        before, after = metric.hits(_as_given(reference), labels), metric.hits(_as_given(quantized), labels)
        return paired_drop_interval(before, after, confidence)

    def drop_over(rows: Sequence[int]) -> float:
        chosen = list(rows)
        return metric.measure(_rows(reference, chosen), labels[chosen]) - metric.measure(
            _rows(quantized, chosen), labels[chosen]
        )

    return bootstrap_drop_interval(drop_over, len(labels), confidence)


def _as_given(outputs: Mapping[str, Array]) -> Any:
    return next(iter(outputs.values())) if len(outputs) == 1 else dict(outputs)


def _rows(outputs: Mapping[str, Array], rows: list[int]) -> dict[str, Array]:
    return {name: array[rows] for name, array in outputs.items()}
