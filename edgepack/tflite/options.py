"""The options of a builtin operator: strides, fused activation, what each kind of operator has."""

from __future__ import annotations

import functools
import re
from typing import Any

Options = dict[str, int | float | bool]

# What the schema's generated classes have beside one method per field.
_NO_FIELD = re.compile(r"_|Init$|GetRootAs|.*(?:BufferHasIdentifier|AsNumpy|IsNone|Length)$")


def read_options(operator: Any) -> Options:
    """The scalar options of an operator as the schema names them (``stride_w``), with the schema's defaults.

    ``operator`` is the generated code's Operator. Empty where it has none, or options that the schema does not know.
    Enumerations are their numbers in schema.fbs (``padding``: SAME 0, VALID 1).
    """
    table = operator.BuiltinOptions()
    kind = _class_of(operator.BuiltinOptionsType()) if table is not None else None
    if kind is None:
        return {}
    options = kind()
    options.Init(table.Bytes, table.Pos)
    read = {name: getattr(options, getter)() for name, getter in _fields(kind)}
    return {name: value for name, value in read.items() if isinstance(value, (bool, int, float))}


@functools.cache
def _class_of(number: int) -> Any:
    """The generated class for a number of the union BuiltinOptions; None for NONE and for one of a newer schema."""
    import tflite

    names = {value: name for name, value in vars(tflite.BuiltinOptions).items() if isinstance(value, int)}
    return getattr(tflite, names.get(number, "NONE"), None)


@functools.cache
def _fields(kind: Any) -> tuple[tuple[str, str], ...]:
    """Field and getter of everything that takes no index (vectors do)."""
    return tuple(
        (re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower(), name)
        for name, member in vars(kind).items()
        if not _NO_FIELD.match(name) and callable(member) and member.__code__.co_argcount == 1
    )
