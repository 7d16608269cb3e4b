"""Compiled .tflite files as an accelerator's compiler leaves them, and programs that stand in for a compiler.

As a program, ``compiled_tflite.py MODEL GOAL``: what edgetpu_compiler makes of MODEL. Its inputs and outputs keep their
tensors' names, types and quantization; the operators became one ``edgetpu-custom-op``; signatures are gone.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flatbuffers
import tflite

from edgepack.tflite import Tensor, read_model

EDGETPU = "edgetpu-custom-op"
ROOT = Path(__file__).resolve().parent.parent


def compiled_model(inputs: Sequence[Tensor], outputs: Sequence[Tensor], *, custom: str | None = EDGETPU) -> bytes:
    """A model with that border; ``custom`` None leaves everything to the CPU's SOFTMAX."""
    b = flatbuffers.Builder(1024)
    tflite.BufferStart(b)
    buffers = _offsets(b, [tflite.BufferEnd(b)])
    tensors = _offsets(b, [_tensor(b, tensor) for tensor in (*inputs, *outputs)])
    taken = _numbers(b, "i", list(range(len(inputs))))
    given = _numbers(b, "i", list(range(len(inputs), len(inputs) + len(outputs))))
    tflite.OperatorStart(b)
    tflite.OperatorAddInputs(b, taken)
    tflite.OperatorAddOutputs(b, given)
    operators = _offsets(b, [tflite.OperatorEnd(b)])
    tflite.SubGraphStart(b)
    tflite.SubGraphAddTensors(b, tensors)
    tflite.SubGraphAddInputs(b, taken)
    tflite.SubGraphAddOutputs(b, given)
    tflite.SubGraphAddOperators(b, operators)
    subgraphs = _offsets(b, [tflite.SubGraphEnd(b)])
    name = b.CreateString(custom) if custom else None
    builtin = tflite.BuiltinOperator.CUSTOM if custom else tflite.BuiltinOperator.SOFTMAX
    tflite.OperatorCodeStart(b)
    tflite.OperatorCodeAddDeprecatedBuiltinCode(b, builtin)
    tflite.OperatorCodeAddBuiltinCode(b, builtin)
    tflite.OperatorCodeAddVersion(b, 1)
    if name is not None:
        tflite.OperatorCodeAddCustomCode(b, name)
    codes = _offsets(b, [tflite.OperatorCodeEnd(b)])
    tflite.ModelStart(b)
    tflite.ModelAddVersion(b, 3)
    tflite.ModelAddOperatorCodes(b, codes)
    tflite.ModelAddSubgraphs(b, subgraphs)
    tflite.ModelAddBuffers(b, buffers)
    b.Finish(tflite.ModelEnd(b), b"TFL3")
    return bytes(b.Output())


def _tensor(b: Any, tensor: Tensor) -> int:
    name, shape = b.CreateString(tensor.name), _numbers(b, "i", list(tensor.shape))
    scale, zero = _numbers(b, "f", list(tensor.scales)), _numbers(b, "q", list(tensor.zero_points))
    tflite.QuantizationParametersStart(b)
    tflite.QuantizationParametersAddScale(b, scale)
    tflite.QuantizationParametersAddZeroPoint(b, zero)
    quantization = tflite.QuantizationParametersEnd(b)
    tflite.TensorStart(b)
    tflite.TensorAddShape(b, shape)
    tflite.TensorAddType(b, getattr(tflite.TensorType, tensor.dtype.upper()))
    tflite.TensorAddBuffer(b, 0)
    tflite.TensorAddName(b, name)
    tflite.TensorAddQuantization(b, quantization)
    return int(tflite.TensorEnd(b))


def _numbers(b: Any, code: str, values: list[Any]) -> int:
    sizes = {"i": (b.PrependInt32, 4), "f": (b.PrependFloat32, 4), "q": (b.PrependInt64, 8)}
    prepend, size = sizes.get(code, (b.PrependUOffsetTRelative, 4))
    b.StartVector(size, len(values), size)
    for value in reversed(values):
        prepend(value)
    return int(b.EndVector())


def _offsets(b: Any, values: list[int]) -> int:
    return _numbers(b, "o", values)


def write_program(path: Path, body: str) -> Path:
    """A shell script as the program ``path``. In it ``$1`` is {model} and ``$2`` {outdir}."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def stand_in_for_edgetpu(path: Path) -> Path:
    """A program that answers as edgetpu_compiler does, and writes what that would write."""
    return write_program(
        path,
        'if [ "$1" = --version ]; then echo "Edge TPU Compiler version 16.0.384591198"; exit; fi\n'
        f'PYTHONPATH={ROOT} exec {sys.executable} {Path(__file__).resolve()} "$1" "$2/model_edgetpu.tflite"',
    )


if __name__ == "__main__":
    source = read_model(sys.argv[1])
    Path(sys.argv[2]).write_bytes(compiled_model(source.inputs, source.outputs))
