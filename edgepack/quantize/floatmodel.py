"""A float .tflite as a source: what goes in and comes out, and the file in today's form, pinned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgepack.errors import InputError
from edgepack.quantize.arrays import Port
from edgepack.quantize.legacy import upgrade
from edgepack.quantize.pinning import pin
from edgepack.quantize.shapes import pin_file
from edgepack.tflite import Tensor, TfliteModel, read_model

_DTYPES = ("float32", "int32", "int64", "bool")


@dataclass(frozen=True, slots=True)
class FloatModel:
    """``source`` is the user's file; ``path`` is the same model as today's converters would have written it, pinned.

    ``judge`` is the file whose outputs a conversion is held against: the user's, or the pinned one, which was proven to
    answer alike.
    """

    source: Path
    path: Path
    judge: Path
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


def open_float_model(
    path: Path, scratch: Path, input_shapes: Sequence[str] = (), batch: int | None = None
) -> FloatModel:
    """The float .tflite at ``path``, pinned to those shapes and that batch; what is made of it goes into ``scratch``.

    Runs in the worker process.

    Raises InputError as :func:`~edgepack.tflite.read_model` does, and "legacy-model"; what
    :func:`~edgepack.quantize.shapes.pin_file` and :func:`~edgepack.quantize.pinning.pin` raise.
    """
    current, judge, upgraded = path, path, upgrade(path)
    if upgraded is not None:
        current = scratch / "upgraded.tflite"
        current.write_bytes(upgraded)
    model = read_model(current)
    inputs = float_inputs(path, model, input_shapes, batch)
    if inputs != _ports(model.named_inputs):
        current = judge = pin(path, current, inputs, scratch)
        model = read_model(current)
    return FloatModel(path, current, judge, inputs, _ports(model.named_outputs))


def float_inputs(source: Path, model: TfliteModel, input_shapes: Sequence[str], batch: int | None) -> tuple[Port, ...]:
    """The inputs of the float .tflite ``source``, as they are pinned.

    Raises InputError "already-quantized", "several-signatures", what :func:`~edgepack.quantize.shapes.pin_file` does.
    """
    small = [one.name for one in model.tensors if one.constant and (one.scales or one.dtype == "float16")]
    if small or any(tensor.dtype not in _DTYPES for _, tensor in model.named_inputs):
        raise InputError(
            "already-quantized",
            f"{source} is quantized already ({', '.join(map(repr, small[:3])) or 'its inputs'}).",
            hint="Bundle it as it is: edgepack bundle MODEL.tflite ...",
        )
    _refuse_several_signatures(source, model)
    return pin_file(source, _ports(model.named_inputs), input_shapes, batch)


def _refuse_several_signatures(source: Path, model: TfliteModel) -> None:
    """Of several functions in one file only the first would be converted for and judged; other names for it may be."""
    functions = {
        (one.subgraph, frozenset(index for _, index in one.inputs), frozenset(index for _, index in one.outputs))
        for one in model.signatures
    }
    if len(functions) > 1:
        names = ", ".join(one.key for one in model.signatures)
        raise InputError(
            "several-signatures",
            f"{source} has several signatures ({names}), and edgepack converts a .tflite of one.",
            hint="Give the SavedModel that it was made of, with --signature NAME; or convert one signature alone.",
            available=[one.key for one in model.signatures],
        )


def _ports(named: Sequence[tuple[str, Tensor]]) -> tuple[Port, ...]:
    """Inputs or outputs, with None for the sizes that are open."""
    return tuple(
        Port(name, tuple(None if size == -1 else size for size in tensor.shape_signature), tensor.dtype)
        for name, tensor in named
    )
