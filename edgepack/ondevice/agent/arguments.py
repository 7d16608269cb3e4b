"""Values out of a request: each is of its type and within its bounds, or the request is refused."""

from __future__ import annotations

import json
import os
from typing import Any, Dict, List

from .errors import AgentError, bad_request

VALUES_LIMIT = 200_000  # of one JSON text; a commit of 10,000 files has 60,000
LEVELS_LIMIT = 32


def take(args: Dict[str, Any], key: str, kind: type) -> Any:
    """``args[key]``, which must be of this type (an int is never a bool)."""
    value = args.get(key)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise bad_request(f"{key!r} must be of type {kind.__name__}, not {type(value).__name__}.")
    return value


def take_name(args: Dict[str, Any], key: str, pattern: Any) -> str:
    """``args[key]``, a name that fully matches the pattern and so cannot be a path."""
    value: str = take(args, key, str)
    if not pattern.fullmatch(value):
        raise AgentError(
            "bad-request",
            f"{value[:100]!r} cannot be the name of {'an app' if key == 'app' else 'a ' + key}.",
            "Names are letters, digits and . _ + - , beginning with a letter or digit.",
        )
    return value


def take_size(args: Dict[str, Any], key: str) -> int:
    """``args[key]``, a number of bytes."""
    value: int = take(args, key, int)
    if value < 0:
        raise bad_request(f"{key!r} is negative.")
    return value


def take_seconds(args: Dict[str, Any], key: str, default: float) -> float:
    """``args[key]``, a finite positive number of seconds, or the default where it is absent."""
    value = args.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e6:
        raise bad_request(f"{key!r} is not a number of seconds.")
    return float(value)


def take_who(args: Dict[str, Any], key: str) -> str:
    """``args[key]``, a few words that tell people who asked; empty where it is absent."""
    value: str = take(args, key, str) if args.get(key) is not None else ""
    return value[:200]


def take_list(args: Dict[str, Any], key: str) -> List[Dict[str, Any]]:
    """``args[key]``, a list of objects."""
    value = take(args, key, list)
    if len(value) > 10_000 or not all(isinstance(item, dict) for item in value):
        raise bad_request(f"{key!r} is not a list of objects.")
    return list(value)


def take_path(entry: Dict[str, Any]) -> str:
    """The relative path of a file inside a release."""
    path: str = take(entry, "path", str)
    parts = path.split("/")
    clean = all(part not in ("", ".", "..") and len(part.encode("utf-8", "replace")) <= 255 for part in parts)
    if not clean or "\\" in path or any(ord(letter) < 32 for letter in path) or not is_file_name(path):
        raise bad_request(f"Not a path inside a release: {path[:200]!r}.")
    return path


def is_file_name(text: str) -> bool:
    """Whether the system can be given this text, as a path or as an argument; no half of a surrogate pair can."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def parse_object(data: bytes, what: str) -> Dict[str, Any]:
    """The JSON object that the host sent, of a bounded size; nothing in it nests deeper than can be written again.

    Python takes up to 250 bytes for a value and four for a letter: 150 MiB at most, for a body of 16 MiB.
    """
    if data.count(b",") + data.count(b"[") + data.count(b"{") > VALUES_LIMIT:
        raise bad_request(f"{what} holds more than {VALUES_LIMIT} values.")
    try:
        value = parse_json(data)
    except (ValueError, RecursionError):
        raise bad_request(f"{what} is not JSON, or nests deeper than {LEVELS_LIMIT} levels.") from None
    if not isinstance(value, dict):
        raise bad_request(f"{what} is not a JSON object.")
    return value


def parse_json(data: bytes) -> Any:
    """A JSON value that can be written again: no NaN, no number beyond a float, at most 32 levels.

    Raises ``ValueError`` or ``RecursionError``.
    """
    value = json.loads(data, parse_constant=float_of_json, parse_float=float_of_json)
    level: List[Any] = [value]
    for _ in range(LEVELS_LIMIT):
        inner = (item.values() if isinstance(item, dict) else item for item in level if isinstance(item, (dict, list)))
        level = [item for items in inner for item in items]
    if level:
        raise ValueError("too many levels")
    return value


def float_of_json(text: str) -> float:
    """A finite number; NaN and the infinities are no JSON (RFC 8259), though Python's parser takes them."""
    value = float(text)
    if value - value != 0:
        raise ValueError(f"{text} is no JSON")
    return value
