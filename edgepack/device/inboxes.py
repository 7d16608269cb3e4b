"""Where replies wait for those who asked: an inbox for each request, filled by the session's reader thread."""

from __future__ import annotations

import itertools
import queue
import threading

from edgepack.device.wire import MAX_PAYLOAD_BYTES, MAX_WAITING_BYTES, Frame, broken_stream
from edgepack.errors import EdgepackError


class Inboxes:
    """Inboxes by request id, safe between threads.

    ``refusal`` is an error reply that nobody has received yet: whoever is sending a payload stops for it.
    """

    def __init__(self) -> None:
        self.refusal: Frame | None = None
        self._ids = itertools.count(1)
        self._inboxes: dict[int, queue.SimpleQueue[Frame | EdgepackError]] = {}
        self._lock = threading.Lock()
        self._header_bytes = 0
        self._payload_bytes = 0
        self._over: EdgepackError | None = None

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._over is not None

    def new_id(self) -> int:
        """A request's id; its reply is thrown away unless :meth:`open` gave it."""
        return next(self._ids)

    def open(self) -> int:
        """A new inbox; the id of the request that it is for. Raises the reason where there is no session any more."""
        with self._lock:
            if self._over is not None:
                raise self._over
            id_ = self.new_id()
            self._inboxes[id_] = queue.SimpleQueue()
            return id_

    def put(self, id_: int, frame: Frame) -> None:
        """Hand a frame to who waits for it. Raises DeviceFailure where more waits than a session may hold."""
        inbox = self._inboxes.get(id_)
        if inbox is not None:
            if frame.header.get("ok") is False:
                self.refusal = frame
            self._count_waiting(frame, 1)
            inbox.put(frame)

    def take(self, id_: int, timeout_s: float | None) -> Frame:
        """The next frame for that request. Raises queue.Empty after ``timeout_s``, and why the session is over."""
        frame = self._inboxes[id_].get(timeout=timeout_s)
        if isinstance(frame, EdgepackError):
            raise frame
        self._count_waiting(frame, -1)
        return frame

    def remove(self, id_: int) -> None:
        """The request has been answered."""
        with self._lock:
            del self._inboxes[id_]
            self.refusal = None

    def close(self, error: EdgepackError) -> EdgepackError:
        """Tell everybody who waits, now and later, that nothing comes any more. Returns the first reason given."""
        with self._lock:
            if self._over is None:
                self._over = error
                for inbox in self._inboxes.values():
                    inbox.put(error)
            return self._over

    def _count_waiting(self, frame: Frame, sign: int) -> None:
        """Bound what waits for its receiver: a far side that sends and sends must not fill this machine's memory."""
        with self._lock:
            self._header_bytes += sign * frame.header_bytes
            self._payload_bytes += sign * len(frame.payload)
            too_much = self._header_bytes > MAX_WAITING_BYTES or self._payload_bytes > MAX_PAYLOAD_BYTES
        if too_much:
            raise broken_stream("sends more replies than anybody asked for")
