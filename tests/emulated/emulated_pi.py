"""A running emulated device, and a program run on it as a user would."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgepack.device import ConnectOptions


@dataclass(frozen=True)
class Pi:
    """A running emulated device; ``ssh_config`` is the file that knows it by its name."""

    name: str
    ssh_config: Path

    @property
    def where(self) -> dict[str, Any]:
        """The keyword arguments that reach it. On a busy machine a handshake under QEMU takes some seconds."""
        return {"device": self.name, "options": ConnectOptions(ssh_config=self.ssh_config, connect_timeout_s=60.0)}

    def run(self, command: str, given: bytes = b"") -> str:
        """What a command line prints on the device, through the stock ssh program; it has to succeed."""
        words = ["ssh", "-F", str(self.ssh_config), self.name, command]
        done = subprocess.run(words, input=given, capture_output=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()
