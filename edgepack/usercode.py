"""Functions of the user's own, named ``module:function``: metrics and samples."""

from __future__ import annotations

import contextlib
import importlib
import importlib.machinery
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

FAILURES = (Exception, SystemExit)
"""What importing or calling a user's code may raise; SystemExit is no order to edgepack, but a program's way out."""

_NOT_THE_USERS = (
    Path(__file__).parent,
    *(Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")),
)

# The size and time of the file that each module was last loaded from through here.
_loaded: dict[str, tuple[int, int]] = {}


@contextlib.contextmanager
def at_home() -> Iterator[None]:
    """The user's code finds its neighbours in the current folder, and what it prints goes to stderr."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        with contextlib.suppress(ValueError):  # the user's code has taken it out
            sys.path.remove(here)


def load_function(text: str) -> Any:
    """What ``module:function`` names, of the file as it is now; modules of the current folder are found too.

    Raises whatever importing the module raises (see :data:`FAILURES`), and AttributeError.
    """
    module_name, _, function_name = text.partition(":")
    with at_home():
        return getattr(_module(module_name), function_name)


def told(error: BaseException) -> str:
    """The error in one line, for a message."""
    if isinstance(error, SystemExit):
        return f"it ended the program, sys.exit({error.code!r}); put that under `if __name__ == '__main__'`"
    return f"{type(error).__name__}: {error}"


def line_of(error: BaseException) -> str:
    """Where in the user's own files it failed, `` in FILE, line N``; "" where none of them took part.

    Those are what is no installed package and no part of edgepack or Python: the innermost such line is told.
    """
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        place = Path(frame.filename)
        if place.is_file() and not any(place.is_relative_to(folder) for folder in _NOT_THE_USERS):
            return f" in {place.name}, line {frame.lineno}"
    return ""


def import_cure(text: str, error: BaseException) -> str | None:
    """What mends the user's module, where :func:`load_function` failed inside of it; None where nothing was found."""
    module = text.partition(":")[0]
    if isinstance(error, SyntaxError) and error.filename:
        return f"Mend {Path(error.filename).name}, line {error.lineno}."
    if isinstance(error, ModuleNotFoundError):
        missing = error.name or ""
        itself = f"{module}.".startswith(f"{missing}.")
        return None if itself else f"Install it where edgepack is: {sys.executable} -m pip install {missing}"
    if module in sys.modules:
        return None  # it was loaded, and has no such function
    return f"Mend the module; python -c 'import {module}' shows the whole traceback."


def _module(name: str) -> ModuleType:
    """The module; anew where its file was edited, or where another folder's module of that name was loaded before."""
    importlib.invalidate_caches()
    known = sys.modules.get(name)
    if known is not None and "." not in name:
        spec = importlib.machinery.PathFinder.find_spec(name)
        elsewhere = spec is not None and spec.origin not in (None, getattr(known, "__file__", None))
        if elsewhere or (name in _loaded and _loaded[name] != _mark(known)):
            del sys.modules[name]
    module = importlib.import_module(name)
    _loaded[name] = _mark(module)
    return module


def _mark(module: ModuleType) -> tuple[int, int]:
    try:
        status = Path(str(getattr(module, "__file__", ""))).stat()
    except OSError:
        return (0, 0)  # built in, or out of an archive
    return (status.st_size, status.st_mtime_ns)
