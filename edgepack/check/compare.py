"""The device's outputs over the check set against the host's: accuracy where there are labels, parity in any case.

The arrays come from outputs.npz: ``device/<output>``, and from the check set ``labels``, ``float/<output>`` (the
float model) and ``quantized/<output>`` (the same .tflite on the host), all [N, ...], the outputs as float32.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgepack.documents import Accuracy, Parity
from edgepack.errors import IntegrityError
from edgepack.metric import Metric, compare_accuracy, measure_drop
from edgepack.statistics import ONE_SIDED_95

Array = np.ndarray[Any, Any]

MAX_OUTPUT_BYTES = 1 << 30
"""What a check set's outputs may unpack to; a .npz can claim anything."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the device's outputs say; ``bad_outputs`` counts samples with NaN, or infinity where the host has none.

    ``drop_bound`` is the one-sided 95 % upper bound of the paired accuracy drop; None where the drop has no interval.
    """

    samples: int
    bad_outputs: int
    accuracy: Accuracy | None
    drop_bound: float | None
    parity: Parity | None


def read_outputs(content: bytes) -> dict[str, Array]:
    """The arrays of an outputs.npz from a device; nothing is ever unpickled.

    Raises IntegrityError "bad-outputs" where it is no such file, or unpacks to more than 1 GiB.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(member.file_size for member in archive.infolist()) > MAX_OUTPUT_BYTES:
                raise ValueError("it unpacks to more than 1 GiB")
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        if any(array.dtype.kind not in "biuf" or array.ndim < 1 for array in arrays.values()):
            raise ValueError("an array holds no numbers")
    except Exception as error:  # numpy and zipfile raise a dozen kinds over a file that lies
        raise IntegrityError(
            "bad-outputs",
            f"The device's outputs cannot be read: {str(error)[:200]!r}.",
            hint="Run `edgepack check` again.",
        ) from error
    return arrays


def compare(arrays: Mapping[str, Array], metric: Metric, max_drop: float | None = None) -> Comparison | None:
    """Hold the device's outputs against labels and the host's outputs; None where the device gave none.

    ``max_drop`` is the budget's limit of the accuracy drop, if it has one.

    Raises IntegrityError "bad-outputs" where the arrays do not belong together, InputError where the metric fails or
    the labels are none for it.
    """
    device = _group(arrays, "device/")
    if not device:
        return None
    reference, host = _group(arrays, "float/"), _group(arrays, "quantized/")
    _require_alike(device, reference)
    _require_alike(device, host)
    samples = len(next(iter(device.values())))
    bad = _bad_rows(device, host or reference, samples)
    labels = arrays.get("labels")
    accuracy = bound = None
    if labels is not None and bad == 0:
        if len(labels) != samples:
            raise _mixed_up(f"{samples} outputs, {len(labels)} labels")
        metric.refuse_labels([array.shape for array in device.values()], labels, "The release's check set")
        accuracy, bound = _accuracy(metric, reference, device, labels, max_drop)
    parity = _parity(device, host, samples) if host and bad == 0 else None
    return Comparison(samples, bad, accuracy, bound, parity)


def _accuracy(
    metric: Metric,
    reference: Mapping[str, Array],
    device: Mapping[str, Array],
    labels: Array,
    max_drop: float | None,
) -> tuple[Accuracy, float | None]:
    if not reference:
        return compare_accuracy(metric, None, device, labels), None
    drop = measure_drop(metric, reference, device, labels)
    bounds = drop.interval(ONE_SIDED_95)
    return drop.accuracy(max_drop), None if bounds is None else bounds.high


def _parity(device: Mapping[str, Array], host: Mapping[str, Array], samples: int) -> Parity:
    """The largest difference over all outputs; the agreement of the top class where the one output has classes."""
    error = max(_largest_difference(device[name].astype(np.float64), host[name]) for name in device)
    agreement = None
    if len(device) == 1:
        ours, theirs = (_only(outputs).reshape(samples, -1) for outputs in (device, host))
        if ours.shape[1] > 1:
            agreement = float(np.mean(ours.argmax(axis=1) == theirs.argmax(axis=1)))
    return Parity(agreement, error, samples)


def _largest_difference(ours: Array, theirs: Array) -> float:
    """Over the numbers; an infinity has no distance from another."""
    finite = np.isfinite(ours) & np.isfinite(theirs)
    return float(np.max(np.abs(ours[finite] - theirs[finite]), initial=0.0))


def _bad_rows(device: Mapping[str, Array], host: Mapping[str, Array], samples: int) -> int:
    bad = np.zeros(samples, bool)
    for name, array in device.items():
        wrong = np.isnan(array)
        allowed = np.isinf(host[name]) if name in host else np.zeros(array.shape, bool)
        wrong |= np.isinf(array) & ~allowed
        bad |= wrong.reshape(samples, -1).any(axis=1)
    return int(bad.sum())


def _group(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    return {name.removeprefix(prefix): arrays[name] for name in sorted(arrays) if name.startswith(prefix)}


def _only(outputs: Mapping[str, Array]) -> Array:
    return next(iter(outputs.values()))


def _require_alike(device: Mapping[str, Array], other: Mapping[str, Array]) -> None:
    if not other:
        if len({len(array) for array in device.values()}) > 1 or not len(_only(device)):
            raise _mixed_up("outputs of different lengths, or of none")
        return
    shapes = [{name: array.shape for name, array in outputs.items()} for outputs in (device, other)]
    if shapes[0] != shapes[1]:
        raise _mixed_up(f"the device gave {shapes[0]}, the check set holds {shapes[1]}")


def _mixed_up(what: str) -> IntegrityError:
    return IntegrityError(
        "bad-outputs",
        f"The device's outputs do not belong to the check set: {what}.",
        hint="Quantize, bundle and push again.",
    )
