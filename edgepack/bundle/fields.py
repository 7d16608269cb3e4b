"""The kinds of values that a manifest's fields have: each is taken as it should be, or a TypeError says what it is."""

from __future__ import annotations

from typing import Any


def text(value: Any) -> str:
    """A string."""
    if not isinstance(value, str):
        raise TypeError(f"a string was expected, not {type(value).__name__}")
    return value


def array(value: Any) -> list[Any]:
    """An array of anything."""
    if not isinstance(value, list):
        raise TypeError(f"an array was expected, not {type(value).__name__}")
    return value


def table(value: Any) -> dict[str, Any]:
    """An object."""
    if not isinstance(value, dict):
        raise TypeError(f"an object was expected, not {type(value).__name__}")
    return value


def size(value: Any, limit: int) -> int:
    """A whole number from 0 to ``limit``."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= limit:
        raise TypeError("a size was expected")
    return value
