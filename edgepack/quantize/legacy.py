"""Float .tflite files of old converters, in the form that today's tools read. Runs in the worker process.

Until TensorFlow 2.4 an operator's code lay in one byte. Files from then have ``deprecated_builtin_code`` alone.
Runtimes read both (schema_utils.cc takes the larger); litert-quantizer reads the new field only, finds no operator that
it knows, and hands the model back as it was, without a word. Nor do they have signatures, and litert-quantizer 0.11
walks through them (model_modifier.py) as soon as an output gets another type than the layer that gives it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgepack.errors import InputError

_PLACEHOLDER = 127  # PLACEHOLDER_FOR_GREATER_OP_CODES: the code is in the new field (schema.fbs)


def upgrade(path: Path) -> bytes | None:
    """The model with its operators' codes in today's field too, and a list of signatures, be it empty.

    It is otherwise as it was; None where both are there.

    Raises InputError "legacy-model" where a file does not say what an operator is.
    """
    model = read_objects(path.read_bytes())
    changed = model.signatureDefs is None
    model.signatureDefs = model.signatureDefs or []
    for number, code in enumerate(model.operatorCodes):
        old = code.deprecatedBuiltinCode
        if old == _PLACEHOLDER and code.builtinCode < _PLACEHOLDER:
            raise InputError(
                "legacy-model",
                f"{path}: operator code {number} is a placeholder for a code that is not there.",
                hint="Convert the model again from the source that it came from.",
            )
        if code.builtinCode < old:
            code.builtinCode, changed = old, True
    return write_objects(model) if changed else None


def read_objects(data: bytes) -> Any:
    """The model as the schema's generated objects, which can be changed (ai-edge-litert's ``ModelT``)."""
    from litert_quantizer.utils import tfl_flatbuffer_utils

    return tfl_flatbuffer_utils.read_model(bytearray(data))


def write_objects(model: Any) -> bytes:
    """The .tflite of what :func:`read_objects` gave."""
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())
