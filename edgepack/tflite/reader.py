"""Reads a .tflite through the schema's generated code (the package ``tflite``), believing nothing that it says.

Every count is held against the file's size before it is used, and whatever is wrong with a file ends in
:class:`~edgepack.errors.InputError`. Layout: tensorflow/lite/schema/schema.fbs (TFLite schema, v3).
"""

from __future__ import annotations

import functools
import itertools
import math
import mmap
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgepack.errors import InputError
from edgepack.files import require_regular
from edgepack.tflite.options import read_options
from edgepack.tflite.values import Operator, Signature, Tensor, TfliteModel

_IDENTIFIER = b"TFL3"
_SCHEMA_VERSION = 3
_MOST_DIMENSIONS = 64
_MOST_VALUES = 64
_WHOLE = {"int32": "i", "int64": "q"}
_BLOCKWISE = 2  # union QuantizationDetails
_BITS = {
    "float64": 64, "float32": 32, "float16": 16, "bfloat16": 16, "int64": 64, "int32": 32, "int16": 16, "int8": 8,
    "uint64": 64, "uint32": 32, "uint16": 16, "uint8": 8, "int4": 4, "bool": 8, "complex64": 64, "complex128": 128,
    "int2": 2, "uint4": 4, "float8_e4m3fn": 8, "float8_e5m2": 8,
}  # fmt: skip
# What ai-edge-litert 2.3 (schema_py_generated.py) knows and the package `tflite` does not yet.
_NEWER_DTYPES = {19: "int2", 20: "uint4", 21: "float8_e4m3fn", 22: "float8_e5m2"}
_NEWER_OPERATORS = {209: "STABLEHLO_CASE"}


def read_model(path: str | Path, *, region: tuple[int, int] | None = None) -> TfliteModel:
    """The model in the file, or in the ``region`` (offset and length) of a file that holds it among other things.

    Raises InputError: "no-such-model" (no file), "not-a-tflite" (something else), "broken-model" (cut short, damaged).
    """
    path = Path(path)
    with _opened(path, region) as reader:
        return reader.model()


def buffer_regions(path: str | Path) -> tuple[tuple[int, int], ...]:
    """Offset and length in bytes of every constant buffer inside the file, sorted, disjoint, none empty.

    Raises InputError as :func:`read_model` does.
    """
    with _opened(Path(path)) as reader:
        regions, end = [], 0
        for offset, length in sorted({region for region in reader.regions() if region[1]}):
            if offset >= end:
                regions.append((offset, length))
                end = offset + length
        return tuple(regions)


def is_tflite(path: Path) -> bool:
    """Whether a file carries the mark of a .tflite."""
    with path.open("rb") as file:
        return file.read(8)[4:] == _IDENTIFIER


@contextmanager
def _opened(path: Path, region: tuple[int, int] | None = None) -> Iterator[_Reader]:
    """A reader over the mapped file; whatever a damaged file makes the generated code raise becomes InputError."""
    require_regular(path)
    try:
        with path.open("rb") as file:
            offset, length = region or (0, file.seek(0, 2))
            file.seek(offset)
            head = file.read(8)
            if len(head) < 8 or head[4:] != _IDENTIFIER:
                raise InputError(
                    "not-a-tflite",
                    f"{path} is no .tflite model: it does not carry the mark TFL3.",
                    hint="Name a file that `edgepack quantize` or TFLiteConverter wrote.",
                )
            with (
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
                memoryview(mapped) as whole,
                whole[offset : offset + length] as view,
            ):
                try:
                    yield _Reader(path, view)
                except (struct.error, IndexError, TypeError, KeyError, OverflowError, UnicodeError) as fault:
                    raise _broken(path, f"its tables point beyond its {len(view):,} bytes, or are garbled") from fault
                except ValueError as fault:  # the reader's own
                    raise _broken(path, str(fault)) from fault
    except OSError as fault:
        raise InputError(
            "no-such-model", f"{path} cannot be read: {fault.strerror or fault}.", hint="Check the path of the model."
        ) from fault


def _broken(path: Path, why: str) -> InputError:
    return InputError(
        "broken-model",
        f"{path} is a damaged .tflite model: {why}.",
        hint="Convert it again, or compare its size and SHA-256 with those of the original.",
    )


class _Reader:
    """Walks one flatbuffer. ``_left`` counts down how many elements a file of this size can hold at all."""

    def __init__(self, path: Path, view: memoryview) -> None:
        import tflite

        self._path = path
        self._view = view
        self._size = len(view)
        self._left = self._size
        self._root = tflite.Model.GetRootAs(view, 0)
        if self._root.Version() != _SCHEMA_VERSION:
            raise ValueError(f"its schema version is {self._root.Version()}, not {_SCHEMA_VERSION}")

    def model(self) -> TfliteModel:
        self._regions = self.regions()
        self._codes = self._each(self._root.OperatorCodesLength(), self._root.OperatorCodes)
        subgraphs = self._each(self._root.SubgraphsLength(), self._root.Subgraphs)
        if not subgraphs:
            raise ValueError("it holds no subgraph")
        tensors = [self._tensors(number, subgraph) for number, subgraph in enumerate(subgraphs)]
        operators = [
            operator
            for number, subgraph in enumerate(subgraphs)
            for operator in self._operators(number, subgraph, len(tensors[number]))
        ]
        main = subgraphs[0]
        return TfliteModel(
            path=self._path,
            bytes=self._size,
            operators=tuple(operators),
            tensors=tuple(tensor for group in tensors for tensor in group),
            inputs=tuple(tensors[0][_index(i, len(tensors[0]))] for i in self._numbers("i", main, 6)),
            outputs=tuple(tensors[0][_index(i, len(tensors[0]))] for i in self._numbers("i", main, 8)),
            signatures=self._signatures([len(group) for group in tensors]),
            subgraph_starts=tuple(itertools.accumulate((len(group) for group in tensors[:-1]), initial=0)),
        )

    def regions(self) -> list[tuple[int, int]]:
        """Offset and length of each buffer in the file, by the buffer's index; (0, 0) for an empty one."""
        regions = []
        for buffer in self._each(self._root.BuffersLength(), self._root.Buffers):
            slot = buffer._tab.Offset(4)
            if slot:
                offset, length = buffer._tab.Vector(slot), buffer.DataLength()
            else:  # models over 2 GB keep their constants behind the flatbuffer (schema.fbs, table Buffer)
                offset, length = (buffer.Offset(), buffer.Size()) if buffer.Offset() > 1 else (0, 0)
            if offset + length > self._size:
                raise ValueError(f"a constant of {length} bytes lies beyond its end")
            regions.append((offset, length))
        return regions

    def _tensors(self, number: int, subgraph: Any) -> list[Tensor]:
        return [
            self._tensor(number, index, tensor)
            for index, tensor in enumerate(self._each(subgraph.TensorsLength(), subgraph.Tensors))
        ]

    def _tensor(self, number: int, index: int, tensor: Any) -> Tensor:
        shape = self._numbers("i", tensor, 4)
        if len(shape) > _MOST_DIMENSIONS:
            raise ValueError(f"tensor {index} has {len(shape)} dimensions")
        offset, length = self._regions[_index(tensor.Buffer(), len(self._regions))]
        dtype = _dtypes().get(tensor.Type(), f"type{tensor.Type()}")
        bits = _BITS.get(dtype)
        name = _text(tensor.Name())
        if length and bits and tensor.Sparsity() is None and (math.prod(shape) * bits + 7) // 8 != length:
            raise ValueError(f"tensor {name!r} of shape {list(shape)} and type {dtype} has {length} bytes of data")
        quantization = tensor.Quantization()
        return Tensor(
            index=index,
            subgraph=number,
            name=name,
            shape=shape,
            shape_signature=self._numbers("i", tensor, 18) or shape,
            dtype=dtype,
            scales=self._numbers("f", quantization, 8) if quantization else (),
            zero_points=self._numbers("q", quantization, 10) if quantization else (),
            quantized_dimension=quantization.QuantizedDimension() if quantization else 0,
            constant=length > 0,
            bytes=length,
            values=self._values(dtype, offset, length),
            sparse=tensor.Sparsity() is not None,
            blockwise=quantization is not None and quantization.DetailsType() == _BLOCKWISE,
            overflown=dtype == "float16" and self._overflown(offset, length),
            offset=offset if length else 0,
        )

    def _overflown(self, offset: int, length: int) -> bool:
        """Whether one of these float16 numbers is infinite."""
        import numpy as np

        return bool(np.isinf(np.frombuffer(self._view[offset : offset + length // 2 * 2], "<f2")).any())

    def _values(self, dtype: str, offset: int, length: int) -> tuple[int, ...]:
        """The numbers of a small constant, () for anything else."""
        code = _WHOLE.get(dtype)
        count = length // struct.calcsize(f"<{code}") if code else 0
        return struct.unpack_from(f"<{count}{code}", self._view, offset) if 0 < count <= _MOST_VALUES else ()

    def _operators(self, number: int, subgraph: Any, tensors: int) -> Iterator[Operator]:
        for index, operator in enumerate(self._each(subgraph.OperatorsLength(), subgraph.Operators)):
            code = self._codes[_index(operator.OpcodeIndex(), len(self._codes))]
            builtin = max(self._builtin_code(code), code.DeprecatedBuiltinCode())
            custom = code.CustomCode()
            inputs, outputs = self._numbers("i", operator, 6), self._numbers("i", operator, 8)
            for tensor in (*inputs, *outputs):
                if tensor != -1:
                    _index(tensor, tensors)
            yield Operator(
                index=index,
                subgraph=number,
                name=_operator_names().get(builtin, f"BUILTIN_{builtin}"),
                version=code.Version(),
                custom_name=None if custom is None else _text(custom),
                inputs=inputs,
                outputs=outputs,
                options=read_options(operator),
            )

    def _builtin_code(self, code: Any) -> int:
        """The code as schema 3a has it; 0 in older files, which keep it in a byte. The larger one counts
        (schema_utils.cc); the package's own accessor reads only the byte of codes under 127.
        """
        slot = code._tab.Offset(10)
        return int(struct.unpack_from("<i", self._view, code._tab.Pos + slot)[0]) if slot else 0

    def _signatures(self, tensors: list[int]) -> tuple[Signature, ...]:
        def named(maps: list[Any], subgraph: int) -> tuple[tuple[str, int], ...]:
            return tuple((_text(one.Name()), _index(one.TensorIndex(), tensors[subgraph])) for one in maps)

        signatures = []
        for entry in self._each(self._root.SignatureDefsLength(), self._root.SignatureDefs):
            subgraph = _index(entry.SubgraphIndex(), len(tensors))
            signatures.append(
                Signature(
                    key=_text(entry.SignatureKey()),
                    subgraph=subgraph,
                    inputs=named(self._each(entry.InputsLength(), entry.Inputs), subgraph),
                    outputs=named(self._each(entry.OutputsLength(), entry.Outputs), subgraph),
                )
            )
        return tuple(signatures)

    def _each(self, count: int, item: Callable[[int], Any]) -> list[Any]:
        self._spend(count, 4)
        return [item(number) for number in range(count)]

    def _numbers(self, code: str, table: Any, field: int) -> tuple[Any, ...]:
        """A vector of little-endian numbers (struct's ``code``) in the table's field at this vtable offset."""
        slot = table._tab.Offset(field)
        if not slot:
            return ()
        count = table._tab.VectorLen(slot)
        self._spend(count, struct.calcsize(f"<{code}"))
        return struct.unpack_from(f"<{count}{code}", self._view, table._tab.Vector(slot))

    def _spend(self, count: int, element_bytes: int) -> None:
        """Elements take room: a file that claims more of them than it has bytes for lies about a length."""
        self._left -= count * element_bytes
        if self._left < 0:
            raise ValueError("it claims more elements than its size can hold")


def _index(value: int, count: int) -> int:
    if not 0 <= value < count:
        raise ValueError(f"it refers to element {value} of {count}")
    return value


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "replace")


@functools.cache
def _dtypes() -> dict[int, str]:
    """Numbers of schema.fbs' enum TensorType to the names that numpy uses."""
    import tflite

    known = {number: name.lower() for name, number in vars(tflite.TensorType).items() if isinstance(number, int)}
    return _NEWER_DTYPES | known


@functools.cache
def _operator_names() -> dict[int, str]:
    """Numbers of schema.fbs' enum BuiltinOperator to their names."""
    import tflite

    known = {number: name for name, number in vars(tflite.BuiltinOperator).items() if isinstance(number, int)}
    return _NEWER_OPERATORS | known
