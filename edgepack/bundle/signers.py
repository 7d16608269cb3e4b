"""Reading a file of allowed signers, and what of it is pinned on a device; pure.

A device's clock may be wrong by years, so lifetimes are judged here, on the host, when the device is pinned: lines that
are not valid now stay away, and the others go without their dates (ssh-keygen(1), ALLOWED SIGNERS).
"""

from __future__ import annotations

import base64
import datetime
import re
from collections.abc import Iterator
from dataclasses import dataclass

from edgepack.errors import InputError

MAX_BYTES = 256 * 1024
_SHOWN = 3
_OPTION = re.compile(r'([a-z-]+)(?:="([^"]*)")?(,|$)', re.IGNORECASE)
_OPTIONS = ("cert-authority", "namespaces", "valid-after", "valid-before")
_LINE = re.compile(
    r'(?P<principals>"[^"]*"|\S+)\s+(?:(?P<options>(?:[^\s"]|"[^"]*")+)\s+)?'
    r"(?P<type>(?:ssh|ecdsa|sk)-[a-z0-9-]+(?:@openssh\.com)?)\s+(?P<key>\S+)"
)
_TIMES = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}


@dataclass(frozen=True, slots=True)
class PinnedSigners:
    """The lines that go to the device, the names that they are for, and why others do not go."""

    text: str
    principals: tuple[str, ...]
    left_out: tuple[str, ...]


def pinned_signers(text: str, now: datetime.datetime) -> PinnedSigners:
    """What is pinned of that text at that time (with a time zone).

    Raises :class:`InputError` "bad-allowed-signers" that names every line that is none, and where none is valid now.
    """
    kept, principals, left_out, faults = [], [], [], []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            found = _parse(line.strip())
            reason = _not_valid(found.options, now)
        except ValueError as error:
            faults.append(f"line {number}: {error}")
            continue
        if reason:
            left_out.append(f"line {number}, {found.principals}: {reason}")
        else:
            kept.append(_without_dates(found))
            principals.append(found.principals)
    if faults or not kept:
        raise _no_signers("The file of allowed signers cannot be pinned", faults or left_out)
    return PinnedSigners("".join(f"{line}\n" for line in kept), tuple(principals), tuple(left_out))


def require_any_signer(text: str, name: str) -> None:
    """Raises :class:`InputError` "bad-allowed-signers" where no line of the file ``name`` is a signer, valid or not."""
    faults = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            _parse(line.strip())
            return
        except ValueError as error:
            faults.append(f"line {number}: {error}")
    raise _no_signers(f"{name} is no file of allowed signers", faults)


def _no_signers(what: str, faults: list[str]) -> InputError:
    shown = "; ".join(faults[:_SHOWN]) or "it names nobody"
    more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
    return InputError(
        "bad-allowed-signers",
        f"{what}: {shown}{more}.",
        hint='A line is a name and a public key: alice@example.com namespaces="edgepack" ssh-ed25519 AAAA...',
    )


@dataclass(frozen=True, slots=True)
class _Line:
    principals: str
    options: tuple[tuple[str, str | None], ...]
    key_type: str
    key: str


def _parse(line: str) -> _Line:
    """One line; ValueError with what is wrong about it."""
    found = _LINE.match(line)
    if found is None:
        raise ValueError("it is no name and public key")
    blob = base64.b64decode(found["key"], validate=True)
    named = blob[4 : 4 + int.from_bytes(blob[:4], "big")]
    if named != found["type"].encode("ascii"):
        raise ValueError(f"its key is not one of the type {found['type']}")
    return _Line(found["principals"], tuple(_options(found["options"] or "")), found["type"], found["key"])


def _options(text: str) -> Iterator[tuple[str, str | None]]:
    position = 0
    while position < len(text):
        found = _OPTION.match(text, position)
        if found is None or found[1].lower() not in _OPTIONS:
            raise ValueError(f"{text[position:]!r} is no option of an allowed signer")
        yield found[1].lower(), found[2]
        position = found.end()


def _not_valid(options: tuple[tuple[str, str | None], ...], now: datetime.datetime) -> str:
    for name, value in options:
        if name == "valid-after" and now < _time(value):
            return f"valid from {value} on"
        if name == "valid-before" and now > _time(value):
            return f"expired on {value}"
    return ""


def _time(text: str | None) -> datetime.datetime:
    """``YYYYMMDD[HHMM[SS]]``, in this machine's time zone, or in UTC with a Z (ssh-keygen(1))."""
    digits = (text or "").removesuffix("Z")
    if len(digits) not in _TIMES or not digits.isascii() or not digits.isdigit():
        raise ValueError(f"{text!r} is no time such as 20270131")
    moment = datetime.datetime.strptime(digits, _TIMES[len(digits)])
    return moment.replace(tzinfo=datetime.UTC) if (text or "").endswith("Z") else moment.astimezone()


def _without_dates(line: _Line) -> str:
    kept = [name if value is None else f'{name}="{value}"' for name, value in line.options if "valid-" not in name]
    return " ".join([line.principals, *([",".join(kept)] if kept else []), line.key_type, line.key])
