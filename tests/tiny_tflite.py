"""A .tflite of one int8 dense layer, written with the schema's own builder: 3 inputs, 2 outputs, 6 weights."""

from __future__ import annotations

from typing import Any

import flatbuffers
import tflite


def _vector(builder: Any, code: str, values: list[Any]) -> int:
    prepend = {"i": builder.PrependInt32, "q": builder.PrependInt64, "f": builder.PrependFloat32}[code]
    size = 8 if code == "q" else 4
    builder.StartVector(size, len(values), size)
    for value in reversed(values):
        prepend(value)
    return int(builder.EndVector())


def _offsets(builder: Any, values: list[int]) -> int:
    builder.StartVector(4, len(values), 4)
    for value in reversed(values):
        builder.PrependUOffsetTRelative(value)
    return int(builder.EndVector())


def _tensor(builder: Any, name: str, shape: list[int], buffer: int, scales: list[float], signature: list[int]) -> int:
    text, sizes, open_sizes = builder.CreateString(name), _vector(builder, "i", shape), _vector(builder, "i", signature)
    scale, zero = _vector(builder, "f", scales), _vector(builder, "q", [0] * len(scales))
    tflite.QuantizationParametersStart(builder)
    tflite.QuantizationParametersAddScale(builder, scale)
    tflite.QuantizationParametersAddZeroPoint(builder, zero)
    quantization = tflite.QuantizationParametersEnd(builder)
    tflite.TensorStart(builder)
    tflite.TensorAddShape(builder, sizes)
    tflite.TensorAddShapeSignature(builder, open_sizes)
    tflite.TensorAddType(builder, tflite.TensorType.INT8)
    tflite.TensorAddBuffer(builder, buffer)
    tflite.TensorAddName(builder, text)
    tflite.TensorAddQuantization(builder, quantization)
    return int(tflite.TensorEnd(builder))


def _subgraph(builder: Any) -> int:
    tensors = [
        _tensor(builder, "in:0", [1, 3], 0, [0.1], [-1, 3]),
        _tensor(builder, "weights", [2, 3], 1, [0.5, 0.25], [2, 3]),
        _tensor(builder, "out:0", [1, 2], 0, [0.2], [-1, 2]),
    ]
    taken, given = _vector(builder, "i", [0, 1, -1]), _vector(builder, "i", [2])
    tflite.OperatorStart(builder)
    tflite.OperatorAddInputs(builder, taken)
    tflite.OperatorAddOutputs(builder, given)
    operators = _offsets(builder, [tflite.OperatorEnd(builder)])
    all_tensors = _offsets(builder, tensors)
    inputs, outputs = _vector(builder, "i", [0]), _vector(builder, "i", [2])
    tflite.SubGraphStart(builder)
    tflite.SubGraphAddTensors(builder, all_tensors)
    tflite.SubGraphAddInputs(builder, inputs)
    tflite.SubGraphAddOutputs(builder, outputs)
    tflite.SubGraphAddOperators(builder, operators)
    return int(tflite.SubGraphEnd(builder))


def _named(builder: Any, name: str, index: int) -> int:
    text = builder.CreateString(name)
    tflite.TensorMapStart(builder)
    tflite.TensorMapAddName(builder, text)
    tflite.TensorMapAddTensorIndex(builder, index)
    return _offsets(builder, [tflite.TensorMapEnd(builder)])


def tiny_model(version: int = 4) -> bytes:
    """The bytes of the file; the weights are 1 to 6, ``version`` is that of the operator."""
    builder = flatbuffers.Builder(1024)
    weights = builder.CreateByteVector(bytes(range(1, 7)))
    tflite.BufferStart(builder)
    empty = tflite.BufferEnd(builder)
    tflite.BufferStart(builder)
    tflite.BufferAddData(builder, weights)
    buffers = _offsets(builder, [empty, tflite.BufferEnd(builder)])
    subgraphs = _offsets(builder, [_subgraph(builder)])
    tflite.OperatorCodeStart(builder)
    tflite.OperatorCodeAddDeprecatedBuiltinCode(builder, tflite.BuiltinOperator.FULLY_CONNECTED)
    tflite.OperatorCodeAddBuiltinCode(builder, tflite.BuiltinOperator.FULLY_CONNECTED)
    tflite.OperatorCodeAddVersion(builder, version)
    codes = _offsets(builder, [tflite.OperatorCodeEnd(builder)])
    key, inputs, outputs = (
        builder.CreateString("serving_default"),
        _named(builder, "image", 0),
        _named(builder, "scores", 2),
    )
    tflite.SignatureDefStart(builder)
    tflite.SignatureDefAddInputs(builder, inputs)
    tflite.SignatureDefAddOutputs(builder, outputs)
    tflite.SignatureDefAddSignatureKey(builder, key)
    signatures = _offsets(builder, [tflite.SignatureDefEnd(builder)])
    tflite.ModelStart(builder)
    tflite.ModelAddVersion(builder, 3)
    tflite.ModelAddOperatorCodes(builder, codes)
    tflite.ModelAddSubgraphs(builder, subgraphs)
    tflite.ModelAddBuffers(builder, buffers)
    tflite.ModelAddSignatureDefs(builder, signatures)
    builder.Finish(tflite.ModelEnd(builder), b"TFL3")
    return bytes(builder.Output())
