"""Whether what was built before is what would be built now: a stamp beside it, held against digests, not times."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from edgepack.documents import canonical_json

SCHEMA = 1


def key_of(facts: Mapping[str, Any]) -> str:
    """The digest of everything that a result depends on, given as JSON values."""
    return hashlib.sha256(canonical_json(facts)).hexdigest()


def digest_of(path: Path) -> str:
    """The SHA-256 of a file, or over the names and digests of all files below a folder."""
    if not path.is_dir():
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return key_of({file.relative_to(path).as_posix(): digest_of(file) for file in files})


def write_stamp(stamp: Path, key: str, files: Iterable[Path]) -> None:
    """Note that ``files`` (beside the stamp) are the result of ``key``: wholly, or where that fails not at all."""
    value = {"schema": SCHEMA, "key": key, "files": {file.name: digest_of(file) for file in files}}
    partial = stamp.with_name(f".{stamp.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as stream:
            stream.write(canonical_json(value))
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(stamp)
    finally:
        partial.unlink(missing_ok=True)


def is_current(stamp: Path, key: str) -> bool:
    """Whether the stamp is that of ``key``, and each file that it names is there and unchanged."""
    try:
        value = json.loads(stamp.read_bytes())
        files = value["files"].items() if value["schema"] == SCHEMA and value["key"] == key else ()
        return bool(files) and all(digest_of(stamp.parent / Path(name).name) == digest for name, digest in files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        # No stamp, an unreadable one, or a file that is gone: then it is built again.
        return False
