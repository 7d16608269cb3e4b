"""The commands: parse, call the library, render. One error handler; no power that the library lacks."""

from __future__ import annotations

import sys


def entry() -> None:
    """The ``edgepack`` command: :func:`edgepack.cli.main.main`, and quiet wherever Ctrl-C comes."""
    try:
        from edgepack.cli.main import main

        main()
    except KeyboardInterrupt:
        sys.exit(130)
