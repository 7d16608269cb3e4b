"""A paramiko connection that tells a line that was cut from a server that took its leave."""

from __future__ import annotations

import paramiko


class Connection(paramiko.Transport):  # type: ignore[misc]  # paramiko has no types
    """``farewell`` is what the far side said when it disconnected (RFC 4253, 11.1); None: it said nothing."""

    farewell: str | None = None

    def _parse_disconnect(self, m: paramiko.Message) -> None:
        m.get_int()
        self.farewell = m.get_text()
