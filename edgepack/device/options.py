"""How to reach a device, as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edgepack.errors import InputError
from edgepack.events import Reporter, ignore_events

DEFAULT_ROOT = "~/.edgepack"
DEFAULT_PYTHON = "python3"
DEFAULT_RETRIES = 4


@dataclass(frozen=True, slots=True)
class ConnectOptions:
    """The options of every command that reaches a device.

    ``ssh_config`` is a file as for ``ssh -F``; ``identity`` a private key to try first; ``known_hosts`` the only file
    of host keys to believe instead of the configured ones. ``accept_new_host_key`` writes down the key of a host that
    is not known yet; a changed key always stops. ``transport`` picks edgepack's own SSH client or the ``ssh`` program.
    ``root`` is the device's edgepack folder (None: ``~/.edgepack``), ``python`` the interpreter on the device. Times in
    seconds. ``retries`` is how often a step is tried again whose connection broke; a refusal is never tried again.
    ``wait_s`` is how long to wait while somebody else works on the device. ``root_gives_way``: the root was stated for
    every device (by the environment, edgepack.toml), and that of a ``local:/some/root`` goes before it; else the two
    contradict each other. ``report`` is told what logging in changes on this machine (a new host's key), of broken
    connections and of waiting.
    """

    ssh_config: Path | None = None
    identity: Path | None = None
    known_hosts: Path | None = None
    accept_new_host_key: bool = False
    transport: Literal["ssh", "openssh"] = "ssh"
    connect_timeout_s: float = 10.0
    root: str | None = None
    python: str = DEFAULT_PYTHON
    root_gives_way: bool = False
    retries: int = DEFAULT_RETRIES
    wait_s: float = 0.0
    report: Reporter = field(default=ignore_events, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Refuses what no device could be reached with, before anything is tried."""
        if self.transport not in ("ssh", "openssh"):
            raise InputError("bad-option", f"{self.transport!r} is no transport.", hint="Write ssh or openssh.")
        if not 0 < self.connect_timeout_s < 86_400:
            raise InputError(
                "bad-option",
                f"{self.connect_timeout_s} s is no time to wait for a device.",
                hint="Write --connect-timeout with a number of seconds above 0.",
            )
        if not 0 <= self.retries <= 1000:
            raise InputError(
                "bad-option", f"{self.retries} is no number of retries.", hint="Write --retries with 0 to 1000."
            )
        if not 0 <= self.wait_s <= 86_400:
            raise InputError(
                "bad-option", f"{self.wait_s} s is no time to wait.", hint="Write --wait with 0 to 86400 seconds."
            )
        for name, value in (("root", self.root), ("python", self.python)):
            if value is not None and (not value or "\x00" in value or "\n" in value or value.startswith("-")):
                raise InputError("bad-option", f"{value!r} is no path.", hint=f"Write --{name} with a path.")
        if self.root is not None and not self.root.startswith(("/", "~/")):
            raise InputError(
                "bad-option", f"--root {self.root} does not begin with / or ~/.", hint="Write the whole path."
            )
