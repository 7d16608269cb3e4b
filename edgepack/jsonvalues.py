"""JSON as edgepack writes it: documents for scripts, and the one byte string of a value for digests."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

SCHEMA = 1


def to_json_value(document: Any) -> dict[str, Any]:
    """The document as plain JSON values, ``schema`` first."""
    return {"schema": SCHEMA, **dataclasses.asdict(document)}


def to_json(value: Mapping[str, Any]) -> str:
    """The text that goes to stdout: indented, keys in the order of the schema, no NaN."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False, default=_plain)


def canonical_json(value: Any) -> bytes:
    """The one byte string of a JSON value, for digests and signatures: sorted keys, no blanks, UTF-8, no NaN."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


def nests_deeper(value: Any, levels: int) -> bool:
    """Whether a JSON value has more levels than that; some part of Python's own JSON fails at a thousand or so."""
    level = [value]
    for _ in range(levels):
        inner = (item.values() if isinstance(item, dict) else item for item in level if isinstance(item, (dict, list)))
        level = [item for items in inner for item in items]
    return bool(level)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{type(value).__name__} is no JSON value")
