"""What a .tflite holds, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a subgraph.

    ``shape`` is what the file pins, ``shape_signature`` holds -1 where the size is open. ``scales`` and
    ``zero_points`` are empty on a tensor that is not quantized, and longer than one along ``quantized_dimension``.
    ``constant`` tensors have their ``bytes`` in the file (0 for the others); ``values`` are those of small constants
    of whole numbers (axes, strides, paddings), row by row, empty for all others. ``sparse`` constants leave out zeros;
    ``blockwise`` ones have a scale per block of numbers, in a tensor of its own; ``overflown`` ones of
    float16 hold an infinity: a number beyond 65504 was put into it. ``offset`` is where a constant's bytes begin in the
    model.
    """

    index: int
    subgraph: int
    name: str
    shape: tuple[int, ...]
    shape_signature: tuple[int, ...]
    dtype: str
    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    quantized_dimension: int
    constant: bool
    bytes: int
    values: tuple[int, ...] = ()
    sparse: bool = False
    blockwise: bool = False
    overflown: bool = False
    offset: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator, in the order of execution; ``inputs`` and ``outputs`` are tensor indices, -1 for one left out.

    ``options`` are its scalar options by the schema's names (``stride_w``); enumerations as the schema's numbers.
    """

    index: int
    subgraph: int
    name: str
    version: int
    custom_name: str | None
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, int | float | bool] = field(default_factory=dict, hash=False)

    @property
    def kind(self) -> str:
        """What people call it: "CONV_2D", or the name of a custom operator."""
        return self.custom_name or self.name


@dataclass(frozen=True, slots=True)
class Signature:
    """A named entry: ``inputs`` and ``outputs`` map the names of the source model to tensor indices."""

    key: str
    subgraph: int
    inputs: tuple[tuple[str, int], ...]
    outputs: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class TfliteModel:
    """What a .tflite holds; ``inputs`` and ``outputs`` are those of the first subgraph, the one that runs.

    ``tensors`` lie subgraph after subgraph; ``subgraph_starts`` says where each begins.
    """

    path: Path
    bytes: int
    operators: tuple[Operator, ...]
    tensors: tuple[Tensor, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    signatures: tuple[Signature, ...]
    subgraph_starts: tuple[int, ...]

    def tensor(self, subgraph: int, index: int) -> Tensor:
        """The tensor with ``index`` in ``subgraph``; both come from an operator or a signature of this model."""
        return self.tensors[self.subgraph_starts[subgraph] + index]

    @property
    def named_inputs(self) -> tuple[tuple[str, Tensor], ...]:
        """The inputs under the source model's names (the signature's; else the tensors' own), in the tensors' order."""
        return self._named(self.inputs, self.signatures[0].inputs if self.signatures else ())

    @property
    def named_outputs(self) -> tuple[tuple[str, Tensor], ...]:
        """The outputs under the source model's names (the signature's; else the tensors' own)."""
        return self._named(self.outputs, self.signatures[0].outputs if self.signatures else ())

    def _named(
        self, tensors: tuple[Tensor, ...], signature: tuple[tuple[str, int], ...]
    ) -> tuple[tuple[str, Tensor], ...]:
        names = {index: name for name, index in signature}
        if self.signatures and self.signatures[0].subgraph != 0:
            names = {}
        return tuple((names.get(tensor.index, tensor.name), tensor) for tensor in tensors)
