"""Standard output, and what becomes of a command that cannot write there."""

from __future__ import annotations

import os
import sys
from typing import TextIO

from edgepack.errors import InputError


def write_out(text: str = "") -> None:
    """Write ``text`` and whatever waits to be written.

    Whoever read our output may go away (``edgepack ... | head``): nothing is left to say then, and nobody to say it to.
    Raises InputError "stdout" for everything else.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _silence()
    except OSError as error:
        _silence()
        raise _unwritable(os.strerror(error.errno or 0)) from error


def require_streams() -> None:
    """Before anything is done: somebody has to get the result. Raises InputError "stdout"."""
    if sys.stderr is None:
        sys.stderr = _nowhere()
    if sys.stdout is None:
        sys.stdout = _nowhere()
        raise _unwritable("it is closed")


def _nowhere() -> TextIO:
    return os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8")


def _silence() -> None:
    """Let the interpreter's last flush succeed."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _unwritable(reason: str) -> InputError:
    return InputError(
        "stdout",
        f"Standard output cannot be written: {reason}.",
        hint="Send it to a file that has room, or to /dev/null.",
    )
