"""The device's outputs over a check set against the host's: accuracy where there are labels, parity where it has both.

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

from edgepack.check.parity import measure_parity, row_pieces, top_classes, worst_rows
from edgepack.documents import Accuracy, ClassEvidence, LayerParity, Parity
from edgepack.errors import IntegrityError, MisfitError
from edgepack.metric import Metric, compare_accuracy, measure_drop
from edgepack.scoring import class_numbers
from edgepack.statistics import ONE_SIDED_95

Array = np.ndarray[Any, Any]

MAX_OUTPUT_BYTES = 1 << 30
"""What a check set's outputs may unpack to; a .npz can claim anything."""

MOST_CLASSES = 20_000
"""How many samples' class numbers are kept as evidence."""

MOST_ROWS = 3
"""How many of the worst samples are looked at layer by layer."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the device's outputs say; ``bad_outputs`` counts samples with NaN, or infinity where the host has none.

    ``drop_bound`` is the one-sided 95 % upper bound of the paired accuracy drop; None where the drop has no interval.
    ``classes`` are the class numbers where the metric is top1, ``worst`` the samples with the largest differences.
    ``layers`` are those that were compared.
    """

    samples: int
    bad_outputs: int
    accuracy: Accuracy | None
    drop_bound: float | None
    parity: Parity | None
    classes: ClassEvidence | None = None
    worst: tuple[int, ...] = ()
    layers: tuple[LayerParity, ...] = ()


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


def compare(
    arrays: Mapping[str, Array],
    metric: Metric,
    max_drop: float | None = None,
    scales: Mapping[str, float] | None = None,
    *,
    where: str = "The release's check set",
) -> Comparison | None:
    """Hold the device's outputs against labels and the host's outputs; None where the device gave none.

    ``max_drop`` is the budget's limit of the accuracy drop, if it has one. ``scales`` is one quantization step by
    output, for those that are integers. ``where`` the labels stand is told where they are none.

    Raises IntegrityError "bad-outputs" where the device's arrays do not belong together, MisfitError "other-outputs"
    where the check set's are of another shape, InputError where the metric fails or the labels are none for it.
    """
    device = _group(arrays, "device/")
    if not device:
        return None
    reference, host = _group(arrays, "float/"), _group(arrays, "quantized/")
    _require_together(device)
    _require_alike(device, reference)
    _require_alike(device, host)
    samples = len(next(iter(device.values())))
    bad = _bad_rows(device, host or reference, samples)
    if bad:
        return Comparison(samples, bad, None, None, None)
    labels = arrays.get("labels")
    accuracy = bound = classes = None
    if labels is not None:
        if len(labels) != samples:
            raise _misfit(f"{samples} outputs, {len(labels)} labels")
        metric.refuse_labels([array.shape for array in device.values()], labels, where)
        accuracy, bound = _accuracy(metric, reference, device, labels, max_drop)
        classes = _classes(metric, reference, device, labels)
    parity = measure_parity(device, host, reference, scales or {}) if host else None
    worst = worst_rows(device, host, MOST_ROWS) if host else ()
    return Comparison(samples, 0, accuracy, bound, parity, classes, worst)


def _classes(
    metric: Metric, reference: Mapping[str, Array], device: Mapping[str, Array], labels: Array
) -> ClassEvidence | None:
    found = top_classes(device)
    if metric.name != "top1" or found is None:
        return None
    (scores,) = device.values()
    truth = class_numbers(labels, scores.reshape(len(scores), -1).shape[1])
    expected = top_classes(reference) if reference else None
    columns = [truth, found, *([] if expected is None else [expected])]
    said = [tuple(column[:MOST_CLASSES].tolist()) for column in columns]
    return ClassEvidence(said[0], said[1], None if expected is None else said[2])


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


def _bad_rows(device: Mapping[str, Array], host: Mapping[str, Array], samples: int) -> int:
    bad = np.zeros(samples, bool)
    for name, array in device.items():
        for part in row_pieces(array):
            ours = array[part]
            allowed = np.isinf(host[name][part]) if name in host else np.zeros(ours.shape, bool)
            wrong = np.isnan(ours) | (np.isinf(ours) & ~allowed)
            bad[part] |= wrong.reshape(len(ours), -1).any(axis=1)
    return int(bad.sum())


def _group(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    return {name.removeprefix(prefix): arrays[name] for name in sorted(arrays) if name.startswith(prefix)}


def _only(outputs: Mapping[str, Array]) -> Array:
    return next(iter(outputs.values()))


def _require_together(device: Mapping[str, Array]) -> None:
    if len({len(array) for array in device.values()}) > 1 or not len(_only(device)):
        raise IntegrityError(
            "bad-outputs",
            "The device's outputs do not belong together: they are of different lengths, or of none.",
            hint="Push the bundle again, then check again.",
        )


def _require_alike(device: Mapping[str, Array], other: Mapping[str, Array]) -> None:
    shapes = [{name: array.shape for name, array in outputs.items()} for outputs in (device, other)]
    if other and shapes[0] != shapes[1]:
        raise _misfit(f"the device gave {shapes[0]}, the check set holds {shapes[1]}")


def _misfit(what: str) -> MisfitError:
    return MisfitError(
        "other-outputs",
        f"The check set was not made for this model: {what}.",
        hint="Quantize, bundle and push again.",
    )
