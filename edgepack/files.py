"""Which files a command may read and which it may write over: one answer for all of them, before any work is done.

Nothing but what edgepack wrote itself is ever written over. Finished files come into place by a rename, which would put
a plain file where a device node or a pipe was.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from edgepack.errors import InputError

MOST_JSON_BYTES = 64 << 20
"""No document of edgepack is larger."""


def require_regular(path: Path) -> None:
    """Refuse a pipe, a device or a socket as a file to read: it may never end. What is not there raises nothing.

    Raises InputError "not-a-file".
    """
    with contextlib.suppress(OSError):
        if not stat.S_ISREG(mode := path.stat().st_mode) and not stat.S_ISDIR(mode):
            raise InputError(
                "not-a-file",
                f"{path} is no regular file, it is {_kind(mode)}.",
                hint="Write its content into a file, and name that.",
            )


def check_output(output: Path, what: str, is_ours: Callable[[Path], bool], inputs: Iterable[Path] = ()) -> None:
    """Say what is wrong with a place to write to, before anything is computed; leaves no trace.

    ``what`` names what is going to be written ("a bundle"), ``is_ours`` tells whether a file that is there is one; an
    empty file may always be written over. ``inputs`` are what the command reads.

    Raises InputError "bad-output": a folder, no regular file, one of the inputs, another kind of file, a folder that is
    missing or cannot be written to.
    """
    try:
        _check_place(output)
        _check_occupant(output, what, is_ours, inputs)
    except OSError as error:
        raise InputError(
            "bad-output",
            f"{output} cannot be written: {error.strerror or error}.",
            hint="Name a file in a folder that is yours and has room.",
        ) from error


def write_whole(path: Path, text: str) -> None:
    """Write a text as UTF-8, whole or not at all. Raises InputError "output"."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise InputError(
            "output",
            f"{path} cannot be written: {os.strerror(error.errno or 0)}.",
            hint="Name a file in a folder of yours.",
        ) from error


def _check_place(output: Path) -> None:
    if not output.parent.is_dir():
        raise InputError("bad-output", f"The folder {output.parent} does not exist.", hint=f"mkdir -p {output.parent}")
    if output.is_dir():
        raise InputError("bad-output", f"{output} is a folder.", hint="Name a file in it.")
    if output.exists() and not output.is_file():
        raise InputError(
            "bad-output",
            f"{output} is no regular file, it is {_kind(output.stat().st_mode)}.",
            hint="Name a new file; edgepack would put it in the place of this one.",
        )
    with tempfile.TemporaryFile(dir=output.parent):  # without a name, where the system can
        pass


def _check_occupant(output: Path, what: str, is_ours: Callable[[Path], bool], inputs: Iterable[Path]) -> None:
    if not output.exists():
        return
    for source in inputs:
        if source.exists() and output.samefile(source):
            raise InputError("bad-output", f"{output} is what is read here.", hint="Name another file to write to.")
    if output.stat().st_size and not is_ours(output):
        raise InputError(
            "bad-output",
            f"{output} exists and is not {what}.",
            hint="Name another file, or remove this one first.",
        )


def is_document(path: Path, *fields: str) -> bool:
    """Whether a file is a JSON document of edgepack: an object with a ``schema`` number and these fields."""
    if path.stat().st_size > MOST_JSON_BYTES:
        return False
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and isinstance(value.get("schema"), int) and value.keys() >= set(fields)


def is_event_log(path: Path) -> bool:
    """Whether a file begins with a JSON line as ``--events`` writes it."""
    with path.open("rb") as stream:
        line = stream.readline(1 << 16)
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and value.keys() >= {"seconds", "step", "message"}


def _kind(mode: int) -> str:
    kinds = {stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket", stat.S_ISCHR: "a device", stat.S_ISBLK: "a disk"}
    return next((name for test, name in kinds.items() if test(mode)), "something else")
