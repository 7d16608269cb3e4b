"""A document as ``--json`` printed it, back as its value; tolerant: unknown fields are left alone."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from edgepack.documents import SCHEMA, BrokenBudget, CheckDocument, QuantizeDocument, QuantizeSetDocument, TuneDocument
from edgepack.errors import InputError
from edgepack.files import MOST_JSON_BYTES, require_regular
from edgepack.jsonvalues import nests_deeper
from edgepack.report.packing import UnpackingError, block_of, unpacked_document
from edgepack.report.page import Reportable
from edgepack.shaped import MisshapenError, shaped

NONE_KEEPS = "no-candidate-keeps-budget"
"""The code of tune's error that has a report, as a document has."""
_HINT = "Name what `--json` of edgepack quantize, tune or check printed, or what `check -o` wrote."
_PAGE_HINT = (
    "Name a page that `edgepack check --report` or `edgepack report` wrote of a check, or the check's document."
)
# A page of a check is smaller than MOST_CHECK_BYTES; whoever mailed it may have put a little around it.
_MOST_PAGE_BYTES = 1 << 20
_DEEPEST = 32
_LARGEST = 1 << 63


def read_document(path: Path) -> Reportable:
    """The document in a JSON file.

    Raises InputError: "bad-document" (not readable, no JSON, a field is missing or of another type), "no-report" (a
    document of another command).
    """
    require_regular(path)
    try:
        with path.open("rb") as stream:
            return _read(stream, str(path))
    except OSError as error:
        _refuse(str(path), f"{error.strerror or error}")


def read_stdin() -> Reportable:
    """The document that comes on standard input; raises as :func:`read_document`."""
    name = "standard input"
    if sys.stdin is None:
        _refuse(name, "it is closed")
    try:
        return _read(sys.stdin.buffer, name)
    except OSError as error:
        _refuse(name, f"{error.strerror or error}")


def read_page(text: str, name: str) -> CheckDocument:
    """The document in a page of a check.

    Raises InputError: "bad-page" (none of ours, cut short, damaged), "no-evidence" (its samples did not fit into it).
    """
    try:
        value = _parsed(block_of(text))
        if "left_out" in value:
            raise InputError(
                "no-evidence",
                f"The samples of this check did not fit into the page {name}: nothing can be computed again from it.",
                hint="Name the check's document instead: what `edgepack check -o FILE.json` wrote.",
            )
        document = shaped(CheckDocument, _plain(unpacked_document(value)))
    except (UnpackingError, MisshapenError) as fault:
        _refuse_page(name, str(fault))
    return document


def read_page_or_document(path: Path) -> tuple[CheckDocument, str | None]:
    """The document of a check from its page, with the page's text, or from the JSON file of ``check -o``.

    Raises as :func:`read_page` and :func:`read_document`, and InputError "no-report": it is of another command.
    """
    require_regular(path)
    try:
        with path.open("rb") as stream:
            head = stream.read(_MOST_PAGE_BYTES + 1)
    except OSError as error:
        _refuse_page(str(path), f"{error.strerror or error}")
    if head.lstrip()[:1] in (b"{", b"["):
        document = read_document(path)
        if not isinstance(document, CheckDocument):
            raise InputError("no-report", f"{path} is no document of check: it has no verdict.", hint=_PAGE_HINT)
        return document, None
    if len(head) > _MOST_PAGE_BYTES:
        _refuse_page(str(path), f"it is larger than {_MOST_PAGE_BYTES >> 20} MiB")
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError:
        _refuse_page(str(path), "it is no text")
    return read_page(text, str(path)), text


def _read(stream: BinaryIO, name: str) -> Reportable:
    content = stream.read(MOST_JSON_BYTES + 1)
    if len(content) > MOST_JSON_BYTES:
        _refuse(name, f"it is larger than {MOST_JSON_BYTES >> 20} MiB")
    try:
        value = _parsed(content)
        failure = value.get("error")
        if isinstance(failure, dict) and failure.get("code") == NONE_KEEPS:
            return broken_budget(failure.get("message"), failure.get("hint"), failure.get("details"))
        kind = _kind(value)
        if kind is None:
            raise no_report(name)
        return shaped(kind, _plain(value) if kind is CheckDocument else value)
    except MisshapenError as fault:
        _refuse(name, str(fault))


def broken_budget(message: Any, hint: Any, details: Any) -> BrokenBudget:
    """What stands in tune's error that no candidate keeps the budget. Raises MisshapenError."""
    return shaped(
        BrokenBudget, {**(details if isinstance(details, dict) else {}), "message": message, "hint": hint}, ""
    )


def no_report(what: str) -> InputError:
    """The error that says that there are no reports of such a document."""
    return InputError("no-report", f"{what} is no document of quantize, tune or check: it has no report.", hint=_HINT)


def _kind(value: Mapping[str, Any]) -> type[Reportable] | None:
    if {"candidates", "chosen"} <= value.keys():
        return TuneDocument
    if {"model", "source", "conformance"} <= value.keys():
        return QuantizeDocument
    if {"verdict", "reasons", "latency_ms"} <= value.keys():
        return CheckDocument
    return QuantizeSetDocument if "models" in value else None


def _parsed(content: str | bytes) -> dict[str, Any]:
    """A document's JSON object. Raises MisshapenError."""
    try:
        value = json.loads(content, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise MisshapenError("it is no JSON") from None
    if not isinstance(value, dict) or not isinstance(value.get("schema"), int):
        raise MisshapenError("it is no document of edgepack")
    if value["schema"] > SCHEMA:
        raise MisshapenError(f"its schema is {value['schema']}, and this edgepack knows {SCHEMA}")
    return value


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    """The value itself, if all of it can be shown: fields that may hold anything are looked into nowhere else.

    Raises MisshapenError: it nests deeply, or a number is not finite or beyond 64 bits.
    """
    if nests_deeper(value, _DEEPEST):
        raise MisshapenError("it nests too deeply")
    rest: list[Any] = [value]
    while rest:
        one = rest.pop()
        if isinstance(one, (dict, list)):
            rest += one.values() if isinstance(one, dict) else one
        elif isinstance(one, float) and not math.isfinite(one):
            raise MisshapenError("a number in it is infinite")
        elif isinstance(one, int) and abs(one) >= _LARGEST:
            raise MisshapenError("a number in it has more than 64 bits")
    return value


def _refuse_page(name: str, why: str) -> NoReturn:
    raise InputError("bad-page", f"{name} cannot be read as a page of a check: {why}.", hint=_PAGE_HINT)


def _refuse(name: str, why: str) -> NoReturn:
    raise InputError("bad-document", f"{name} cannot be read as a document: {why}.", hint=_HINT)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)
