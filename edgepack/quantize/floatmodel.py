"""A float .tflite as a source: what goes in and comes out, and the file in today's form. Runs in the worker process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgepack.errors import InputError
from edgepack.quantize.arrays import Port
from edgepack.quantize.legacy import upgrade_codes
from edgepack.tflite import Tensor, read_model


@dataclass(frozen=True, slots=True)
class FloatModel:
    """``source`` is the user's file, ``path`` the same model as today's converters would have written it."""

    source: Path
    path: Path
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    @property
    def open_batch(self) -> bool:
        """Whether the batch, and nothing else, is open at the inputs: it can be pinned to 1 as it stands."""
        shapes = [port.shape for port in self.inputs if None in port.shape]
        return bool(shapes) and all(None not in shape[1:] for shape in shapes)

    def refuse_batch(self, batch: int | None) -> None:
        """Raise InputError "batch-fixed" for a batch that is not the file's: its tensors' shapes are settled."""
        for port in self.inputs:
            own = port.shape[0] if port.shape else None
            if batch not in (None, own or 1):
                raise InputError(
                    "batch-fixed",
                    f"{self.source} has a batch of {own or 1} at its input {port.name!r}, not {batch}.",
                    hint=f"Ask for it (--batch {own or 1}), or convert the model that it came from again.",
                )


def open_float_model(path: Path, scratch: Path) -> FloatModel:
    """The float .tflite at ``path``; what has to be changed of it goes into ``scratch``.

    Raises InputError as :func:`~edgepack.tflite.read_model` does, and "legacy-model".
    """
    model = read_model(path)
    current, upgraded = path, upgrade_codes(path)
    if upgraded is not None:
        current = scratch / "upgraded.tflite"
        current.write_bytes(upgraded)
    return FloatModel(
        path,
        current,
        tuple(_port(name, tensor) for name, tensor in model.named_inputs),
        tuple(_port(name, tensor) for name, tensor in model.named_outputs),
    )


def _port(name: str, tensor: Tensor) -> Port:
    return Port(name, tuple(None if size == -1 else size for size in tensor.shape_signature), tensor.dtype)
