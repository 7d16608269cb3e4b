"""A check's document inside of its page: a data block that no browser runs, its long lists packed. Pure.

A list of whole numbers is packed as ``{"packed": "integers", "count": n, "width": w, "data": "..."}``: n little-endian
numbers of w bytes, first the lowest byte of each, then the second of each, and so on, deflated (zlib), in base64. What
is random in a time lies in its low bytes, so that the others take next to no room. Any other long list is
``{"packed": "json", "count": n, "data": "..."}``: its JSON, deflated.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import zlib
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup, escape

BLOCK_ID = "edgepack-check"
MOST_ITEMS = 1 << 20
_MOST_JSON_BYTES = 16 << 20
_LONGEST_PLAIN = 48
# The characters that could end or nest a script element, and those that are ends of lines to JavaScript alone:
# https://html.spec.whatwg.org/multipage/scripting.html#restrictions-for-contents-of-script-elements
_UNSAFE = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}
_OPEN = f'<script type="application/json" id="{BLOCK_ID}">'
_BLOCK = re.compile(re.escape(_OPEN) + r"(.*?)</script>", re.DOTALL)


class UnpackingError(ValueError):
    """What is wrong with a page's data."""


def packed_document(value: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON value of a document, the long lists of its evidence packed."""
    evidence = value.get("evidence")
    return {**value, "evidence": None if evidence is None else _packed(evidence)}


def unpacked_document(value: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of :func:`packed_document`. Raises UnpackingError."""
    return {**value, "evidence": _unpacked(value.get("evidence"))}


def data_block(value: Mapping[str, Any]) -> Markup:
    """The element that holds a JSON value, which reads the same to a browser and to :func:`block_of`."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False).translate(_UNSAFE)
    return Markup('<script type="application/json" id="{}">{}</script>').format(BLOCK_ID, escape(_Verbatim(text)))


def block_of(page: str) -> str:
    """The JSON text in a page's data block. Raises UnpackingError where there is none, or more than one."""
    found = _BLOCK.findall(page)
    if len(found) != 1 or page.count(BLOCK_ID) != 1:
        raise UnpackingError("it holds no data of a check" if not found else "it holds data more than once")
    return str(found[0])


class _Verbatim:
    """JSON whose every ``<``, ``>`` and ``&`` is escaped in JSON's own way already."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __html__(self) -> str:
        return self._text


def _packed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _packed(one) for key, one in value.items()}
    if not isinstance(value, (list, tuple)) or len(value) <= _LONGEST_PLAIN:
        return value
    if all(type(one) is int and 0 <= one < 1 << 63 for one in value):
        width = max(1, (max(value).bit_length() + 7) // 8)
        rows = b"".join(one.to_bytes(width, "little") for one in value)
        content = b"".join(rows[place::width] for place in range(width))
        return {"packed": "integers", "count": len(value), "width": width, "data": _deflated(content)}
    content = json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
    return {"packed": "json", "count": len(value), "data": _deflated(content)}


def _deflated(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content, 9)).decode("ascii")


def _unpacked(value: Any) -> Any:
    if isinstance(value, list):
        return [_unpacked(one) for one in value]
    if not isinstance(value, Mapping):
        return value
    if "packed" not in value:
        return {key: _unpacked(one) for key, one in value.items()}
    kind, count, data = value["packed"], value.get("count"), value.get("data")
    if type(count) is not int or not 0 <= count <= MOST_ITEMS or not isinstance(data, str):
        raise UnpackingError("a packed list does not say how long it is")
    found = _integers(data, count, value.get("width")) if kind == "integers" else _list(data)
    if len(found) != count:
        raise UnpackingError(f"a packed list of {count} values holds {len(found)}")
    return found


def _integers(data: str, count: int, width: Any) -> list[int]:
    if type(width) is not int or not 1 <= width <= 8:
        raise UnpackingError("a packed list does not say how wide its numbers are")
    content = _inflated(data, count * width)
    if len(content) != count * width:
        raise UnpackingError(f"a packed list of {count} numbers holds {len(content)} bytes")
    return [int.from_bytes(content[place::count], "little") for place in range(count)]


def _list(data: str) -> list[Any]:
    content = _inflated(data, _MOST_JSON_BYTES)
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        raise UnpackingError("a packed list is no JSON") from None
    if not isinstance(found, list):
        raise UnpackingError("a packed list is none")
    return found


def _inflated(data: str, most: int) -> bytes:
    """At most so many bytes and one: a few packed ones can claim to be any number."""
    try:
        return zlib.decompressobj().decompress(base64.b64decode(data, validate=True), most + 1)
    except (zlib.error, binascii.Error, ValueError):
        raise UnpackingError("a packed list is damaged") from None
