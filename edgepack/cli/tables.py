"""Columns of text for people; long words about one thing keep to the width of the terminal."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence

from edgepack.words import printable

_NARROWEST = 24  # a column that is wrapped to less than this reads worse than one that runs over


def table(rows: Iterable[Sequence[str]], header: Sequence[str] | None = None, width: int | None = None) -> str:
    """Left-aligned columns, two blanks apart; a rule under the header.

    Without a header the last column is wrapped to ``width`` (None: that of the terminal on standard output; a file or a
    pipe gets whole lines, which can be searched). A word that is longer, such as a path, is never cut. Cells are what
    files and devices say, so each is made :func:`~edgepack.words.printable`.
    """
    lines = [[printable(cell) for cell in row] for row in rows]
    if not lines and header is None:
        return ""
    if header is None:
        width = width or terminal_width()
        lines = [line for row in lines for line in _wrapped(row, lines, width)] if width else lines
    else:
        lines.insert(0, list(header))
    widths = [max(len(row[column]) for row in lines) for column in range(len(lines[0]))]
    if header is not None:
        lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in lines
    )


def terminal_width() -> int | None:
    """How many characters fit on a line of the terminal that standard output is; None where it is none."""
    return shutil.get_terminal_size().columns if sys.stdout is not None and sys.stdout.isatty() else None


def _wrapped(row: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Iterable[list[str]]:
    """The row, its last cell over as many lines as it needs."""
    before = sum(max(len(one[column]) for one in rows) + 2 for column in range(len(row) - 1))
    room = max(width - before, _NARROWEST)
    if len(row[-1]) <= room:
        yield list(row)
        return
    parts = textwrap.wrap(row[-1], room, break_long_words=False, break_on_hyphens=False)
    for number, part in enumerate(parts or [""]):
        yield [*(row[:-1] if number == 0 else [""] * (len(row) - 1)), part]
