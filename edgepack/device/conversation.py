"""One conversation with the agent on a device: one process there, one channel, frames both ways.

The host starts ``python3 -I -u -c <bootstrap>`` on the device and sends, without waiting for anything in between: the
agent's source, then the ``hello`` request. So beginning one costs one round trip after the login. A thread reads
every frame as it comes. Another one pings while nobody else writes, and a third ends the conversation when nothing came
from the device for a minute; the agent sends a sign of life every quarter of it, whatever it is doing, and ends itself
when it hears nothing for as long.
"""

from __future__ import annotations

import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from edgepack.device.bootstrap import start_error
from edgepack.device.faults import error_from_reply, lost_error, payload_error, timeout_error
from edgepack.device.inboxes import Inboxes
from edgepack.device.lost import connection_dropped, stalled
from edgepack.device.transport import Channel, Transport
from edgepack.device.wire import FrameReader, Reply, request_frame
from edgepack.errors import DeviceFailure, EdgepackError, InternalError, UnreachableError

# A line that carries nothing for this long is given up, by the host and by the agent.
SILENCE_S = 60.0
# How often in that time each side is heard, and how often the host looks whether it was.
_BEATS, _LOOKS = 4, 12
# How long a slow board may take from the login to the agent's first word (an emulated Raspberry Pi takes 2 s).
START_TIMEOUT_S = 60.0
# How long the agent may take to end by itself, and with it to release the device's lock, once its input is closed.
_END_TIMEOUT_S = 5.0


class Conversation:
    """A conversation over one channel, over for good once the line breaks; a Session begins another one then.

    ``round_trips`` counts how often the host had to wait for the device, ``bytes_sent`` everything written to the
    channel, the agent's source included, ``bytes_received`` everything read from it. Calls come from one thread at a
    time. It owns the transport: closing it closes both.
    """

    def __init__(self, transport: Transport, channel: Channel, python: str) -> None:
        """``python`` is the interpreter that the channel's command starts, for messages."""
        self.round_trips = 0
        self.bytes_sent = 0
        self.bytes_received = 0
        self.description = transport.description
        # What the device's SSH server calls itself; None where that is not known.
        self.server = transport.server
        self._transport = transport
        self._channel = channel
        self._python = python
        self._inboxes = Inboxes()
        self._write_lock = threading.Lock()
        self._stopped = threading.Event()
        self._something_unanswered = False
        self._heard_at = time.monotonic()
        self._threads: list[threading.Thread] = []

    @property
    def over(self) -> bool:
        """Whether nothing more can be said in it."""
        return self._inboxes.closed

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
        return self.receive(self.send(verb, payload, n, **args), on_progress=on_progress, timeout_s=timeout_s)

    def send(
        self,
        verb: str,
        payload: Iterable[bytes | bytearray | memoryview] | None = None,
        n: int = 0,
        **args: object,
    ) -> int:
        """Send a request without waiting for its reply; returns the id that :meth:`receive` takes.

        ``payload`` gives ``n`` bytes in chunks of any size (64 KiB to 1 MiB are good); no chunk is kept. An error that
        the device reports while the payload is still under way is raised at once, and ends the conversation.
        """
        id_ = self._inboxes.open()
        frame = request_frame(id_, verb, n, args)
        with self._write_lock:
            self._something_unanswered = True
            self._write(frame)
            if payload is not None or n:
                self._write_payload(verb, payload or (), n)
        return id_

    def receive(
        self,
        id_: int,
        *,
        on_progress: Callable[[Mapping[str, Any]], None] | None = None,
        timeout_s: float | None = None,
    ) -> Reply:
        """The reply to a request. Replies come in the order of their requests; they may be received in any order.

        ``timeout_s`` bounds the silence before the reply and between its progress reports; without it, the reply is
        waited for as long as the connection lives. Raises what the device reports as an edgepack error (see
        ``faults.py``).
        """
        if self._something_unanswered:
            self._something_unanswered = False
            self.round_trips += 1
        while True:
            try:
                frame = self._inboxes.take(id_, timeout_s)
            except queue.Empty:
                raise self._end(timeout_error(self.description, timeout_s)) from None
            progress = frame.header.get("progress")
            if isinstance(progress, Mapping):
                if on_progress is not None:
                    on_progress(progress)
                continue
            self._inboxes.remove(id_)
            if frame.header.get("ok") is not True:
                raise error_from_reply(frame.header.get("error"), self.description)
            return frame.reply()

    def stderr_tail(self) -> bytes:
        """The last 64 KiB that the device printed beside its replies."""
        return self._channel.stderr_tail()

    def close(self) -> None:
        """End the agent, then the connection; may be called twice. Whatever the device was doing is stopped."""
        try:
            self._finish()
        finally:
            self._transport.close()
            self._join()

    def leave(self) -> None:
        """End the agent, and leave the connection to another conversation; may be called twice."""
        try:
            self._finish()
        finally:
            self._join()

    def _finish(self) -> None:
        if self._stopped.is_set():
            return
        self._stopped.set()
        try:
            closed = InternalError("session-closed", f"The session with {self.description} is closed.")
            if self._inboxes.close(closed) is closed:
                self._channel.finish_input()
                self._channel.wait(_END_TIMEOUT_S)
        finally:
            self._channel.close()

    def _join(self) -> None:
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(_END_TIMEOUT_S)

    def start(self, agent: bytes, hello: Mapping[str, object]) -> dict[str, Any]:
        """Send the agent and the first request; returns its result. LockedError leaves the conversation open."""
        nonce = secrets.token_hex(16)
        id_ = self._inboxes.open()
        first = f"{len(agent)} {nonce}\n".encode() + agent + request_frame(id_, "hello", 0, hello)
        self._something_unanswered = True
        reader = threading.Thread(target=self._read_frames, args=(nonce,), name="edgepack-reader", daemon=True)
        self._threads.append(reader)
        reader.start()
        try:
            with self._write_lock:
                self._write(first)
            return self.receive(id_, timeout_s=START_TIMEOUT_S).result
        except DeviceFailure as error:
            if error.code == "timeout":
                raise UnreachableError("no-answer", error.message, hint=error.hint) from None
            if error.code == "connection-lost":
                raise connection_dropped(self.description) from None
            raise

    def keep(self, *, beats: bool) -> None:
        """Ping from now on; where the agent ``beats``, notice that it has stopped. May be called again."""
        if len(self._threads) > 1:
            return
        for keeper in (self._ping, self._watch) if beats else (self._ping,):
            self._threads.append(threading.Thread(target=keeper, name="edgepack-keeper", daemon=True))
            self._threads[-1].start()

    def _write(self, data: bytes | bytearray | memoryview) -> None:
        try:
            self._channel.write(data)
        except EdgepackError as error:
            if error.code == "connection-lost":
                # The far side may have said why before it left: the reader thread is about to know better.
                self._threads[0].join(_END_TIMEOUT_S)
            raise self._end(error) from None
        self.bytes_sent += len(data)

    def _write_payload(self, verb: str, payload: Iterable[bytes | bytearray | memoryview], n: int) -> None:
        sent = 0
        try:
            for chunk in payload:
                sent += len(chunk)
                if sent > n:
                    break
                self._write(chunk)
                if sent < n and (refusal := self._inboxes.refusal) is not None:
                    raise error_from_reply(refusal.header.get("error"), self.description)
        except BaseException as error:
            # The device refused, or whoever gives the chunks failed, or Ctrl-C: the frame will never be whole.
            self._end(error if isinstance(error, EdgepackError) else payload_error(verb, sent, n))
            raise
        if sent != n:
            raise self._end(payload_error(verb, sent, n))

    def _end(self, error: EdgepackError) -> EdgepackError:
        """Nothing more can be said: close it and tell everybody who waits. Returns the first reason."""
        first = self._inboxes.close(error)
        if first is error:
            self._channel.close()
        return first

    def _read_frames(self, nonce: str) -> None:
        """The reader thread: hand every frame to who waits for it."""
        reader = FrameReader(self._hear)
        try:
            said = reader.skip_past(f"\nEDGEPACK1 {nonce}\n".encode())
            if said is not None:
                self._end(self._never_started(said))
                return
            while (frame := reader.frame()) is not None:
                if frame.id is None:
                    # The agent could not read us, says why, and ends.
                    self._end(error_from_reply(frame.header.get("error"), self.description))
                    return
                self._inboxes.put(frame.id, frame)
            self._end(self._lost())
        except EdgepackError as error:
            self._end(error)

    def _hear(self, max_bytes: int) -> bytes:
        data = self._channel.read(max_bytes)
        self._heard_at = time.monotonic()
        self.bytes_received += len(data)
        return data

    def _ping(self) -> None:
        """The pinging thread: be heard while nobody else writes."""
        while not self._stopped.wait(SILENCE_S / _BEATS) and not self.over:
            if self._write_lock.acquire(blocking=False):
                try:
                    self._write(request_frame(self._inboxes.new_id(), "ping", 0, {}))
                except EdgepackError:
                    return
                finally:
                    self._write_lock.release()

    def _watch(self) -> None:
        """The watching thread: where the device has gone silent, nobody waits for it any longer."""
        while not self._stopped.wait(SILENCE_S / _LOOKS) and not self.over:
            if time.monotonic() - self._heard_at > SILENCE_S:
                self._inboxes.close(stalled(self.description, SILENCE_S))
                # Not the channel: whoever is stuck in a write sits there. The line below it has to go.
                self._transport.close()

    def _lost(self) -> EdgepackError:
        """Why the agent's output ended in the middle of a session."""
        status = self._channel.wait(1.0)
        return lost_error(self.description, status, self._channel.failure(), self._channel.stderr_tail())

    def _never_started(self, said: bytes) -> EdgepackError:
        """Why there never was an agent."""
        status = self._channel.wait(5.0)
        tail = self._channel.stderr_tail()
        return self._channel.failure() or start_error(self.description, self._python, status, tail, said)
