"""One program on the far side of a connection: its input, its output, the tail of its stderr, its exit status."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import paramiko

from edgepack.device.lost import connection_dropped, connection_lost
from edgepack.device.transport import STALL_TIMEOUT_S, TailReader
from edgepack.errors import DeviceFailure, EdgepackError

# paramiko holds a channel's lock for moments, never while it sends or waits.
_LOCK_TIMEOUT_S = 2.0


class SshChannel:
    """One command over an SSH connection, which ``cut`` ends without a word.

    Python raises Ctrl-C wherever the main thread is, and inside of paramiko that may leave a lock taken by nobody, of
    the channel or of the connection: whoever sends after that waits for it without an end. So an interrupt of a
    sending cuts the line, and nothing is sent any more; and the channel's own lock, which paramiko's thread takes when
    the line ends, is freed before either side is closed.
    """

    def __init__(self, channel: paramiko.Channel, description: str, cut: Callable[[], None]) -> None:
        self._channel = channel
        self._description = description
        self._cut = cut
        self._is_cut = False
        channel.settimeout(STALL_TIMEOUT_S)
        self._stderr = TailReader(lambda size: self._receive(channel.recv_stderr, size))

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """See :meth:`edgepack.device.transport.Channel.write`."""
        left = memoryview(data).cast("B")
        while left:
            try:
                sent = self._send(self._channel.send, left)
            except TimeoutError:
                raise DeviceFailure(
                    "stalled",
                    f"{self._description} took no byte for {STALL_TIMEOUT_S:.0f} s.",
                    hint="Look at the device: its disk or its network hangs. Then run the command again; it resumes.",
                ) from None
            except (OSError, EOFError, paramiko.SSHException):
                sent = 0
            if not sent:
                raise connection_lost(self._description)
            left = left[sent:]

    def finish_input(self) -> None:
        """See :meth:`edgepack.device.transport.Channel.finish_input`."""
        self._free_lock()
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            self._send(self._channel.shutdown_write)

    def read(self, max_bytes: int) -> bytes:
        """See :meth:`edgepack.device.transport.Channel.read`."""
        return self._receive(self._channel.recv, max_bytes)

    def stderr_tail(self) -> bytes:
        """See :meth:`edgepack.device.transport.Channel.stderr_tail`."""
        return self._stderr.tail()

    def wait(self, timeout_s: float) -> int | None:
        """See :meth:`edgepack.device.transport.Channel.wait`."""
        if not self._channel.status_event.wait(timeout_s):
            return None
        self._stderr.join(timeout_s)
        return int(self._channel.exit_status)

    def failure(self) -> EdgepackError | None:
        """See :meth:`edgepack.device.transport.Channel.failure`."""
        if self._channel.transport.is_active() or self._channel.exit_status != -1:
            return None
        return connection_dropped(self._description)

    def close(self) -> None:
        """See :meth:`edgepack.device.transport.Channel.close`."""
        self._free_lock()
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            self._send(self._channel.close)
        self._stderr.join()

    def _send(self, send: Callable[..., Any], *arguments: object) -> Any:
        """Call what sends; raises OSError where the line was cut."""
        if self._is_cut:
            raise ConnectionAbortedError
        try:
            return send(*arguments)
        except KeyboardInterrupt:
            self._is_cut = True
            self._cut()
            raise

    def _free_lock(self) -> None:
        """Release the channel's lock where an interrupt left it taken."""
        self._channel.lock.acquire(timeout=_LOCK_TIMEOUT_S)
        self._channel.lock.release()

    def _receive(self, receive: Callable[[int], bytes], max_bytes: int) -> bytes:
        while True:
            try:
                return receive(max_bytes)
            except TimeoutError:
                continue
            except (OSError, EOFError, paramiko.SSHException):
                # Acknowledging what was read failed: the line is dead, which is the end of the output.
                return b""
