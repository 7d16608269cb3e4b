"""Sizes that a float .tflite computes from its inputs' shapes, made into constants. Runs in the worker process.

A model with open sizes asks for them as it runs (SHAPE, STRIDED_SLICE, PACK, then RESHAPE), so that a runtime cannot
tell the shape of what comes out before it has run. Once the inputs are pinned these numbers are the same in every run;
a converter that had known the sizes would have written them down.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from edgepack.tflite import TfliteModel

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_ASKING = ("SHAPE", "RANK")
# Operators that give the same numbers for the same numbers, as converters use them on sizes.
_ARITHMETIC = frozenset({
    "ABS", "ADD", "BROADCAST_ARGS", "BROADCAST_TO", "CAST", "CONCATENATION", "DIV", "EQUAL", "EXPAND_DIMS", "FILL",
    "FLOOR_DIV", "FLOOR_MOD", "GATHER", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL", "LOGICAL_AND",
    "LOGICAL_NOT", "LOGICAL_OR", "MAXIMUM", "MINIMUM", "MUL", "NEG", "NOT_EQUAL", "PACK", "RANGE", "REDUCE_MAX",
    "REDUCE_MIN", "REDUCE_PROD", "RESHAPE", "REVERSE_V2", "SELECT", "SELECT_V2", "SLICE", "SPLIT", "SQUEEZE",
    "STRIDED_SLICE", "SUB", "SUM", "TILE", "TRANSPOSE", "UNPACK", "UNSORTED_SEGMENT_MAX",
    "UNSORTED_SEGMENT_MIN", "UNSORTED_SEGMENT_PROD", "UNSORTED_SEGMENT_SUM",
})  # fmt: skip
_WHOLE = ("int32", "int64", "bool")


def computed_sizes(model: TfliteModel, unsettled: Collection[int]) -> dict[int, int]:
    """The tensors that hang on nothing but shapes, each with the number of the operator that gives it.

    All are of the first subgraph, whole numbers or truth values, and none is an output of the model. ``unsettled``
    tensors are those whose own shape a run decides: what is said of it is no constant.
    """
    given = {tensor.index for tensor in model.outputs}
    known = {tensor.index for tensor in model.tensors if tensor.subgraph == 0 and tensor.constant}
    folded: dict[int, int] = {}
    for operator in model.operators:
        if operator.subgraph or given.intersection(operator.outputs):
            continue
        read = [index for index in operator.inputs if index >= 0]
        settled = operator.name in _ASKING and read[0] not in unsettled
        computed = operator.name in _ARITHMETIC and all(index in known for index in read)
        if not settled and not computed:
            continue
        if all(model.tensor(0, index).dtype in _WHOLE for index in operator.outputs):
            folded |= dict.fromkeys(operator.outputs, operator.index)
            known.update(operator.outputs)
    return folded


def asked_for(model: TfliteModel, folded: Mapping[int, int]) -> set[int]:
    """The tensors whose shapes are asked for by the operators that :func:`computed_sizes` folds."""
    numbers = set(folded.values())
    asking = (one for one in model.operators if one.subgraph == 0 and one.index in numbers and one.name in _ASKING)
    return {one.inputs[0] for one in asking}


def fold(objects: Any, folded: Mapping[int, int], values: Mapping[int, Array]) -> None:
    """Put ``values`` in the place of the operators that compute them; ``objects`` is changed.

    Operator codes that nothing uses any more go too: a runtime wants to have them all.
    """
    main = objects.subgraphs[0]
    gone = set(folded.values())
    main.operators = [operator for number, operator in enumerate(main.operators) if number not in gone]
    wanted = {index for operator in main.operators for index in operator.inputs}
    for index in folded:
        tensor = main.tensors[index]
        tensor.shape, tensor.shapeSignature = list(values[index].shape), None
        if index in wanted:
            tensor.buffer = _new_buffer(objects, values[index])
    _drop_unused_codes(objects)


def reshape_alike(objects: Any, shapes: Mapping[int, tuple[int, ...]]) -> None:
    """Make RESHAPE of EXPAND_DIMS and SQUEEZE, as converters do that know the sizes; ``objects`` is changed.

    ``shapes`` are those of the first subgraph's tensors that are settled. litert-quantizer 0.11 knows RESHAPE only.
    """
    import numpy as np
    from litert_quantizer.utils.tfl_flatbuffer_utils import flatbuffer_utils

    schema, main = flatbuffer_utils.schema_fb, objects.subgraphs[0]
    alike = (schema.BuiltinOperator.EXPAND_DIMS, schema.BuiltinOperator.SQUEEZE)
    number = len(objects.operatorCodes)
    for operator in main.operators:
        given = operator.outputs[0] if len(operator.outputs) else -1
        if objects.operatorCodes[operator.opcodeIndex].builtinCode not in alike or not shapes.get(given):
            continue  # sizes of no number are no constant
        sizes = np.array(shapes[given], np.int32)
        tensor = schema.TensorT()
        tensor.name, tensor.type, tensor.shape = f"sizes_{len(main.tensors)}", schema.TensorType.INT32, [len(sizes)]
        tensor.buffer = _new_buffer(objects, sizes)
        operator.inputs = [operator.inputs[0], len(main.tensors)]
        operator.opcodeIndex, operator.builtinOptionsType = number, schema.BuiltinOptions.ReshapeOptions
        operator.builtinOptions = schema.ReshapeOptionsT()
        operator.builtinOptions.newShape = sizes.tolist()
        main.tensors.append(tensor)
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.RESHAPE
    code.version = 1
    objects.operatorCodes.append(code)
    _drop_unused_codes(objects)


def _new_buffer(objects: Any, values: Array) -> int:
    """A buffer with the numbers in it, by its place."""
    import numpy as np

    buffer = copy.copy(objects.buffers[0])  # by the schema always the empty one
    buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    objects.buffers.append(buffer)
    return len(objects.buffers) - 1


def _drop_unused_codes(objects: Any) -> None:
    operators = [operator for subgraph in objects.subgraphs for operator in subgraph.operators or ()]
    used = sorted({operator.opcodeIndex for operator in operators})
    objects.operatorCodes = [objects.operatorCodes[number] for number in used]
    places = {number: place for place, number in enumerate(used)}
    for operator in operators:
        operator.opcodeIndex = places[operator.opcodeIndex]
