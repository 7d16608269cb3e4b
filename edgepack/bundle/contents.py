"""What a bundle's files are to a person: the model's inputs and outputs, its operators and weights, the check set."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from edgepack.bundle.manifest import CHECK_SET_NAME, MODEL_NAME
from edgepack.bundle.opened import Bundle, Entry
from edgepack.bundledocuments import BundleContents, CheckSetInfo, TensorInfo
from edgepack.errors import EdgepackError

if TYPE_CHECKING:
    from edgepack.tflite import Tensor, TfliteModel

_DEVICE_SIDE = ("loader.py", "edgepack_device.py", "recipe.json")


def read_contents(bundle: Bundle) -> BundleContents:
    """What :class:`BundleContents` says; a model or a check set that cannot be read leaves its part empty, and a note.

    What the bundle's maker found in the model stands in the manifest; where it does not, the model is read. Digests are
    not recomputed: a damaged bundle may tell damaged things, which ``verify`` finds.
    """
    notes: list[str] = []
    told = _told(bundle.manifest.contents)
    if told is None:
        try:
            told = _told(describe_model(read_bundled_model(bundle)))
        except EdgepackError as error:
            notes.append(error.message)
    check_set = None
    if CHECK_SET_NAME in bundle.entries:
        try:
            check_set = _check_set(bundle)
        except ValueError as error:
            notes.append(f"{CHECK_SET_NAME} cannot be read: {error}")
    return BundleContents(
        **(told or _NOTHING), check_set=check_set, part_bytes=part_bytes(bundle.entries.values()), notes=tuple(notes)
    )


_NOTHING: dict[str, Any] = {"inputs": (), "outputs": (), "operators": {}, "weight_bytes": {}, "parameters": 0}


def describe_model(model: TfliteModel) -> dict[str, Any]:
    """The model's part of :class:`BundleContents` as JSON values, for the manifest."""
    return {
        "inputs": [_port(name, tensor) for name, tensor in model.named_inputs],
        "outputs": [_port(name, tensor) for name, tensor in model.named_outputs],
        "operators": operator_counts(model),
        "weight_bytes": _weight_bytes(model.tensors),
        "parameters": sum(math.prod(tensor.shape) for tensor in model.tensors if tensor.constant),
    }


def _told(value: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What :func:`describe_model` wrote, typed; None where it is anything else."""
    try:
        if value is None:
            return None
        return {
            "inputs": tuple(_typed_port(port) for port in value["inputs"]),
            "outputs": tuple(_typed_port(port) for port in value["outputs"]),
            "operators": _most_first(value["operators"]),
            "weight_bytes": _most_first(value["weight_bytes"]),
            "parameters": int(value["parameters"]),
        }
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None


def read_bundled_model(bundle: Bundle) -> TfliteModel:
    """The model as it lies inside the bundle. Raises InputError where it is none."""
    from edgepack.tflite import read_model

    entry = bundle.entries[MODEL_NAME]
    return read_model(bundle.path, region=(entry.offset, entry.bytes))


def operator_counts(model: TfliteModel) -> dict[str, int]:
    """How often each kind of operator is there, the most frequent first."""
    return _most_first(Counter(operator.kind for operator in model.operators))


def _most_first(counts: Mapping[str, Any]) -> dict[str, int]:
    whole = {str(name): int(count) for name, count in counts.items()}
    return dict(sorted(whole.items(), key=lambda pair: (-pair[1], pair[0])))


def part_bytes(entries: Iterable[Entry]) -> dict[str, int]:
    """What takes the room: bytes of the model, the runtime's wheels, the check set, the device side, the rest."""
    parts = {"model": 0, "runtime": 0, "check set": 0, "device side": 0, "other": 0}
    for entry in entries:
        parts[_part(entry.path)] += entry.bytes
    return {part: count for part, count in parts.items() if count}


def _part(path: str) -> str:
    if path.startswith("wheels/"):
        return "runtime"
    return {MODEL_NAME: "model", CHECK_SET_NAME: "check set"}.get(
        path, "device side" if path in _DEVICE_SIDE else "other"
    )


def _port(name: str, tensor: Tensor) -> dict[str, Any]:
    return {
        "name": name,
        "dtype": tensor.dtype,
        "shape": list(tensor.shape_signature),
        "scale": [scale for scale in tensor.scales[:1] if math.isfinite(scale)],
        "zero_point": list(tensor.zero_points[:1]),
    }


def _typed_port(port: Mapping[str, Any]) -> TensorInfo:
    return TensorInfo(
        name=str(port["name"]),
        dtype=str(port["dtype"]),
        shape=tuple(int(size) for size in port["shape"]),
        scale=tuple(float(scale) for scale in port["scale"]),
        zero_point=tuple(int(point) for point in port["zero_point"]),
    )


def _weight_bytes(tensors: Iterable[Tensor]) -> dict[str, int]:
    counted: Counter[str] = Counter()
    for tensor in tensors:
        if tensor.constant:
            counted[tensor.dtype] += tensor.bytes
    return _most_first(counted)


def _check_set(bundle: Bundle) -> CheckSetInfo:
    """How many samples it holds, and whether they have labels; only the arrays' headers are read."""
    headers = bundle.check_set()
    first = next((header for name, header in headers.items() if name.startswith(("input/", "raw/"))), None)
    if first is not None and not first.shape:
        raise ValueError("its input is no array of samples")
    samples = first.shape[0] if first else 0
    return CheckSetInfo(samples, "labels" in headers, any(name.startswith("float/") for name in headers))
