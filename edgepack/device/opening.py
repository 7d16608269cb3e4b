"""Opening a session: start the agent on a device and shake hands."""

from __future__ import annotations

import os
from collections.abc import Callable

from edgepack.device.bootstrap import AGENT_WANTED, NO_AGENT, agent_source, start_command
from edgepack.device.options import DEFAULT_ROOT, ConnectOptions
from edgepack.device.pinmemory import met_as_pinned, remember
from edgepack.device.session import Session
from edgepack.device.transport import Transport
from edgepack.errors import UnreachableError

PROTOCOL = 1


def open_session(
    transport: Transport,
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

    ``lock`` takes the device's lock until the session is closed (LockedError "locked" where somebody has it); without
    it, nothing is created on the device. ``look`` makes ``hello`` tell all that a probe wants to know. ``who`` is told
    to others who want the lock meanwhile. ``agent`` replaces the agent's deflated source (for tests). ``sudo`` runs it
    as root, where the login may do that without a password. A device that was pinned when it was last met is sent no
    agent (see ``pinmemory.py``). The session owns the transport: closing it closes both, and so does a failed start.
    """
    hello = {
        "protocol": PROTOCOL,
        "root": root or options.root or DEFAULT_ROOT,
        "app": app,
        "lock": lock,
        "who": who or operator_name(),
        "look": look,
    }

    def start(sent: bytes) -> Session:
        channel = transport.open(start_command(options.python, sudo=sudo))
        session = Session(transport, channel, options.python)
        try:
            session.start(sent, hello)
        except BaseException:
            session.leave()
            raise
        return session

    try:
        return start(agent) if agent is not None else _start_as_met(start, transport.description, options)
    except BaseException:
        transport.close()
        raise


def _start_as_met(start: Callable[[bytes], Session], device: str, options: ConnectOptions) -> Session:
    """Send the agent, but to a device that had its own when it was last met; keep what is found now."""
    met = met_as_pinned(device, options)
    try:
        session = start(NO_AGENT if met else agent_source())
    except UnreachableError as error:
        if error.code != AGENT_WANTED:
            raise
        session = start(agent_source())
        session.round_trips += 1
    if (pinned := bool(session.hello.get("pinned"))) != met:
        remember(device, options, pinned=pinned)
    return session


def operator_name() -> str:
    """Who works here, for the lock and the history on the device: "user@machine"."""
    # The environment first, as getpass does; without the account database's exception where a container has no entry.
    user = next((os.environ[name] for name in ("LOGNAME", "USER") if os.environ.get(name)), f"uid {os.getuid()}")
    return f"{user}@{os.uname().nodename}"
