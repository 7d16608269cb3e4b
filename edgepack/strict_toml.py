"""TOML that people write, read strictly: unknown keys are refused with the nearest known name, all faults told at once.

A schema is a small tree of frozen values: :class:`Text`, :class:`Number`, :class:`Flag`, :class:`TextList` and
:class:`NumberList` for single values, :class:`Table` for a table with known keys, :class:`TableOf` for one whose keys
are the user's own names, :class:`TableList` for ``[[...]]``. :func:`find_faults` is pure; :func:`read_toml` does the
reading and :func:`refuse_faults` the one raise.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgepack.errors import InputError
from edgepack.files import require_regular

MAX_BYTES = 1 << 20
"""No file that a person writes is larger; a larger one is not read at all."""

MAX_DEPTH = 32
"""Deeper brackets than this are no configuration; Python's own parser is recursive."""


@dataclass(frozen=True, slots=True)
class Text:
    """A string: one of ``choices``, or one that ``pattern`` matches completely (``form`` says it in words)."""

    choices: tuple[str, ...] = ()
    pattern: str = ""
    form: str = ""


@dataclass(frozen=True, slots=True)
class Number:
    """A finite number within ``minimum`` and ``maximum``, both included; ``integer`` refuses fractions."""

    minimum: float
    maximum: float = float("inf")
    integer: bool = False


@dataclass(frozen=True, slots=True)
class Flag:
    """``true`` or ``false``."""


@dataclass(frozen=True, slots=True)
class TextList:
    """An array of strings, such as an argument vector."""

    minimum: int = 0


@dataclass(frozen=True, slots=True)
class NumberList:
    """An array of ``least`` to ``most`` numbers, each as :class:`Number` says."""

    least: int
    most: int
    minimum: float = float("-inf")
    maximum: float = float("inf")
    integer: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table with known keys, of which ``required`` must be there."""

    keys: Mapping[str, Schema]
    required: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TableOf:
    """A table whose keys are the user's own; each value follows ``value``."""

    value: Schema
    key: Text = field(default_factory=Text)


@dataclass(frozen=True, slots=True)
class TableList:
    """``[[name]]``: an array of tables, at least ``minimum`` of them."""

    table: Table
    minimum: int = 0


Schema = Text | Number | Flag | TextList | NumberList | Table | TableOf | TableList


def read_toml(path: Path, *, code: str) -> dict[str, Any]:
    """The parsed file, not yet held against a schema.

    Raises :class:`InputError` with ``code`` where the file cannot be read, is larger than 1 MiB or is no TOML.
    """
    require_regular(path)
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(code, f"{path} cannot be read: {reason}.", hint="Check the path.", path=str(path)) from error
    if len(content) > MAX_BYTES:
        raise InputError(code, f"{path} is larger than 1 MiB.", hint="Name a TOML file.", path=str(path))
    try:
        if _depth(content) > MAX_DEPTH:
            raise ValueError(f"brackets are nested more than {MAX_DEPTH} deep")
        return tomllib.loads(content.decode("utf-8"))
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError are both ValueErrors
        fault = f"no valid TOML: {error}"
        raise InputError(
            code, f"{path} is {fault}.", hint="Mend that line.", path=str(path), faults=[f"{path}: {fault}"]
        ) from error


def find_faults(value: object, schema: Schema, where: str = "") -> list[str]:
    """Everything that is wrong with ``value``, each as one phrase that begins with the key; empty where all is well."""
    match schema:
        case Table():
            return _table_faults(value, schema, where)
        case TableOf():
            return _table_of_faults(value, schema, where)
        case TableList():
            return _table_list_faults(value, schema, where)
        case _:
            fault = _scalar_fault(value, schema)
            return [f"{where}: {fault}"] if fault else []


def refuse_faults(faults: Sequence[str], *, code: str, subject: str, hint: str) -> None:
    """Raise one :class:`InputError` that tells all ``faults`` (also as ``details["faults"]``), if there are any."""
    if not faults:
        return
    count = "one fault" if len(faults) == 1 else f"{len(faults)} faults"
    listed = "; ".join(faults)
    raise InputError(code, f"{subject} has {count}: {listed}.", hint=hint, faults=list(faults))


def nearest(name: str, known: Iterable[str], *, limit: int = 3) -> tuple[str, ...]:
    """The known names most like ``name``, best first; none where nothing resembles it."""
    by_lower = {candidate.lower(): candidate for candidate in sorted(known)}
    found = difflib.get_close_matches(name.lower(), by_lower, n=limit, cutoff=0.5)
    return tuple(by_lower[candidate] for candidate in found)


def _join(where: str, key: str) -> str:
    shown = key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else repr(key)
    return f"{where}.{shown}" if where else shown


def _table_faults(value: object, schema: Table, where: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{where}: must be a table ([{where}]), not {_kind(value)}"]
    faults = []
    for key, inner in value.items():
        place = _join(where, key)
        if key in schema.keys:
            faults += find_faults(inner, schema.keys[key], place)
            continue
        similar = nearest(key, schema.keys, limit=1)
        known = f"did you mean {similar[0]}?" if similar else f"known here: {', '.join(schema.keys)}"
        faults.append(f"{place}: unknown key ({known})")
    faults += [f"{_join(where, key)}: missing" for key in schema.required if key not in value]
    return faults


def _table_of_faults(value: object, schema: TableOf, where: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{where}: must be a table ([{where}]), not {_kind(value)}"]
    faults = []
    for key, inner in value.items():
        place = _join(where, key)
        key_fault = _scalar_fault(key, schema.key)
        faults += [f"{place}: the name {key_fault}"] if key_fault else []
        faults += find_faults(inner, schema.value, place)
    return faults


def _table_list_faults(value: object, schema: TableList, where: str) -> list[str]:
    if not isinstance(value, list):
        return [f"{where}: must be an array of tables ([[{where}]]), not {_kind(value)}"]
    if len(value) < schema.minimum:
        return [f"{where}: needs at least {schema.minimum} [[{where}]]"]
    return [fault for index, item in enumerate(value) for fault in find_faults(item, schema.table, f"{where}[{index}]")]


def _scalar_fault(value: object, schema: Schema) -> str:
    match schema:
        case Text():
            return _text_fault(value, schema)
        case Number():
            return _number_fault(value, schema)
        case NumberList():
            return _number_list_fault(value, schema)
        case Flag():
            return "" if isinstance(value, bool) else f"must be true or false, not {_kind(value)}"
        case _:
            return _text_list_fault(value, schema)


def _text_fault(value: object, schema: Text) -> str:
    if not isinstance(value, str):
        return f"must be a string, not {_kind(value)}"
    if schema.choices and value not in schema.choices:
        similar = nearest(value, schema.choices, limit=1)
        guess = f", did you mean {similar[0]}?" if similar else ""
        return f"must be one of {', '.join(schema.choices)}, not {value!r}{guess}"
    if schema.pattern and not re.fullmatch(schema.pattern, value):
        return f"must be {schema.form or f'of the form {schema.pattern}'}, not {value!r}"
    if "\0" in value:
        return "must not contain a null character"
    return ""


def _number_fault(value: object, schema: Number) -> str:
    kind = "an integer" if schema.integer else "a number"
    numeric = isinstance(value, int) if schema.integer else isinstance(value, int | float)
    if not numeric or isinstance(value, bool):
        return f"must be {kind}, not {_kind(value)}"
    number: Any = value
    if not schema.minimum <= number <= schema.maximum or number in (float("inf"), float("-inf")):
        if schema.minimum == float("-inf"):
            return f"must be finite, not {number}"
        upper = "" if schema.maximum == float("inf") else f" and at most {schema.maximum:g}"
        return f"must be at least {schema.minimum:g}{upper}, not {number}"
    return ""


def _number_list_fault(value: object, schema: NumberList) -> str:
    wanted = str(schema.least) if schema.least == schema.most else f"{schema.least} to {schema.most}"
    if not isinstance(value, list) or not schema.least <= len(value) <= schema.most:
        got = f"of {len(value)}" if isinstance(value, list) else _kind(value)
        return f"must be an array of {wanted} numbers, not {got}"
    each = Number(schema.minimum, schema.maximum, schema.integer)
    return next((f"each number {fault}" for item in value if (fault := _number_fault(item, each))), "")


def _text_list_fault(value: object, schema: object) -> str:
    if not isinstance(value, list) or not all(isinstance(item, str) and "\0" not in item for item in value):
        return f"must be an array of strings, not {_kind(value)}"
    if isinstance(schema, TextList) and len(value) < schema.minimum:
        return f"needs at least {schema.minimum} strings"
    return ""


def _kind(value: object) -> str:
    """What a TOML value is, in TOML's own words, with the value where it is short."""
    match value:
        case bool():
            return str(value).lower()
        case int() | float() | str():
            text = repr(value)
            return text if len(text) <= 40 else f"{text[:37]}..."
        case list():
            return "an array"
        case dict():
            return "a table"
        case _:
            return "a date or time"


def _depth(content: bytes) -> int:
    """An upper bound of the nesting: brackets in strings count too, which no real file has many of."""
    deepest = depth = 0
    for byte in content:
        if byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth = max(0, depth - 1)
    return deepest
