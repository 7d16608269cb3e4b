"""What was made of a source model, each once: under everything that it depends on, in this run and in the store."""

from __future__ import annotations

import functools
import hashlib
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgepack.quantize.libraries import library_versions
from edgepack.quantize.store import Store, key_of
from edgepack.quantize.watched import Watched


class Kept:
    """Folders of results by verb and facts; ``made`` says how many were not there and had to be made.

    ``source`` is what identifies the source model and how it is loaded, ``watched`` are the files of source and
    samples; ``store`` None keeps results for this run only, in ``scratch``.
    """

    def __init__(self, source: Mapping[str, Any], watched: Watched, scratch: Path, store: Store | None) -> None:
        self.made = 0
        self._source = source
        self._watched = watched
        self._scratch = scratch
        self._store = store or Store(scratch / "store")
        # What is too large for the store is kept for this run.
        self._folders: dict[str, Path] = {}

    def get(self, verb: str, facts: Mapping[str, Any], make: Callable[[Path], None]) -> Path:
        """The folder of that result; where there is none yet, ``make`` fills it."""
        key = key_of({"verb": verb, "source": self._facts, **facts})
        found = self._folders.get(key) or self._store.get(key)
        if found is not None:
            return found
        folder = self._scratch / f"made-{self.made}"
        self.made += 1
        folder.mkdir()
        make(folder)
        self._watched.refuse_changes()
        kept = self._store.put(key, folder)
        if kept == folder:
            self._folders[key] = folder
        return kept

    @functools.cached_property
    def _facts(self) -> dict[str, Any]:
        return {**self._source, "made_by": _makers()}


def _makers() -> dict[str, Any]:
    """Everything that is not the user's and decides a result: libraries, this code, this machine's instructions."""
    versions = {**library_versions(), "python": platform.python_version()}
    return {"libraries": versions, "code": _code_digest(), "machine": platform.machine()}


@functools.cache
def _code_digest() -> str:
    """Of the modules that make results: an edgepack that converts otherwise shares nothing with this one."""
    package = Path(__file__).parent.parent
    folders = (package / "quantize", package / "tflite")
    files = [*(file for folder in folders for file in sorted(folder.rglob("*.py"))), package / "hostruntime.py"]
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()
