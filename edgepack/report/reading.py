"""A document as ``--json`` printed it, back as its value; tolerant: unknown fields are left alone."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, TypeVar

from edgepack.documents import SCHEMA, BrokenBudget, QuantizeDocument, QuantizeSetDocument, TuneDocument
from edgepack.errors import InputError
from edgepack.files import MOST_JSON_BYTES, require_regular
from edgepack.report.page import Reportable

NONE_KEEPS = "no-candidate-keeps-budget"
"""The code of tune's error that has a report, as a document has."""
_HINT = "Name what `edgepack quantize --json` or `edgepack tune --json` printed."
_LARGEST = 1 << 63
T = TypeVar("T")


def read_document(path: Path) -> Reportable:
    """The document in a JSON file.

    Raises InputError: "bad-document" (not readable, no JSON, a field is missing or of another type), "no-report" (a
    document of another command).
    """
    require_regular(path)
    try:
        with path.open("rb") as stream:
            return _read(stream, str(path))
    except OSError as error:
        _refuse(str(path), f"{error.strerror or error}")


def read_stdin() -> Reportable:
    """The document that comes on standard input; raises as :func:`read_document`."""
    name = "standard input"
    if sys.stdin is None:
        _refuse(name, "it is closed")
    try:
        return _read(sys.stdin.buffer, name)
    except OSError as error:
        _refuse(name, f"{error.strerror or error}")


def _read(stream: BinaryIO, name: str) -> Reportable:
    content = stream.read(MOST_JSON_BYTES + 1)
    if len(content) > MOST_JSON_BYTES:
        _refuse(name, f"it is larger than {MOST_JSON_BYTES >> 20} MiB")
    try:
        value = json.loads(content, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        _refuse(name, "it is no JSON")
    if not isinstance(value, dict) or not isinstance(value.get("schema"), int):
        _refuse(name, "it is no document of edgepack")
    if value["schema"] > SCHEMA:
        _refuse(name, f"its schema is {value['schema']}, and this edgepack knows {SCHEMA}")
    try:
        failure = value.get("error")
        if isinstance(failure, dict) and failure.get("code") == NONE_KEEPS:
            return broken_budget(failure.get("message"), failure.get("hint"), failure.get("details"))
        kind = _kind(value)
        if kind is None:
            raise no_report(name)
        return _value(kind, value, "")
    except _MisshapenError as fault:
        _refuse(name, str(fault))


def broken_budget(message: Any, hint: Any, details: Any) -> BrokenBudget:
    """What stands in tune's error that no candidate keeps the budget. Raises _MisshapenError."""
    return _value(
        BrokenBudget, {**(details if isinstance(details, dict) else {}), "message": message, "hint": hint}, ""
    )


def no_report(what: str) -> InputError:
    """The error that says that there are no reports of such a document."""
    return InputError("no-report", f"{what} is no document of quantize or tune: it has no report.", hint=_HINT)


def _kind(value: Mapping[str, Any]) -> type[Reportable] | None:
    if {"candidates", "chosen"} <= value.keys():
        return TuneDocument
    if {"model", "source", "conformance"} <= value.keys():
        return QuantizeDocument
    return QuantizeSetDocument if "models" in value else None


def _refuse(name: str, why: str) -> NoReturn:
    raise InputError("bad-document", f"{name} cannot be read as a document: {why}.", hint=_HINT)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


class _MisshapenError(Exception):
    """What is wrong, and at which field."""


def _value(kind: type[T], told: Any, where: str) -> T:
    """The dataclass of that kind from an object. Raises _MisshapenError."""
    if not isinstance(told, dict):
        raise _MisshapenError(f"{where or 'it'} is no object")
    hints = typing.get_type_hints(kind)
    fields = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        name = f"{where}.{field.name}" if where else field.name
        if field.name in told:
            fields[field.name] = _shaped(hints[field.name], told[field.name], name)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise _MisshapenError(f"{name} is missing")
    return kind(**fields)


def _shaped(hint: Any, told: Any, where: str) -> Any:
    """A field's value as its type says: a dataclass, a tuple of one type, an optional, or plain."""
    if dataclasses.is_dataclass(hint):
        return _value(typing.cast("type[Any]", hint), told, where)
    if typing.get_origin(hint) is tuple:
        if not isinstance(told, (list, tuple)):
            raise _MisshapenError(f"{where} is no list")
        inner = typing.get_args(hint)[0]
        return tuple(_shaped(inner, one, f"{where}[{place}]") for place, one in enumerate(told))
    if typing.get_origin(hint) is types.UnionType:
        (inner,) = (one for one in typing.get_args(hint) if one is not type(None))
        return None if told is None else _shaped(inner, told, where)
    return _plain(hint, told, where)


def _plain(hint: type, told: Any, where: str) -> Any:
    number = isinstance(told, (int, float)) and not isinstance(told, bool)
    fits = abs(told) < _LARGEST if isinstance(told, int) else number and math.isfinite(told)
    if hint is float and number and fits:
        return float(told)
    if hint is int and isinstance(told, int) and number and fits:
        return told
    if hint in (str, bool) and isinstance(told, hint):
        return told
    raise _MisshapenError(f"{where} is no {hint.__name__}")
