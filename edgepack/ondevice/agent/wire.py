"""The channel: frames in from standard input, frames out to what was standard output."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
import threading
import time
from typing import Any, Dict, Iterable, Optional

from .arguments import parse_object, take, take_size
from .children import end_agent
from .errors import bad_request
from .limits import BODY_LIMIT, CHUNK, SILENCE_S

HEADER_LIMIT = 64 * 1024
PIECE = 64 * 1024
F_SETPIPE_SZ = 1031  # fcntl(2); Python has it from 3.10 on


class Payload:
    """The bytes that follow a request's header; read by the verb, or thrown away after it."""

    def __init__(self, wire: Wire, size: int) -> None:
        self._wire = wire
        self.remaining = size
        self.drained = threading.Event()
        if not size:
            self.drained.set()

    def read(self) -> bytes:
        """The next bytes, at most 1 MiB; empty at the payload's end."""
        if not self.remaining:
            return b""
        chunk = self._wire.receive(self.remaining)
        self.remaining -= len(chunk)
        if not self.remaining:
            self.drained.set()
        return chunk

    def drain(self) -> None:
        """Throws away what was not read."""
        while self.read():
            continue


class Wire:
    """The two ends of the channel: frames in from standard input, frames out to what was standard output."""

    def __init__(self, nonce: str) -> None:
        self._input: Any = sys.stdin.buffer
        # sshd hands the channel over in a pipe of 64 KiB; with 1 MiB a push takes a quarter less time. It is no pipe at
        # all elsewhere, and a user's pipes may be used up: both do no harm.
        with contextlib.suppress(OSError):
            fcntl.fcntl(0, F_SETPIPE_SZ, CHUNK)
        self._reply = os.dup(1)
        os.dup2(2, 1)
        self._sending = threading.Lock()
        self.silence_s = SILENCE_S
        self.beat_s: Optional[float] = None  # how often the host wants a sign of life; None: never
        self._reading_since: Optional[float] = None
        self._writing_since: Optional[float] = None
        self.write(f"\nEDGEPACK1 {nonce}\n".encode("ascii", "replace"))

    def write(self, data: Any) -> None:
        """Writes all of these bytes, in pieces that a slow line takes within the silence that is allowed."""
        view = memoryview(data)
        while view:
            self._writing_since = time.monotonic()
            view = view[os.write(self._reply, view[:PIECE]) :]
        self._writing_since = None

    def silent_for_s(self) -> float:
        """How long the host has kept this agent waiting, for its bytes or for taking ours.

        While a verb works and nobody waits for the host, the host owes nothing: a long fsync is no silence.
        """
        since = [moment for moment in (self._reading_since, self._writing_since) if moment is not None]
        return time.monotonic() - min(since) if since else 0.0

    def receive(self, size: int) -> bytes:
        """Some bytes of a payload, at least one; the end of the input ends the agent."""
        self._reading_since = time.monotonic()
        chunk = self._input.read1(min(size, CHUNK))
        self._reading_since = None
        if not chunk:
            end_agent(0)
        return bytes(chunk)

    def read_header(self) -> Dict[str, Any]:
        """The next request's header, checked for the fields that every frame has."""
        self._reading_since = time.monotonic()
        line = self._input.readline(HEADER_LIMIT + 1)
        self._reading_since = None
        if not line:
            end_agent(0)
        if not line.endswith(b"\n"):
            raise bad_request("A header line is longer than 64 KiB, or was cut short.")
        header = parse_object(line, "A header line")
        take(header, "id", int)
        take(header, "verb", str)
        take_size(header, "n")
        return header

    def send(self, header: Dict[str, Any], payload: Optional[Iterable[bytes]] = None) -> None:
        """Sends one frame; a result that does not fit into its line becomes the body."""
        line = json.dumps(header, allow_nan=False).encode("ascii") + b"\n"
        if len(line) > HEADER_LIMIT:
            body = json.dumps(header.pop("result"), allow_nan=False).encode("ascii")
            line = json.dumps(dict(header, n=len(body), body=True)).encode("ascii") + b"\n"
            payload = [body]
        with self._sending:
            self.write(line)
            for chunk in payload or ():
                self.write(chunk)


class Request:
    """A request: its header, its arguments and its payload."""

    def __init__(self, header: Dict[str, Any], payload: Payload) -> None:
        self.id: int = header["id"]
        self.verb: str = header["verb"]
        self.args = header
        self.payload = payload

    @property
    def dry_run(self) -> bool:
        """Whether the host asks only what would happen."""
        return self.args.get("dry_run") is True

    def read_body(self) -> None:
        """Takes the arguments out of the payload where they did not fit into the header."""
        if self.args.get("body") is not True:
            return
        if self.payload.remaining > BODY_LIMIT:
            raise bad_request("The body of a request is larger than 16 MiB.")
        data = b"".join(iter(self.payload.read, b""))
        body = parse_object(data, "The body of a request")
        self.args = dict(body, id=self.id, verb=self.verb, n=0)
