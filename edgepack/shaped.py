"""Values from JSON, of the type that a dataclass says; tolerant: unknown fields are left alone."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

_LARGEST = 1 << 63
T = TypeVar("T")


class MisshapenError(ValueError):
    """What is wrong, and at which field; whoever reads a file says which file."""


def shaped(kind: type[T], told: Any, where: str = "") -> T:
    """The dataclass of that kind from an object, its fields of the types that they say.

    A field may be another dataclass, a tuple of one type or of a fixed few, a mapping by text, an optional one of
    these, a plain value, or anything. Raises MisshapenError: a field is missing or of another type, a number is not
    finite or beyond 64 bits.
    """
    if not isinstance(told, Mapping):
        raise MisshapenError(f"{where or 'it'} is no object")
    hints = typing.get_type_hints(kind)
    fields = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        name = f"{where}.{field.name}" if where else field.name
        if field.name in told:
            fields[field.name] = _field(hints[field.name], told[field.name], name)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise MisshapenError(f"{name} is missing")
    return kind(**fields)


def _field(hint: Any, told: Any, where: str) -> Any:
    if hint is Any:
        return told
    if dataclasses.is_dataclass(hint):
        return shaped(typing.cast("type[Any]", hint), told, where)
    origin = typing.get_origin(hint)
    if origin is tuple:
        return _tuple(typing.get_args(hint), told, where)
    if origin is Mapping:
        if not isinstance(told, Mapping):
            raise MisshapenError(f"{where} is no object")
        inner = typing.get_args(hint)[1]
        return {str(key): _field(inner, one, f"{where}.{key}") for key, one in told.items()}
    if origin is types.UnionType:
        (inner,) = (one for one in typing.get_args(hint) if one is not type(None))
        return None if told is None else _field(inner, told, where)
    return _plain(hint, told, where)


def _tuple(inner: tuple[Any, ...], told: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(told, (list, tuple)):
        raise MisshapenError(f"{where} is no list")
    kinds = (inner[0],) * len(told) if inner[-1] is Ellipsis else inner
    if len(kinds) != len(told):
        raise MisshapenError(f"{where} has {len(told)} values, not {len(kinds)}")
    return tuple(_field(kind, one, f"{where}[{i}]") for i, (kind, one) in enumerate(zip(kinds, told, strict=True)))


def _plain(hint: type, told: Any, where: str) -> Any:
    number = isinstance(told, (int, float)) and not isinstance(told, bool)
    fits = abs(told) < _LARGEST if isinstance(told, int) else number and math.isfinite(told)
    if hint is float and number and fits:
        return float(told)
    if hint is int and isinstance(told, int) and number and fits:
        return told
    if hint in (str, bool) and isinstance(told, hint):
        return told
    raise MisshapenError(f"{where} is no {hint.__name__}")
