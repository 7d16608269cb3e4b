"""What changed from one .tflite to another, in terms of its inputs, operators and tensors; pure but for the constants.

Tensors are matched by name, operators by the tensor that they write: converters keep both from one training run to the
next. What has no namesake was added or removed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from edgepack.tflite import Operator, Tensor, TfliteModel

ReadConstant = Callable[[Tensor], "memoryview | bytes"]

# What one number may be compared as. Other types are compared byte by byte.
_COMPARABLE = {
    "float64": "<f8", "float32": "<f4", "float16": "<f2", "int64": "<i8", "int32": "<i4", "int16": "<i2", "int8": "i1",
    "uint64": "<u8", "uint32": "<u4", "uint16": "<u2", "uint8": "u1", "bool": "u1",
}  # fmt: skip


def compare_models(
    old: TfliteModel, new: TfliteModel, old_bytes: ReadConstant, new_bytes: ReadConstant
) -> dict[str, Any]:
    """``inputs``, ``outputs``, ``operators`` and ``tensors``: what was added, removed and changed, and how.

    The two functions give a constant's bytes. Each change has ``name``, ``what`` ("type", "shape", "scale",
    "zero point", "values", "kind", "version" or an option's name), ``before`` and ``after`` as text.
    """
    tensors = _matched(_named(old), _named(new))
    pairs = tensors["pairs"]
    changed = [
        line
        for name, (before, after) in pairs.items()
        for line in _tensor_changes(name, before, after, old_bytes, new_bytes)
    ]
    return {
        "inputs": _port_changes(old.named_inputs, new.named_inputs),
        "outputs": _port_changes(old.named_outputs, new.named_outputs),
        "operators": _operator_changes(old, new),
        "tensors": {
            "added": [_described(name, tensor) for name, tensor in tensors["added"].items()],
            "removed": [_described(name, tensor) for name, tensor in tensors["removed"].items()],
            "changed": changed,
            "unchanged": len(pairs) - len({line["name"] for line in changed}),
        },
    }


def _matched(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        "pairs": {name: (one, new[name]) for name, one in old.items() if name in new},
        "added": {name: one for name, one in new.items() if name not in old},
        "removed": {name: one for name, one in old.items() if name not in new},
    }


def _named(model: TfliteModel) -> dict[str, Tensor]:
    """Each tensor by its name; the second of a name, and those of other subgraphs, are told apart by numbers."""
    named: dict[str, Tensor] = {}
    for tensor in model.tensors:
        base = f"subgraph {tensor.subgraph}: {tensor.name}" if tensor.subgraph else tensor.name
        name, count = base, 1
        while name in named:
            count += 1
            name = f"{base} ({count})"
        named[name] = tensor
    return named


def _described(name: str, tensor: Tensor) -> dict[str, str]:
    return {"name": name, "type": tensor.dtype, "shape": _shape(tensor.shape)}


def _tensor_changes(
    name: str, old: Tensor, new: Tensor, old_bytes: ReadConstant, new_bytes: ReadConstant
) -> Iterator[dict[str, str]]:
    yield from _lines(name, "type", old.dtype, new.dtype)
    yield from _lines(name, "shape", _shape(old.shape_signature), _shape(new.shape_signature))
    if old.dtype == new.dtype:  # that another type has other scales, or none, needs no saying
        if old.scales != new.scales:
            yield _line(name, "scale", _numbers(old.scales), _numbers(new.scales))
        if old.zero_points != new.zero_points:
            yield _line(name, "zero point", _numbers(old.zero_points), _numbers(new.zero_points))
    if old.constant != new.constant:
        yield _line(name, "values", _kind_of(old), _kind_of(new))
    elif old.constant and (old.dtype, old.shape, old.sparse) == (new.dtype, new.shape, new.sparse):
        difference = value_difference(old_bytes(old), new_bytes(new), old.dtype)
        if difference:
            yield _line(name, "values", f"{math.prod(old.shape)} numbers", difference)


def _kind_of(tensor: Tensor) -> str:
    return "constant" if tensor.constant else "computed"


def value_difference(old: memoryview | bytes, new: memoryview | bytes, dtype: str) -> str:
    """How two constants of one type and shape differ, as "12 differ, by up to 3"; "" where they are the same."""
    if old == new:
        return ""
    if dtype not in _COMPARABLE or len(old) != len(new):
        return f"other {dtype} numbers"
    import numpy as np

    before, after = (np.frombuffer(one, _COMPARABLE[dtype]) for one in (old, new))
    differs = before != after
    count = int(np.count_nonzero(differs))
    if dtype == "bool" or not count:
        return f"{count} differ" if count else "other signs of zero"
    with np.errstate(all="ignore"):
        largest = float(np.max(np.abs(before[differs].astype(np.float64) - after[differs].astype(np.float64))))
    return f"{count} differ, by up to {largest:.3g}"


def _port_changes(old: Sequence[tuple[str, Tensor]], new: Sequence[tuple[str, Tensor]]) -> list[dict[str, str]]:
    """What a program that calls the model would notice: names, types, shapes, scales."""
    found = _matched(dict(old), dict(new))
    lines = [_line(name, "input or output", _port(one), "absent") for name, one in found["removed"].items()]
    lines += [_line(name, "input or output", "absent", _port(one)) for name, one in found["added"].items()]
    for name, (before, after) in found["pairs"].items():
        lines += _lines(name, "form", _port(before), _port(after))
    return lines


def _port(tensor: Tensor) -> str:
    quantized = f", scale {tensor.scales[0]:.6g}, zero point {tensor.zero_points[0]}" if tensor.scales else ""
    return f"{tensor.dtype} {_shape(tensor.shape_signature)}{quantized if tensor.zero_points else ''}"


def _operator_changes(old: TfliteModel, new: TfliteModel) -> dict[str, Any]:
    found = _matched(_writers(old), _writers(new))
    changed = []
    for name, (before, after) in found["pairs"].items():
        changed += _lines(name, "kind", before.kind, after.kind)
        changed += _lines(name, "version", str(before.version), str(after.version))
        if before.kind == after.kind:
            options = sorted(before.options.keys() | after.options.keys())
            for option in options:
                changed += _lines(name, option, str(before.options.get(option)), str(after.options.get(option)))
    return {
        "added": [{"kind": one.kind, "name": name} for name, one in found["added"].items()],
        "removed": [{"kind": one.kind, "name": name} for name, one in found["removed"].items()],
        "changed": changed,
    }


def _writers(model: TfliteModel) -> dict[str, Operator]:
    """Each operator by the name of the first tensor that it writes."""
    names = {(tensor.subgraph, tensor.index): name for name, tensor in _named(model).items()}
    return {
        names[operator.subgraph, operator.outputs[0]]: operator
        for operator in model.operators
        if operator.outputs and operator.outputs[0] >= 0
    }


def _lines(name: str, what: str, before: str, after: str) -> list[dict[str, str]]:
    return [] if before == after else [_line(name, what, before, after)]


def _line(name: str, what: str, before: str, after: str) -> dict[str, str]:
    return {"name": name, "what": what, "before": before, "after": after}


def _shape(shape: Iterable[int]) -> str:
    return "[" + ", ".join("?" if size == -1 else str(size) for size in shape) + "]"


def _numbers(values: Sequence[float]) -> str:
    """One number, or how many and between which."""
    if not values:
        return "none"
    if len(values) == 1:
        return f"{values[0]:.6g}"
    low, high = min(values), max(values)
    return f"{len(values)} of them, " + (f"all {low:.4g}" if low == high else f"{low:.4g} to {high:.4g}")
