"""Typed calls to the agent on a device, over a line that may break.

A session is one :class:`~edgepack.device.conversation.Conversation` after the other. Where the line breaks in a step
that may be done again (:meth:`Session.persist`), the session logs in once more, takes the device's lock again and does
it again. What changes something on a device carries an operation id that stays the same over the tries, so an answer
that was lost is given once more instead of the work being done twice.
"""

from __future__ import annotations

import math
import random
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, TypeVar

from edgepack.device.bootstrap import AGENT_WANTED
from edgepack.device.conversation import Conversation
from edgepack.device.entrance import Entrance
from edgepack.device.facts import DeviceFacts
from edgepack.device.retrying import Tries, is_fault_of_the_line
from edgepack.device.transport import Transport
from edgepack.device.wire import Reply
from edgepack.errors import EdgepackError, LockedError, UnreachableError
from edgepack.events import Event

Result = TypeVar("Result")

STEP = "connect"
# The agent of a line that broke may not know it yet: it holds the lock until it has heard nothing for a minute.
_LOST_LOCK_S = 75.0
_LOOK_FOR_LOCK_S = 1.0


class Session:
    """A session with the agent on one device; made by
    :func:`edgepack.device.opening.open_session` or :func:`edgepack.device.connect`.

    ``hello`` is the result of the first request (``facts``, ``root``, ``apps``), asked and answered at the two times of
    this machine's clock in ``hello_between``; a session that had to log in again has the newer one. ``report`` is told
    of broken lines and of waiting. Calls come from one thread at a time.
    """

    def __init__(self, entrance: Entrance, hello: Mapping[str, object]) -> None:
        """``hello`` is the first request of every conversation; the options that count are those of ``entrance``."""
        self.hello: dict[str, Any] = {}
        self.hello_between: tuple[float, float] = (0.0, 0.0)
        self.report = entrance.options.report
        self._entrance = entrance
        self._token = secrets.token_hex(8)
        self._hello: dict[str, Any] = {**hello, "session": self._token}
        self._retries = entrance.options.retries if entrance.renewable else 0
        self._closed = False
        self._past = (0, 0, 0)
        # A busy sshd may hang up before it says a word: that is tried as often as the time to connect allows.
        grace_s = entrance.options.connect_timeout_s if entrance.renewable else 0.0
        self._line = self._reach(Tries(self._retries, grace_s), reached=False)

    @property
    def description(self) -> str:
        """The device's address, for messages."""
        return self._line.description

    @property
    def server(self) -> str | None:
        """What the device's SSH server calls itself ("SSH-2.0-OpenSSH_9.2p1 …"); None where that is not known."""
        return self._line.server

    @property
    def facts(self) -> DeviceFacts:
        """What the device said about itself."""
        return DeviceFacts.from_json(self.hello.get("facts", {}))

    @property
    def round_trips(self) -> int:
        """How often the host had to wait for the device."""
        return self._past[0] + self._line.round_trips

    @property
    def bytes_sent(self) -> int:
        """Everything written to the device, the agent's source included."""
        return self._past[1] + self._line.bytes_sent

    @property
    def bytes_received(self) -> int:
        """Everything read from the device, what its login printed included."""
        return self._past[2] + self._line.bytes_received

    def persist(self, step: Callable[[], Result]) -> Result:
        """Do ``step``, which may be done again: where the line breaks, log in again and do it again.

        Only faults of the line are tried again, as often as ConnectOptions.retries says, never what the device or its
        sshd refuses. A session that is over already begins by logging in again. Raises what the last try raised.
        """
        tries = Tries(self._retries)
        while True:
            try:
                if self._line.over and self._entrance.renewable and not self._closed:
                    self._renew(tries)
                return step()
            except LockedError:
                # Where there was no root to lock, the first change locks it, and somebody else may have come before.
                if self._entrance.options.wait_s <= 0:
                    raise
                if not self._line.over:
                    self._greet(self._line)
            except EdgepackError as error:
                if self._closed or not is_fault_of_the_line(error, reached=True):
                    raise
                self._pause(tries, error)

    def request(
        self,
        verb: str,
        payload: Iterable[bytes | bytearray | memoryview] | None = None,
        n: int = 0,
        *,
        on_progress: Callable[[Mapping[str, Any]], None] | None = None,
        timeout_s: float | None = None,
        **args: object,
    ) -> Reply:
        """Ask for ``verb`` and wait for its reply: :meth:`send`, then :meth:`receive`."""
        return self._line.request(verb, payload, n, on_progress=on_progress, timeout_s=timeout_s, **args)

    def send(
        self,
        verb: str,
        payload: Iterable[bytes | bytearray | memoryview] | None = None,
        n: int = 0,
        **args: object,
    ) -> int:
        """See :meth:`Conversation.send`."""
        return self._line.send(verb, payload, n, **args)

    def receive(
        self,
        id_: int,
        *,
        on_progress: Callable[[Mapping[str, Any]], None] | None = None,
        timeout_s: float | None = None,
    ) -> Reply:
        """See :meth:`Conversation.receive`."""
        return self._line.receive(id_, on_progress=on_progress, timeout_s=timeout_s)

    def stderr_tail(self) -> bytes:
        """The last 64 KiB that the device printed beside its replies."""
        return self._line.stderr_tail()

    def close(self) -> None:
        """End the agent, then the connection; may be called twice. Whatever the device was doing is stopped."""
        self._closed = True
        self._line.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _renew(self, tries: Tries) -> None:
        """Another line in place of the one that broke."""
        self._line.close()
        past = (self.round_trips, self.bytes_sent, self.bytes_received)
        self._line = self._reach(tries, reached=True)
        self._past = past
        self.report(Event(STEP, f"{self.description} is there again"))

    def _reach(self, tries: Tries, *, reached: bool) -> Conversation:
        """Log in, start the agent and shake hands; try again where the line breaks."""
        while True:
            try:
                transport = self._entrance.reach()
                try:
                    return self._enter(transport)
                except BaseException:
                    transport.close()
                    raise
            except EdgepackError as error:
                if not is_fault_of_the_line(error, reached=reached):
                    raise
                self._pause(tries, error)

    def _enter(self, transport: Transport) -> Conversation:
        """Start the agent and shake hands; where the device was to have an agent of its own and has none, send it."""
        device = transport.description
        agent = self._entrance.first_agent(device)
        line = self._entrance.begin(transport)
        try:
            try:
                self._greet(line, agent)
            except UnreachableError as error:
                if error.code != AGENT_WANTED:
                    raise
                line.leave()
                line = self._entrance.begin(transport)
                line.round_trips = 1
                self._greet(line, self._entrance.wanted_agent())
        except BaseException:
            line.leave()
            raise
        self._entrance.found(device, pinned=bool(self.hello.get("pinned")))
        return line

    def _greet(self, line: Conversation, agent: bytes | None = None) -> None:
        """Shake hands, and wait for the lock where somebody has it; ``agent`` is None where it runs already."""
        since, told = time.monotonic(), ""
        while True:
            asked_at = time.time()
            try:
                if agent is not None:
                    result = line.start(agent, self._hello)
                else:
                    result = line.request("hello", **self._hello).result
            except LockedError as error:
                agent = None
                told = self._wait(error, time.monotonic() - since, told)
                continue
            self.hello, self.hello_between = result, (asked_at, time.time())
            line.keep(beats=result.get("heartbeat_s") is not None)
            return

    def _wait(self, error: LockedError, waited_s: float, told: str) -> str:
        """Wait a moment for who has the lock and tell about it, or raise the error; returns what was told."""
        holder = error.details.get("holder")
        ours = isinstance(holder, Mapping) and holder.get("session") == self._token
        limit_s = _LOST_LOCK_S if ours else self._entrance.options.wait_s
        if waited_s >= limit_s:
            if waited_s > 1.0:
                error.details["waited_s"] = round(waited_s, 1)
            raise error
        message = "the device has not noticed yet that the line broke" if ours else error.message
        if message != told:
            self.report(Event(STEP, f"waiting: {message}"))
        self.report(Event(STEP, "waiting for the lock", int(waited_s), math.ceil(limit_s), "seconds"))
        # S311: who waits beside us does not ask in the same instant.
        time.sleep(min(_LOOK_FOR_LOCK_S * random.uniform(0.5, 1.0), limit_s - waited_s))  # noqa: S311
        return message

    def _pause(self, tries: Tries, error: EdgepackError) -> None:
        """Wait before the next try and tell about it, or raise the error where there is none."""
        pause_s = tries.next_pause_s()
        if pause_s is None:
            if tries.made:
                error.details["tries"] = tries.made + 1
            raise error
        count = f" ({tries.made} of {tries.retries})" if tries.made <= tries.retries else ""
        self.report(Event(STEP, f"{error.message} Trying again in {pause_s:.1f} s{count}"))
        time.sleep(pause_s)
