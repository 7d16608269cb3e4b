"""The port between a session and whatever carries its bytes.

Two small protocols. Every transport (ssh, openssh, local, and ssh to an embedded server) keeps the same contract, which
one test class holds against all of them:

- A command runs through a shell on the device. Its input and output are bytes, untouched, many MiB of them, in both
  directions at once.
- Its error output is read all the time, so it never blocks the command; the last 64 KiB are kept for messages.
- ``close`` ends the channel at once: what runs behind it sees the end of its input, blocked reads return, and nothing
  of it is left on this machine.
- What the far side or the network does comes out as an :class:`edgepack.errors.EdgepackError`, never as an exception of
  the library that carries the bytes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from edgepack.errors import EdgepackError

STDERR_TAIL_BYTES = 64 * 1024
# A write that gets nothing through for this long has failed. A tired SD card blocks its writers for tens of seconds.
STALL_TIMEOUT_S = 120.0


class Channel(Protocol):
    """One running command."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of ``data`` to the command's input.

        Raises DeviceFailure: "connection-lost" when nobody reads any more, "stalled" when nothing moves for two
        minutes.
        """

    def finish_input(self) -> None:
        """End the command's input; its output can still be read."""

    def read(self, max_bytes: int) -> bytes:
        """Up to ``max_bytes`` of output as soon as there are any; ``b""`` at its end, and after :meth:`close`."""

    def stderr_tail(self) -> bytes:
        """The last 64 KiB of the error output so far."""

    def wait(self, timeout_s: float) -> int | None:
        """The command's exit status (-1: it was killed), or None where it is not known within this time."""

    def failure(self) -> EdgepackError | None:
        """Why the transport itself broke (refused login, lost line), or None where the command simply ended."""

    def close(self) -> None:
        """End everything at once; may be called twice, and from another thread than the reader's."""


class Transport(Protocol):
    """A way to run commands on one device."""

    @property
    def description(self) -> str:
        """The device's address, for messages."""

    @property
    def server(self) -> str | None:
        """The identification of the device's SSH server (RFC 4253, 4.2); None without one, or where nobody tells."""

    def open(self, command: str) -> Channel:
        """Start ``command`` through the device's shell. Raises UnreachableError, IntegrityError or DeviceFailure."""

    def close(self) -> None:
        """Close every channel and the connection; may be called twice."""


class TailReader(threading.Thread):
    """Reads a stream to its end and keeps the last 64 KiB."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        super().__init__(name="edgepack-stderr", daemon=True)
        self._read = read
        self._tail = bytearray()
        self._lock = threading.Lock()
        self.start()

    def run(self) -> None:
        """Drain until the stream ends."""
        while data := self._read(STDERR_TAIL_BYTES):
            with self._lock:
                self._tail += data
                del self._tail[:-STDERR_TAIL_BYTES]

    def tail(self) -> bytes:
        """What is kept so far."""
        with self._lock:
            return bytes(self._tail)
