"""Opening a session: start the agent on a device and shake hands."""

from __future__ import annotations

import os
from collections.abc import Callable

from edgepack.device import conversation
from edgepack.device.entrance import Entrance
from edgepack.device.options import DEFAULT_ROOT, ConnectOptions
from edgepack.device.session import Session
from edgepack.device.transport import Transport

PROTOCOL = 1


def open_session(
    transport: Transport | Callable[[], Transport],
    options: ConnectOptions,
    *,
    app: str | None = None,
    lock: bool = False,
    who: str | None = None,
    root: str | None = None,
    agent: bytes | None = None,
    look: bool = False,
    sudo: bool = False,
) -> Session:
    """Start the agent on a device and shake hands.

    ``transport`` is logged in already, or logs in when it is called, again where the line broke. ``lock`` takes the
    device's lock until the session is closed (LockedError "locked" where somebody has it longer than options.wait_s);
    without it, nothing is created on the device. ``look`` makes ``hello`` tell all that a probe wants to know. ``who``
    is told to others who want the lock meanwhile. ``agent`` replaces the agent's deflated source (for tests). ``sudo``
    runs it as root, where the login may do that without a password. The session owns its transports: closing it closes
    them, and so does a failed start.
    """
    hello = {
        "protocol": PROTOCOL,
        "root": root or options.root or DEFAULT_ROOT,
        "app": app,
        "lock": lock,
        "who": who or operator_name(),
        "look": look,
        "silence_s": conversation.SILENCE_S,
        "heartbeat": True,
    }
    return Session(Entrance(transport, options, agent=agent, sudo=sudo), hello)


def operator_name() -> str:
    """Who works here, for the lock and the history on the device: "user@machine"."""
    # The environment first, as getpass does; without the account database's exception where a container has no entry.
    user = next((os.environ[name] for name in ("LOGNAME", "USER") if os.environ.get(name)), f"uid {os.getuid()}")
    return f"{user}@{os.uname().nodename}"
