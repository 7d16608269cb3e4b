"""A bad line on 127.0.0.1: a TCP proxy that cuts at a byte, stalls, delays by a round-trip time and limits the rate.

In a test: ``with CuttingProxy(port, faults=[Fault(100_000)]) as proxy``, then connect to ``127.0.0.1``, ``proxy.port``.
For timings run it as a process of its own, which shares no interpreter lock with what is timed:
``python tests/cutting_proxy.py PORT --rtt-ms 100 --mbit-s 20`` prints its port and ends when its input ends.
"""

from __future__ import annotations

import _thread
import argparse
import collections
import contextlib
import itertools
import random
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

# What Linux lets a connection have on its way by default (tcp(7), tcp_rmem): more than that waits at its sender.
IN_FLIGHT_BYTES = 6 << 20
_READ_BYTES = 256 * 1024
# On a line of a few Mbit/s a larger piece would arrive as a burst.
_SLOW_READ_BYTES = 16 * 1024
_LOOK_S = 0.05


def _begin(work: Callable[..., None], *arguments: object) -> None:
    """A thread that nobody waits for and that coverage does not trace.

    CPython 3.11 ends a thread that begins while another one installs its trace function ("Cannot install a trace
    function while another trace function is being installed"); these begin in pairs.
    """
    _thread.start_new_thread(work, arguments)


@dataclass(frozen=True)
class Fault:
    """What happens to one connection after ``after_bytes`` of it have passed towards the device (or back).

    ``cut`` ends it as a program does (FIN), ``reset`` as a router does (RST), ``stall`` lets nothing pass any more and
    ends nothing: the unplugged cable.
    """

    after_bytes: int
    towards: Literal["device", "host"] = "device"
    kind: Literal["cut", "reset", "stall"] = "cut"


class CuttingProxy:
    """A context manager; ``port`` is where it listens, ``target`` the port on 127.0.0.1 that it leads to.

    Every connection takes the next one of ``faults`` (None: none); after the last, the line is good. ``rejections``
    connections are hung up on before a byte. ``rtt_s`` delays every byte by half of it, and a new connection by all
    of it; ``bytes_per_s`` holds for each direction on its own.
    """

    def __init__(
        self,
        target: int,
        *,
        faults: Iterable[Fault | None] = (),
        rejections: int = 0,
        rtt_s: float = 0.0,
        bytes_per_s: float | None = None,
    ) -> None:
        self.faults: Iterator[Fault | None] = iter(faults)
        self.rtt_s = rtt_s
        self.bytes_per_s = bytes_per_s
        self.connections = 0
        self._target = target
        self._rejections = rejections
        self._flowing = threading.Event()
        self._flowing.set()
        self._open: list[_Connection] = []

    def __enter__(self) -> CuttingProxy:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = int(self._listener.getsockname()[1])
        _begin(self._serve)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    @property
    def to_device_bytes(self) -> int:
        """What has passed towards the device, over all connections."""
        return sum(connection.there.passed_bytes for connection in self._open)

    @property
    def to_host_bytes(self) -> int:
        """What has passed back, over all connections."""
        return sum(connection.back.passed_bytes for connection in self._open)

    def cut(self, *, reset: bool = False) -> None:
        """End every connection that is open."""
        for connection in self._open:
            connection.end(reset=reset)

    def reject(self, count: int) -> None:
        """Hang up on the next ``count`` connections before a byte."""
        self._rejections = count

    def stall(self) -> None:
        """Let nothing pass, on no connection, until :meth:`flow`."""
        self._flowing.clear()

    def flow(self) -> None:
        """Let everything pass again, what was held back first."""
        self._flowing.set()

    def _serve(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self._rejections > 0:
                self._rejections -= 1
                near.close()
                continue
            self.connections += 1
            connection = _Connection(near, self._target, next(self.faults, None), self)
            self._open.append(connection)
            _begin(connection.run)


class _Connection:
    """One connection: two directions over two sockets."""

    def __init__(self, near: socket.socket, target: int, fault: Fault | None, line: CuttingProxy) -> None:
        self._sockets = [near]
        self._target = target
        self._line = line
        self._ended = threading.Lock()
        limits = {towards: fault if fault and fault.towards == towards else None for towards in ("device", "host")}
        self.there = _Direction(self, line, limits["device"])
        self.back = _Direction(self, line, limits["host"])

    def run(self) -> None:
        """Connect to the target, after the round trip that a connection costs, and let the bytes pass."""
        near = self._sockets[0]
        time.sleep(self._line.rtt_s)
        try:
            far = socket.create_connection(("127.0.0.1", self._target))
        except OSError:
            near.close()
            return
        self._sockets.append(far)
        for sock in self._sockets:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.there.start(near, far)
        self.back.start(far, near)

    def end(self, *, reset: bool = False) -> None:
        """End both sockets; what has passed already still arrives, unless they are reset."""
        if not self._ended.acquire(blocking=False):
            return
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                if reset:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    # Wakes who reads: the reset is sent when nobody sits in the socket any more.
                    sock.shutdown(socket.SHUT_RD)
                    sock.close()
                else:
                    sock.shutdown(socket.SHUT_RDWR)

    @property
    def is_open(self) -> bool:
        """Whether nobody has ended it."""
        return not self._ended.locked()


class _Direction:
    """The bytes from one socket to the other: a thread that takes them, and one that gives them on when it is time."""

    def __init__(self, connection: _Connection, line: CuttingProxy, fault: Fault | None) -> None:
        self.passed_bytes = 0
        self._connection = connection
        self._line = line
        self._fault = fault
        self._stalled = False
        self._waiting: collections.deque[tuple[float, bytes]] = collections.deque()
        self._waiting_bytes = 0
        self._changed = threading.Condition()

    def start(self, source: socket.socket, sink: socket.socket) -> None:
        """Let bytes pass from now on."""
        _begin(self._take, source)
        _begin(self._give, sink)

    def _take(self, source: socket.socket) -> None:
        """Read, no more than may be on its way, and note when each piece arrives. ``b""`` is the end."""
        free_at = 0.0
        data = b"begin"
        while data:
            with self._changed:
                while self._waiting_bytes >= IN_FLIGHT_BYTES or self._held_up():
                    self._changed.wait(_LOOK_S)
                    if not self._connection.is_open:
                        return
            try:
                data = source.recv(_READ_BYTES if self._line.bytes_per_s is None else _SLOW_READ_BYTES)
            except OSError:
                data = b""
            now = time.monotonic()
            if self._line.bytes_per_s is not None:
                free_at = max(now, free_at) + len(data) / self._line.bytes_per_s
            with self._changed:
                self._waiting.append((max(now, free_at) + self._line.rtt_s / 2, data))
                self._waiting_bytes += len(data)
                self._changed.notify_all()

    def _give(self, sink: socket.socket) -> None:
        try:
            for data in self._arrivals():
                allowed = data if self._fault is None else data[: self._fault.after_bytes - self.passed_bytes]
                sink.sendall(allowed)
                self.passed_bytes += len(allowed)
                if self._fault is not None and self.passed_bytes >= self._fault.after_bytes:
                    if self._fault.kind != "stall":
                        self._connection.end(reset=self._fault.kind == "reset")
                        return
                    self._stalled = True
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            self._connection.end()

    def _arrivals(self) -> Iterator[bytes]:
        while True:
            with self._changed:
                while not self._waiting or self._held_up():
                    self._changed.wait(_LOOK_S)
                    if not self._connection.is_open:
                        return
                due, data = self._waiting.popleft()
            time.sleep(max(0.0, due - time.monotonic()))
            if not data:
                return
            yield data
            with self._changed:
                self._waiting_bytes -= len(data)
                self._changed.notify_all()

    def _held_up(self) -> bool:
        # A fault that stalls one direction stalls the other too: it is one cable.
        faults = (self._connection.there, self._connection.back)
        return not self._line._flowing.is_set() or any(direction._stalled for direction in faults)


def random_cuts(seed: int, most_bytes: int) -> Iterator[Fault]:
    """Cuts and resets after a random number of bytes, towards the device mostly, without an end."""
    # S311: spreads faults, guards nothing.
    chance = random.Random(seed)  # noqa: S311
    for _ in itertools.count():
        towards: Literal["device", "host"] = "device" if chance.random() < 0.8 else "host"
        kind: Literal["cut", "reset"] = "cut" if chance.random() < 0.5 else "reset"
        yield Fault(chance.randrange(most_bytes if towards == "device" else 8192), towards, kind)


def main() -> None:
    """Run until the input ends."""
    parser = argparse.ArgumentParser(description="A slow line on 127.0.0.1.")
    parser.add_argument("port", type=int, help="where it leads to")
    parser.add_argument("--rtt-ms", type=float, default=0.0)
    parser.add_argument("--mbit-s", type=float, default=None)
    asked = parser.parse_args()
    rate = None if asked.mbit_s is None else asked.mbit_s * 1e6 / 8
    with CuttingProxy(asked.port, rtt_s=asked.rtt_ms / 1e3, bytes_per_s=rate) as proxy:
        sys.stdout.write(f"{proxy.port}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
