"""This machine as the device: commands run in a subprocess of a shell."""

from __future__ import annotations

from edgepack.device.process import ProcessChannel


class LocalTransport:
    """Runs commands on this machine through ``/bin/sh``, as sshd would through the login shell."""

    def __init__(self, root: str | None = None) -> None:
        self.description = f"local:{root or ''}"
        self.server: str | None = None
        self._channels: list[ProcessChannel] = []

    def open(self, command: str) -> ProcessChannel:
        """Start ``command`` through ``/bin/sh``."""
        channel = ProcessChannel(["/bin/sh", "-c", command], "this machine")
        self._channels.append(channel)
        return channel

    def close(self) -> None:
        """End every command that still runs."""
        while self._channels:
            self._channels.pop().close()
