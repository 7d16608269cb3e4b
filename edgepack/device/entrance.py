"""How a conversation with a device begins: the way there, the command that is run, and the agent that it is sent."""

from __future__ import annotations

from collections.abc import Callable

from edgepack.device.bootstrap import NO_AGENT, agent_source, start_command
from edgepack.device.conversation import Conversation
from edgepack.device.options import ConnectOptions
from edgepack.device.pinmemory import met_as_pinned, remember
from edgepack.device.transport import Transport


class Entrance:
    """The way to one device, to be taken again where the line broke.

    A transport that is logged in already can be used once: it is not ``renewable``. A device that was pinned when it
    was last met is sent no agent at first (see ``pinmemory.py``). ``agent`` replaces the agent's deflated source (for
    tests).
    """

    def __init__(
        self,
        transport: Transport | Callable[[], Transport],
        options: ConnectOptions,
        *,
        agent: bytes | None = None,
        sudo: bool = False,
    ) -> None:
        self.options = options
        self.renewable = callable(transport)
        self._transport = transport
        self._agent = agent
        self._sudo = sudo
        self._met = False

    def reach(self) -> Transport:
        """Log in."""
        return self._transport() if callable(self._transport) else self._transport

    def begin(self, transport: Transport) -> Conversation:
        """Run what takes the agent and then its requests."""
        channel = transport.open(start_command(self.options.python, sudo=self._sudo))
        return Conversation(transport, channel, self.options.python)

    def first_agent(self, device: str) -> bytes:
        """What to send; nothing where the device should have its own."""
        if self._agent is not None:
            return self._agent
        self._met = met_as_pinned(device, self.options)
        return NO_AGENT if self._met else agent_source()

    def wanted_agent(self) -> bytes:
        """What to send where the device has none of its own after all."""
        return self._agent or agent_source()

    def found(self, device: str, *, pinned: bool) -> None:
        """Keep what the device is for the next time."""
        if self._agent is None and pinned != self._met:
            remember(device, self.options, pinned=pinned)
