"""paramiko's connection, which tells a cut line from a server's farewell, and its socket through a jump host."""

from __future__ import annotations

import contextlib
from typing import Any

import paramiko


class Connection(paramiko.Transport):  # type: ignore[misc]  # paramiko has no types
    """``farewell`` is what the far side said when it disconnected (RFC 4253, 11.1); None: it said nothing."""

    farewell: str | None = None

    def _parse_disconnect(self, m: paramiko.Message) -> None:
        m.get_int()
        self.farewell = m.get_text()


class JumpSocket:
    """A channel through a jump host, as the socket of the next connection.

    Closing a channel is a message through that host's connection, which may be dead. A socket's close does not fail for
    that, and paramiko's thread, which closes its socket before it wakes those who wait for it, relies on it.
    """

    def __init__(self, channel: paramiko.Channel) -> None:
        self.channel = channel

    def __getattr__(self, name: str) -> Any:
        return getattr(self.channel, name)

    def close(self) -> None:
        """Close the channel, dead or alive."""
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            self.channel.close()
