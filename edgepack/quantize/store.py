"""A folder of results, each under the digest of everything that it depends on.

An entry is a folder of files with ``entry.json`` beside them: their digests. It appears by one rename, so that two runs
may share a store, and a killed one leaves nothing that a later one takes for whole. What was changed since, or cannot
be read, is not there. The least recently used entries go when the store grows beyond its bound.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgepack.digest import sha256_file
from edgepack.documents import canonical_json

ENTRY = "entry.json"
_SCHEMA = 1
# A hundred conversions of a 20 MB model; a user who wants the room back deletes the folder.
MOST_BYTES = 4 << 30
# Outputs over a very large set of samples are sooner computed again than kept.
_MOST_ENTRY_BYTES = 512 << 20


def key_of(facts: Mapping[str, Any]) -> str:
    """The digest of everything that a result depends on, given as JSON values."""
    return hashlib.sha256(canonical_json(facts)).hexdigest()


class Store:
    """Entries below ``folder``, at most ``most_bytes`` of them."""

    def __init__(self, folder: Path, most_bytes: int = MOST_BYTES) -> None:
        self._folder = folder
        self._most_bytes = most_bytes

    def get(self, key: str) -> Path | None:
        """The folder with the files of ``key``, whole and unchanged; None where there is none."""
        place = self._place(key)
        try:
            entry = json.loads((place / ENTRY).read_bytes())
            files = entry["files"].items() if entry["schema"] == _SCHEMA else ()
            whole = bool(files) and all(sha256_file(place / Path(name).name) == digest for name, digest in files)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None  # never made, removed meanwhile, or of another version of edgepack: it is made again
        if not whole:
            return None
        with contextlib.suppress(OSError):  # a store that may only be read serves as well
            os.utime(place / ENTRY)
        return place

    def put(self, key: str, made: Path) -> Path:
        """Keep the files of the folder ``made`` under ``key``; the folder in which they are now.

        That is ``made`` itself where they are too many to be kept, or the store cannot be written to.
        """
        files = sorted(made.iterdir())
        if sum(file.stat().st_size for file in files) > _MOST_ENTRY_BYTES:
            return made
        place = self._place(key)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=place.parent, prefix=".making-") as temporary:
                staged = Path(temporary) / key
                shutil.copytree(made, staged)
                entry = {"schema": _SCHEMA, "files": {file.name: sha256_file(file) for file in files}}
                (staged / ENTRY).write_bytes(canonical_json(entry))
                if self.get(key) is not None:
                    return place  # another run was faster
                shutil.rmtree(place, ignore_errors=True)
                staged.replace(place)
        except OSError:
            return made  # no room or no right: the run goes on without a cache
        self._make_room(place)
        return place

    def _place(self, key: str) -> Path:
        return self._folder / key[:2] / key

    def _make_room(self, keep: Path) -> None:
        """Remove the least recently used entries until the rest fits; ``keep`` stays."""
        entries = []
        for entry in self._folder.glob(f"??/*/{ENTRY}"):
            with contextlib.suppress(OSError):  # somebody else removed it
                size = sum(file.stat().st_size for file in entry.parent.iterdir())
                entries.append((entry.stat().st_mtime_ns, size, entry.parent))
        total = sum(size for _, size, _ in entries)
        for _, size, folder in sorted(entries):
            if total <= self._most_bytes:
                return
            if folder != keep:
                shutil.rmtree(folder, ignore_errors=True)
                total -= size
