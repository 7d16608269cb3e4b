"""Numbers as people read them, and words that more than one module says."""

from __future__ import annotations

import math
from collections.abc import Sequence

METRIC_HELP = "top1, top5, mae, roc-auc, or module:function of (outputs, labels)."

# Beyond this a double has nothing more to tell of a time in milliseconds or of a share.
_MOST_PLACES = 15


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


def printable(text: str) -> str:
    """What somebody else wrote, as one line that a terminal can be given.

    What is not printable is a blank: controls, ends of lines, and what turns the direction of writing around.
    """
    return text if text.isprintable() else "".join(char if char.isprintable() else " " for char in text)


def printable_lines(text: str) -> str:
    """Text of several lines, each :func:`printable`."""
    return "\n".join(map(printable, text.split("\n")))


def listed(texts: Sequence[str], most: int, rest: str = "more") -> str:
    """``a, b and 3 more``: the first ``most`` texts, and how many are left out."""
    left_out = f" and {len(texts) - most} {rest}" if len(texts) > most else ""
    return ", ".join(texts[:most]) + left_out


def small_weights(share: float | None, scheme: str) -> str | None:
    """Of a model of that scheme: how much of its weights is int8; None where the scheme makes none of them so."""
    if share is None or scheme in ("float16", "float32"):
        return None
    return f"{share:.1%} of the bytes are int8"


def settled_by(needed_samples: int | None) -> str:
    """How many samples would tell whether a drop keeps to its limit; None is no number of them."""
    if needed_samples is None:
        return "no number of samples settles it, so near to the limit the drop lies"
    return f"about {needed_samples:,} samples would settle it"


def shown_number(value: float, decimals: int, limit: float | None = None) -> str:
    """A number for people: ``decimals`` places, more where a small one needs them for three significant digits.

    With a ``limit``, as many as it takes that the text is above, at or below the limit where the number is.
    """
    if not math.isfinite(value):
        return f"{value}"
    places = max(decimals, min(2 - math.floor(math.log10(abs(value))), _MOST_PLACES)) if value else decimals
    if limit is not None:
        while places < _MOST_PLACES and _side(float(f"{value:.{places}f}"), limit) != _side(value, limit):
            places += 1
    return f"{value:.{places}f}"


def _side(value: float, limit: float) -> int:
    return (value > limit) - (value < limit)
