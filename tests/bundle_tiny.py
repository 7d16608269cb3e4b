"""The smallest bundles, written by the real writer from plain bytes; some of them say what no honest bundle says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgepack.bundle.archive import write_archive
from edgepack.bundle.manifest import runtime_id
from edgepack.bundle.opened import Bundle
from edgepack.documents import FileEntry, canonical_json

FILES = {"model.tflite": b"model" * 20, "loader.py": b"print()\n", "wheels/a-1-py3-none-any.whl": b"wheel"}


def content_of(bundle: Bundle, path: str) -> bytes:
    """What a bundle holds under a path."""
    with bundle.open_entry(path) as stream:
        return stream.read()


def manifest_value(contents: Mapping[str, bytes], /, **changes: Any) -> dict[str, Any]:
    """A sound manifest over those files, with top-level ``changes``."""
    entries = [entry(path, content) for path, content in sorted(contents.items())]
    model = contents.get("model.tflite", b"")
    wheels = {path: digest(content) for path, content in contents.items() if path.startswith("wheels/")}
    runtime = {
        "id": runtime_id({path.removeprefix("wheels/"): value for path, value in wheels.items()}),
        "package": "tflite-runtime",
        "version": "2.14.0",
        "wheels": sorted(wheels),
        "numpy": ">=1.23.2,<2",
    }
    return {
        "schema": 1,
        "name": "app",
        "version": "1.0.0",
        "target": {"name": "raspberry-pi-4"},
        "model": {"file": "model.tflite", "scheme": "int8", "bytes": len(model), "sha256": digest(model)},
        "platforms": [{"python": "3.11", "arch": "aarch64", "libc": "glibc-2.36", "runtime": runtime}],
        "files": entries,
        "provenance": None,
        "counter": None,
    } | changes


def digest(content: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def entry(path: str, content: bytes) -> dict[str, Any]:
    """A line of the manifest's files."""
    return {"path": path, "bytes": len(content), "sha256": digest(content)}


def write_tiny(path: Path, files: Mapping[str, bytes] = FILES, *, manifest: bytes | None = None) -> Path:
    """A bundle of those files, in the given order; ``manifest`` replaces the sound one."""
    content = canonical_json(manifest_value(files)) if manifest is None else manifest
    sources = [(FileEntry(**entry(name, data)), data) for name, data in sorted(files.items())]
    with path.open("wb") as stream:
        write_archive(stream, content, sources)
    return path


def rewritten(path: Path, manifest: bytes, files: Mapping[str, bytes]) -> Path:
    """A bundle of other files, with a manifest that vouches for them."""
    value = json.loads(manifest)
    for entry in value["files"]:
        content = files[entry["path"]]
        entry |= {"bytes": len(content), "sha256": digest(content)}
    with path.open("wb") as stream:
        write_archive(stream, canonical_json(value), [(FileEntry(**e), files[e["path"]]) for e in value["files"]])
    return path
