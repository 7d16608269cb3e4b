"""A small SSH server inside this process: a device for the demo and for a user's own CI, without root and without sshd.

It listens on 127.0.0.1 only, shows a throw-away host key that its options pin, takes one throw-away client key, and
runs each command through ``/bin/sh`` with a home folder of its own. Real commands, real bytes over a real SSH
connection.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO

import paramiko

from edgepack.device.hostkeys import add_known_host
from edgepack.device.options import ConnectOptions

_USER = "edgepack"
_CHUNK_BYTES = 256 * 1024
_WINDOW_BYTES = 4 << 20
_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes256-ctr")

# What writing to a connection that is gone can raise; so can reading from it, which acknowledges what was read.
_GONE = (OSError, EOFError, paramiko.SSHException)


class EmbeddedDevice:
    """A loopback device in ``folder``; a context manager. Inside, ``address``, ``options`` and ``home`` are ready.

    Everything that was started on it ends with it. The folder and what the device wrote there stay.
    """

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self._keys = folder / "keys"
        self._threads: list[threading.Thread] = []
        self._connections: list[paramiko.Transport] = []
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None
        self._port = 0

    @property
    def address(self) -> str:
        """Where it listens, as every command takes it."""
        return f"{_USER}@127.0.0.1:{self._port}"

    @property
    def options(self) -> ConnectOptions:
        """What it takes to log in: the client key, the pinned host key, and nothing of the user's configuration."""
        return ConnectOptions(
            ssh_config=self._keys / "ssh_config",
            identity=self._keys / "client",
            known_hosts=self._keys / "known_hosts",
        )

    def __enter__(self) -> EmbeddedDevice:
        self.home.mkdir(parents=True, exist_ok=True)
        self._keys.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._host_key = paramiko.ECDSAKey.generate()
        self._client_key = paramiko.ECDSAKey.generate()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._port = self._listener.getsockname()[1]
        self._write_keys()
        acceptor = threading.Thread(target=self._accept, args=(self._listener,), name="embedded-accept", daemon=True)
        self._threads.append(acceptor)
        acceptor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every connection and every process; may be called twice."""
        if self._listener is None:
            return
        listener, self._listener = self._listener, None
        # A listener that is only closed stays blocked in accept.
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        with self._lock:
            connections, processes = list(self._connections), list(self._processes)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)
            connection.close()
            connection.join(2.0)
        for process in processes:
            _end_group(process)
        for thread in self._threads:
            thread.join(2.0)

    def _write_keys(self) -> None:
        known_hosts, client = self._keys / "known_hosts", self._keys / "client"
        for file in (known_hosts, client):
            file.unlink(missing_ok=True)
        client.touch(mode=0o600)
        self._client_key.write_private_key_file(str(client))
        (self._keys / "ssh_config").write_text("")
        name = f"[127.0.0.1]:{self._port}"
        add_known_host(known_hosts, name, self._host_key.get_name(), self._host_key.asbytes(), hashed=False)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = paramiko.Transport(sock, default_window_size=_WINDOW_BYTES)
            connection.get_security_options().ciphers = _CIPHERS
            connection.add_server_key(self._host_key)
            with self._lock:
                self._connections = [known for known in self._connections if known.is_active()]
                self._connections.append(connection)
            # Somebody who connects and says nothing must not stop the others: the event makes it return at once.
            connection.start_server(event=threading.Event(), server=_Server(self, self._client_key))

    def run(self, channel: paramiko.Channel, command: bytes) -> None:
        """Run one command for a channel, in a thread of its own (called by the server)."""
        thread = threading.Thread(target=self._run, args=(channel, command), name="embedded-command", daemon=True)
        with self._lock:
            self._threads = [known for known in self._threads if known.is_alive()]
            self._threads.append(thread)
            thread.start()

    def _run(self, channel: paramiko.Channel, command: bytes) -> None:
        environment = {"HOME": str(self.home), "USER": _USER, "LOGNAME": _USER, "SHELL": "/bin/sh"}
        environment["PATH"] = os.environ.get("PATH", os.defpath)
        with self._lock:
            if self._listener is None:
                return
            process = subprocess.Popen(
                ["/bin/sh", "-c", os.fsdecode(command)],
                cwd=self.home,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
            )
            self._processes.add(process)
        pumps = [
            threading.Thread(target=_pump_output, args=(process.stdout, channel.sendall), daemon=True),
            threading.Thread(target=_pump_output, args=(process.stderr, channel.sendall_stderr), daemon=True),
            threading.Thread(target=_pump_input, args=(channel, process.stdin), daemon=True),
        ]
        for pump in pumps:
            pump.start()
        try:
            for pump in pumps[:2]:
                pump.join()
            with contextlib.suppress(*_GONE):
                channel.send_exit_status(process.wait() % 256)
        finally:
            with contextlib.suppress(*_GONE):
                channel.close()
            _end_group(process)
            pumps[2].join(2.0)
            with self._lock:
                self._processes.discard(process)


class _Server(paramiko.ServerInterface):  # type: ignore[misc] # paramiko has no type information
    """Who may log in, and what may be asked for: one key, sessions, commands."""

    def __init__(self, device: EmbeddedDevice, client_key: paramiko.PKey) -> None:
        self._device = device
        self._client_key = client_key

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        granted = username == _USER and key == self._client_key
        return int(paramiko.AUTH_SUCCESSFUL if granted else paramiko.AUTH_FAILED)

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return int(paramiko.OPEN_SUCCEEDED if kind == "session" else paramiko.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED)

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        self._device.run(channel, command)
        return True


def _pump_output(stream: IO[bytes], send: Callable[[bytes], object]) -> None:
    """From a process to the channel, until either ends."""
    with stream, contextlib.suppress(*_GONE):
        while data := stream.read(_CHUNK_BYTES):
            send(data)


def _pump_input(channel: paramiko.Channel, stdin: IO[bytes]) -> None:
    """From the channel to a process; the end of one is the end of the other."""
    with stdin, contextlib.suppress(*_GONE):
        while data := channel.recv(_CHUNK_BYTES):
            left = memoryview(data)
            while left:
                left = left[stdin.write(left) :]


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End a command and what it started. Its input ends first, so a well-behaved one ends by itself."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(0.5)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
