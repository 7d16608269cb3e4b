"""The frames that host and agent exchange. The protocol itself stands in ``ondevice/agent/__init__.py``."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edgepack.documents import nests_deeper
from edgepack.errors import DeviceFailure, EdgepackError, InputError

MAX_HEADER_BYTES = 64 * 1024
MAX_BODY_BYTES = 16 * 1024 * 1024
# Of one JSON text: a check of a very fast model tells 200,000 latencies (the loader's most), and little beside them.
MAX_VALUES = 1_000_000
MAX_LEVELS = 64
# What a login may print before the agent speaks: banners, an echo in .bashrc.
MAX_NOISE_BYTES = 64 * 1024
# A reply's payload is a model's outputs over its check set: far below this, which only bounds what a broken agent can
# ask for.
MAX_PAYLOAD_BYTES = 1 << 30
# Of headers that came and nobody has received yet; replies to 10,000 requests that were sent ahead are 1 MiB.
MAX_WAITING_BYTES = 4 * 1024 * 1024
_READ_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Reply:
    """What a verb returned: ``result`` as plain JSON values, and the payload (``b""`` for most verbs)."""

    result: dict[str, Any]
    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame from the agent: its header and its payload."""

    header: Mapping[str, Any]
    payload: bytes
    header_bytes: int = 0

    @property
    def id(self) -> int | None:
        """The request that it belongs to; None where the agent ends the session."""
        id_ = self.header["id"]
        return None if id_ is None else int(id_)

    def reply(self) -> Reply:
        """What the verb returned; a result too large for the header line came as the payload ("body")."""
        if self.header.get("body") is True:
            return Reply(_object(self.payload))
        result = self.header.get("result")
        return Reply(dict(result) if isinstance(result, Mapping) else {}, self.payload)


def request_frame(id_: int, verb: str, n: int, args: Mapping[str, object]) -> bytes:
    """The header line of a request with ``n`` bytes of payload to follow.

    Arguments that do not fit into a line are put after it, as its body. InputError "request-too-large" beyond 16 MiB,
    or where the request has a payload too.
    """
    line = _line({"id": id_, "verb": verb, "n": n, **args})
    if len(line) <= MAX_HEADER_BYTES:
        return line
    body = _line(args)
    if n or len(body) > MAX_BODY_BYTES:
        raise InputError(
            "request-too-large",
            f"The request {verb!r} takes {len(line)} bytes, which is more than a device takes.",
            hint="The bundle holds too many files; pack them into fewer.",
        )
    return _line({"id": id_, "verb": verb, "n": len(body), "body": True}) + body


def _line(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"


class FrameReader:
    """Cuts a byte stream into frames; every size is bounded before anything of it is kept."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._buffer = bytearray()

    def skip_past(self, marker: bytes) -> bytes | None:
        """Discard everything up to and with ``marker``. None when it came; else what there was instead, at the stream's
        end.

        Raises DeviceFailure "not-the-agent" after 64 KiB without it.
        """
        while (found := self._buffer.find(marker)) < 0:
            if len(self._buffer) > MAX_NOISE_BYTES + len(marker):
                raise broken_stream("prints more than 64 KiB before edgepack's agent gets a word in")
            if not (data := self._read(_READ_BYTES)):
                return bytes(self._buffer)
            self._buffer += data
        del self._buffer[: found + len(marker)]
        return None

    def frame(self) -> Frame | None:
        """The next frame; None at the stream's end. Raises DeviceFailure "not-the-agent" on what is no frame."""
        while (end := self._buffer.find(b"\n", 0, MAX_HEADER_BYTES)) < 0:
            if len(self._buffer) >= MAX_HEADER_BYTES:
                raise broken_stream("sent a header of more than 64 KiB")
            if not (data := self._read(_READ_BYTES)):
                return None
            self._buffer += data
        header = _header(bytes(self._buffer[:end]))
        del self._buffer[: end + 1]
        payload = self._payload(header["n"])
        return None if payload is None else Frame(header, payload, end + 1)

    def _payload(self, size: int) -> bytes | None:
        while len(self._buffer) < size:
            if not (data := self._read(_READ_BYTES)):
                return None
            self._buffer += data
        payload = bytes(memoryview(self._buffer)[:size])
        del self._buffer[:size]
        return payload


def _object(data: bytes) -> dict[str, Any]:
    if data.count(b",") + data.count(b"[") + data.count(b"{") > MAX_VALUES:
        raise broken_stream(f"sent a reply of more than {MAX_VALUES} values")
    try:
        value = json.loads(data, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict) or nests_deeper(value, MAX_LEVELS):
        raise broken_stream(f"sent {data[:80]!r} instead of a reply")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON (RFC 8259)")


def _header(line: bytes) -> dict[str, Any]:
    header = _object(line)
    if "id" not in header or not (header["id"] is None or type(header["id"]) is int):
        raise broken_stream(f"sent {line[:80]!r} instead of a reply")
    size = header.setdefault("n", 0)
    limit = MAX_BODY_BYTES if header.get("body") is True else 0 if "progress" in header else MAX_PAYLOAD_BYTES
    if type(size) is not int or not 0 <= size <= limit:
        raise broken_stream(f"announced a payload of {size!r:.80} bytes")
    return header


def broken_stream(what: str) -> EdgepackError:
    """The error for a far side that does not speak the protocol."""
    return DeviceFailure(
        "not-the-agent",
        f"The device {what}.",
        hint="Something in its shell's start-up files (~/.bashrc, /etc/profile.d) writes into the connection: "
        "let it write only in interactive shells.",
    )
