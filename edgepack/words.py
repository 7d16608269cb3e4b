"""Numbers as people read them."""

from __future__ import annotations


def size(byte_count: int | None) -> str:
    """A number of bytes for a person: ``512 B``, ``4.2 KB``, ``18.0 MB`` (powers of 1000)."""
    if byte_count is None:
        return "?"
    if byte_count < 1000:
        return f"{byte_count} B"
    value = float(byte_count)
    for unit in ("KB", "MB", "GB"):
        value /= 1000
        if value < 1000 or unit == "GB":
            return f"{value:.1f} {unit}"
    raise AssertionError("unreachable: the loop returns at GB")
