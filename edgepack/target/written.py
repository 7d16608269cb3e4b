"""A target as the TOML of a complete profile, to copy and to change: a pure function of the value."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from edgepack.target.values import Target


def profile_toml(target: Target) -> str:
    """The text of a profile that says everything and extends nothing; read again, it is this target."""
    value = {key: inner for key, inner in target.to_json().items() if key != "name"}
    plain = {key: inner for key, inner in value.items() if not isinstance(inner, (Mapping, list))}
    lines = [f"# A copy of {target.name}, complete: it extends nothing.", *_pairs(plain)]
    for platform in value["platforms"]:
        lines += ["", "[[platforms]]", *_pairs(platform)]
    for name, table in value.items():
        if isinstance(table, Mapping):
            inner = {key: one for key, one in table.items() if one is not None and one != {}}
            pairs = list(_pairs({key: one for key, one in inner.items() if not isinstance(one, Mapping)}))
            lines += ["", f"[{name}]", *pairs] if pairs else []
            for key, options in inner.items():
                lines += ["", f"[{name}.{key}]", *_pairs(options)] if isinstance(options, Mapping) else []
    return "\n".join(lines) + "\n"


def _pairs(table: Mapping[str, Any]) -> Iterable[str]:
    """``key = value``: JSON's texts, numbers, truth values and lists of texts are TOML's as well."""
    return (f"{_key(key)} = {json.dumps(value, ensure_ascii=False)}" for key, value in table.items())


def _key(name: str) -> str:
    bare = name.replace("_", "").replace("-", "")
    return name if bare.isascii() and bare.isalnum() else json.dumps(name, ensure_ascii=False)
