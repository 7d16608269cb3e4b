"""Connections: paramiko over a socket of ours.

What it does beyond ``paramiko.SSHClient``: reads the user's configuration through ``ssh -G``, jumps over hosts, sets
TCP_NODELAY (without it a round trip costs 40 ms more), prefers AES-GCM (up to twice as fast as paramiko's first
choice), survives ``@revoked`` and ``@cert-authority`` lines, and tries again when a busy sshd drops the connection
before its banner.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import random
import socket
import subprocess
import threading
import time
from collections.abc import Callable

import paramiko

from edgepack.device import hostkeys
from edgepack.device.address import DeviceAddress
from edgepack.device.lost import connection_dropped
from edgepack.device.options import ConnectOptions
from edgepack.device.ssh.channel import SshChannel
from edgepack.device.ssh.connection import Connection, JumpSocket
from edgepack.device.ssh.faults import connect_error, host_key_error, translated
from edgepack.device.ssh.login import log_in
from edgepack.device.sshconfig import SshPlace, resolve
from edgepack.device.transport import STALL_TIMEOUT_S
from edgepack.errors import DeviceFailure, EdgepackError, InputError, UnreachableError

# With AES in hardware GCM is fastest, and one pass instead of two without it. CBC and 3DES are not offered at all.
CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr")
# What the far side may send us before it hears from us: enough for a collect over a slow line.
_WINDOW_BYTES = 4 << 20
# OpenSSH takes no larger packets (channels.h, CHAN_SES_PACKET_DEFAULT).
_PACKET_BYTES = 32 * 1024
_MAX_HOPS = 8
# A dead peer is noticed when sent bytes stay unacknowledged for this long; the session's pings are such bytes.
_DEAD_PEER_MS = 60_000

# Without a handler of the application's, paramiko's log would end up on stderr.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


class SshTransport:
    """A logged-in SSH connection, through all its jump hosts."""

    def __init__(self, address: DeviceAddress, options: ConnectOptions) -> None:
        self._description = str(address)
        self._below = contextlib.ExitStack()
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(self._below.close)
            self._connection = _connect(address, options, self._below)
            on_failure.pop_all()

    @property
    def description(self) -> str:
        """The device's address, for messages."""
        return self._description

    @property
    def server(self) -> str:
        """The identification that the device's SSH server sent."""
        return str(self._connection.remote_version)

    @property
    def cipher(self) -> str:
        """The cipher that was agreed on."""
        return str(self._connection.local_cipher)

    def open(self, command: str) -> SshChannel:
        """Start ``command`` through the login shell of the account."""
        # paramiko waits for the answer to a command without an end.
        guard = threading.Timer(STALL_TIMEOUT_S, _hang_up, [self._connection], {"to_the_bottom": True})
        guard.daemon = True
        guard.start()
        try:
            with translated(self._description):
                channel = self._connection.open_session(_WINDOW_BYTES, _PACKET_BYTES, timeout=STALL_TIMEOUT_S)
                channel.exec_command(command)
        except EdgepackError:
            if self._connection.is_active() or self._connection.farewell:
                raise
            raise connection_dropped(self._description) from None
        finally:
            guard.cancel()
        return SshChannel(channel, self._description, functools.partial(_cut, self._connection))

    def close(self) -> None:
        """Close the connection and those that it runs through."""
        self._below.close()


def _connect(
    address: DeviceAddress,
    options: ConnectOptions,
    below: contextlib.ExitStack,
    hops: tuple[str, ...] | None = None,
    depth: int = 0,
) -> Connection:
    """Log in to ``address``; whatever has to be closed after it is put on ``below``."""
    if depth > _MAX_HOPS:
        raise InputError(
            "bad-ssh-config",
            f"{address} is behind more than {_MAX_HOPS} jump hosts.",
            hint="Look for a circle of ProxyJump lines.",
        )
    place = resolve(address, options)
    jumps = place.proxy_jump if hops is None else hops
    if jumps:
        hop = _connect(DeviceAddress.parse(jumps[-1]), options, below, jumps[:-1] or None, depth + 1)
        connection = _start(address, place, options, lambda: _through(hop, address, place, options))
    elif place.proxy_command:
        command = place.proxy_command
        connection = _start(address, place, options, lambda: _proxy(command, below))
    else:
        connection = _start(address, place, options, lambda: _dial(address, place, options))
    below.callback(_hang_up, connection, to_the_bottom=True)
    with translated(str(address)):
        _check_host_key(address, connection, place, options)
        log_in(connection, place, address, options.identity)
    return connection


def _start(
    address: DeviceAddress, place: SshPlace, options: ConnectOptions, dial: Callable[[], socket.socket | JumpSocket]
) -> Connection:
    """Agree on keys with the host. Tries again, a little later each time, where it hung up before it said a word.

    That is what a stock sshd does with some connections once ten others are logging in (sshd_config(5), MaxStartups).
    """
    deadline = time.monotonic() + options.connect_timeout_s
    pause_s = 0.1
    types = hostkeys.known_types(hostkeys.read_known_hosts(place.known_hosts), _names(place))
    while True:
        connection = _prepare(dial(), types, options)
        try:
            with translated(str(address)):
                connection.start_client(timeout=options.connect_timeout_s)
                if not connection.initial_kex_done:
                    raise TimeoutError("key exchange")
            return connection
        except EdgepackError as error:
            cut = not connection.is_active() and not connection.farewell
            _hang_up(connection)
            if connection.remote_version and cut and error.code == "ssh-failed":
                raise connection_dropped(str(address)) from None
            if connection.remote_version or error.code == "connect-timeout":
                raise
        # S311: spreads retries, guards nothing.
        pause_s *= random.uniform(1.0, 2.0)  # noqa: S311
        if time.monotonic() + pause_s > deadline:
            raise UnreachableError(
                "connection-dropped",
                f"{place.host}, port {place.port}, hangs up before it says that it is an SSH server ({address}).",
                hint="Is that port sshd's? Too many logins at once (MaxStartups) and a ban look the same.",
            )
        time.sleep(pause_s)


def _prepare(sock: socket.socket | JumpSocket, types: tuple[str, ...], options: ConnectOptions) -> Connection:
    connection = Connection(sock, default_window_size=_WINDOW_BYTES, default_max_packet_size=_PACKET_BYTES)
    # start_client's own timeout comes first; paramiko's cannot be told from a host that hangs up.
    connection.banner_timeout = connection.handshake_timeout = options.connect_timeout_s + 5.0
    algorithms = connection.get_security_options()
    algorithms.ciphers = CIPHERS
    # Ask for a key of a type that is known already: any other would look like a changed one.
    wanted = {"rsa-sha2-512", "rsa-sha2-256"} | set(types) if "ssh-rsa" in types else set(types)
    algorithms.key_types = sorted(algorithms.key_types, key=lambda name: name not in wanted)
    return connection


def _check_host_key(
    address: DeviceAddress, connection: paramiko.Transport, place: SshPlace, options: ConnectOptions
) -> None:
    key = connection.get_remote_server_key()
    blob, names = key.asbytes(), _names(place)
    judgement = hostkeys.judge(hostkeys.read_known_hosts(place.known_hosts), names, blob)
    if judgement.standing is hostkeys.Standing.KNOWN:
        return
    if judgement.standing is hostkeys.Standing.UNKNOWN and options.accept_new_host_key and place.user_known_hosts:
        file = place.user_known_hosts[0]
        hostkeys.add_known_host(file, names[0], key.get_name(), blob, hashed=place.hash_known_hosts)
        options.report(hostkeys.added(names[0], blob, file))
        return
    raise host_key_error(str(address), judgement, names[0], key.get_name(), blob)


def _names(place: SshPlace) -> tuple[str, ...]:
    return hostkeys.host_names(place.host, place.port, place.host_key_alias)


def _dial(address: DeviceAddress, place: SshPlace, options: ConnectOptions) -> socket.socket:
    try:
        sock = socket.create_connection((place.host, place.port), timeout=options.connect_timeout_s)
    except (OSError, UnicodeError) as error:
        raise connect_error(str(address), place.host, place.port, error) from None
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _DEAD_PEER_MS)
    return sock


def _through(hop: paramiko.Transport, address: DeviceAddress, place: SshPlace, options: ConnectOptions) -> JumpSocket:
    """A way to the next host through the last one (ssh's -W)."""
    there, here = (place.host, place.port), ("127.0.0.1", 0)
    try:
        with translated(str(address)):
            return JumpSocket(hop.open_channel("direct-tcpip", there, here, timeout=options.connect_timeout_s))
    except DeviceFailure as error:
        raise UnreachableError(
            "jump-failed",
            f"The jump host could not reach {place.host}, port {place.port}: {error.message}",
            hint="Try it there: ssh to the jump host, then to the device.",
        ) from None


def _proxy(command: str, below: contextlib.ExitStack) -> socket.socket:
    """A socket whose other end is the standard input and output of a ProxyCommand, run as ssh runs it."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            ["/bin/sh", "-c", f"exec {command}"],
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    below.callback(_end_process, process)
    return ours


def _end_process(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(2.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _hang_up(connection: paramiko.Transport, *, to_the_bottom: bool = False) -> None:
    """Close a connection and wait for its thread; without the shutdown it would sleep for another tenth of a second.

    Behind a jump host ``to_the_bottom`` cuts the line that carries all of it: one that stalls takes no other farewell.
    """
    if to_the_bottom or isinstance(connection.sock, socket.socket):
        _cut(connection)
    connection.close()
    if connection.ident is not None:
        connection.join(2.0)


def _cut(connection: paramiko.Transport) -> None:
    """Shut down the socket that carries a connection, through all jump hosts, whatever paramiko is at."""
    sock = connection.sock
    while isinstance(sock, JumpSocket):
        sock = sock.channel.transport.sock
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
