"""What a command needs beside its text: options that have to come from somewhere, documents written to files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from edgepack.errors import InputError

T = TypeVar("T")


def required(value: T | None, option: str) -> T:
    """The value of an option that has to come from somewhere."""
    if value is None:
        raise InputError(
            "usage",
            f"{option} is missing.",
            hint=f"Give {option}, or write it into edgepack.toml (`edgepack init` makes one).",
        )
    return value


def write_document(path: Path, document: Any) -> None:
    """Write a document as JSON, whole or not at all."""
    from edgepack.documents import to_json, to_json_value
    from edgepack.files import write_whole

    write_whole(path, to_json(to_json_value(document)) + "\n")
