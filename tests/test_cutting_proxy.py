"""The bad line that the proofs of reliability and speed run over is as bad as it says, and no worse."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest
from cutting_proxy import CuttingProxy, Fault

PIECE = bytes(range(256)) * 256


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends back what it gets."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve(sock: socket.socket) -> None:
            with sock:
                try:
                    while data := sock.recv(65536):
                        sock.sendall(data)
                except OSError:
                    return

        def accept() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(sock,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)


def echoed(proxy: CuttingProxy, data: bytes) -> bytes:
    """What comes back of ``data`` until the connection ends; reads while it writes."""
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=20) as sock:
        parts: list[bytes] = []

        def read() -> None:
            try:
                while part := sock.recv(65536):
                    parts.append(part)
            except OSError:
                return

        reader = threading.Thread(target=read)
        reader.start()
        try:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        reader.join(20)
        return b"".join(parts)


def test_a_good_line_changes_nothing(echo: int) -> None:
    """16 MiB come back as they went, and are counted."""
    with CuttingProxy(echo) as proxy:
        data = PIECE * 256
        assert echoed(proxy, data) == data
        assert proxy.to_device_bytes == proxy.to_host_bytes == len(data)


@pytest.mark.parametrize("kind", ["cut", "reset"])
@pytest.mark.parametrize("after", [0, 1, 100_000])
def test_a_line_is_cut_at_the_byte(echo: int, kind: str, after: int) -> None:
    """Exactly so many bytes pass; the next connection is whole."""
    with CuttingProxy(echo, faults=[Fault(after, kind=kind)]) as proxy:  # type: ignore[arg-type]
        assert len(echoed(proxy, PIECE * 4)) <= after
        assert proxy.to_device_bytes == after
        assert echoed(proxy, PIECE) == PIECE


def test_a_reset_reaches_who_waits(echo: int) -> None:
    """Whoever waits for an answer on a connection that is reset is told at once."""
    with (
        CuttingProxy(echo, faults=[Fault(5, kind="reset")]) as proxy,
        socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as sock,
    ):
        sock.sendall(b"hello")
        with pytest.raises(ConnectionResetError):
            b"".join(iter(lambda: sock.recv(10), b""))


def test_a_stalled_line_ends_nothing(echo: int) -> None:
    """While it stalls nothing comes and nothing breaks; afterwards everything is there."""
    with (
        CuttingProxy(echo) as proxy,
        socket.create_connection(("127.0.0.1", proxy.port), timeout=0.3) as sock,
    ):
        proxy.stall()
        sock.sendall(b"hello")
        with pytest.raises(TimeoutError):
            sock.recv(10)
        proxy.flow()
        sock.settimeout(10)
        assert sock.recv(10) == b"hello"


def test_a_far_line_delays_but_does_not_narrow(echo: int) -> None:
    """100 ms of round trip: one to connect and one to be answered, and 8 MiB take hardly longer than a byte."""
    with CuttingProxy(echo, rtt_s=0.1) as proxy:
        started = time.monotonic()
        assert echoed(proxy, b"x") == b"x"
        assert 0.2 <= time.monotonic() - started < 1.0
        started = time.monotonic()
        assert len(echoed(proxy, PIECE * 128)) == 8 << 20
        assert time.monotonic() - started < 3.0


def test_a_slow_line_has_its_rate(echo: int) -> None:
    """1 MiB over 2 MiB/s takes half a second."""
    with CuttingProxy(echo, bytes_per_s=2 << 20) as proxy:
        started = time.monotonic()
        assert len(echoed(proxy, PIECE * 16)) == 1 << 20
        assert 0.45 <= time.monotonic() - started < 2.0
