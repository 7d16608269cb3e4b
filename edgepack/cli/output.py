"""What a command needs beside its text: options that have to come from somewhere, documents written to files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from edgepack.errors import InputError

T = TypeVar("T")


def required(value: T | None, option: str) -> T:
    """The value of an option that has to come from somewhere; edgepack.toml is advised where it has a key for it."""
    if value is None:
        table = _table_of(option)
        written = f", or write it into [{table}] of edgepack.toml (`edgepack init` makes one)" if table else ""
        raise InputError("usage", f"{option} is missing.", hint=f"Give {option}{written}.")
    return value


def _table_of(option: str) -> str | None:
    """The table of edgepack.toml that has a key of the option's name."""
    from edgepack.project import PROJECT
    from edgepack.strict_toml import Table

    key = option.removeprefix("--").replace("-", "_")
    tables = {name: PROJECT.keys[name] for name in ("app", "sign")}
    return next((name for name, table in tables.items() if isinstance(table, Table) and key in table.keys), None)


def write_document(path: Path, document: Any) -> None:
    """Write a document as JSON, whole or not at all."""
    from edgepack.documents import to_json, to_json_value
    from edgepack.files import write_whole

    write_whole(path, to_json(to_json_value(document)) + "\n")
