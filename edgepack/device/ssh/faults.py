"""Every exception of paramiko and of the network as an edgepack error: one table, one context manager."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator

import paramiko
from paramiko.hostkeys import InvalidHostKey

from edgepack.device import hostkeys
from edgepack.device.address import ssh_words
from edgepack.errors import DeviceFailure, EdgepackError, InputError, IntegrityError, UnreachableError

_OPENSSH = "Try --transport openssh, which uses the ssh program."
_AGAIN = "Run the command again."

# The first class that fits decides, so special ones stand before their bases. {device}, {error} and, in a hint,
# {ssh_words} are filled in.
TABLE: tuple[tuple[type[Exception], type[EdgepackError], str, str, str], ...] = (
    (
        paramiko.PasswordRequiredException,
        UnreachableError,
        "key-locked",
        "A private key for {device} is encrypted.",
        "Hand it to an agent: ssh-add KEYFILE",
    ),
    (
        paramiko.AuthenticationException,
        UnreachableError,
        "login-refused",
        "{device} refused the login: {error}",
        "Install your key there: ssh-copy-id -i KEYFILE {ssh_words}",
    ),
    (
        paramiko.BadHostKeyException,
        IntegrityError,
        "host-key-changed",
        "{device} shows another host key than the one that is known.",
        "Find out why before you go on: somebody may be in between.",
    ),
    (
        paramiko.MessageOrderError,
        IntegrityError,
        "protocol-violated",
        "Somebody meddled with the key exchange with {device}: {error}",
        "Find out who is in between before you go on.",
    ),
    (
        paramiko.IncompatiblePeer,
        UnreachableError,
        "no-common-algorithm",
        "{device} and edgepack's SSH client share no algorithm: {error}",
        _OPENSSH,
    ),
    (
        paramiko.ProxyCommandFailure,
        UnreachableError,
        "proxy-failed",
        "The ProxyCommand for {device} failed: {error}",
        "Run it by hand, or try --transport openssh.",
    ),
    (
        paramiko.ChannelException,
        DeviceFailure,
        "channel-refused",
        "{device} refused to open a channel: {error}",
        "Its sshd may be at its MaxSessions, or the account may not run commands.",
    ),
    (paramiko.ConfigParseError, InputError, "bad-ssh-config", "The ssh configuration is broken: {error}", _OPENSSH),
    (
        paramiko.CouldNotCanonicalize,
        UnreachableError,
        "unknown-host-name",
        "No host {device} is known: {error}",
        "Check its name, or write its IP address.",
    ),
    (
        InvalidHostKey,
        InputError,
        "bad-known-hosts",
        "A line of the known_hosts file is broken: {error}",
        "Mend it, or name another file with --known-hosts.",
    ),
    (
        paramiko.UnknownKeyType,
        InputError,
        "key-unusable",
        "A key of {device} has an unknown type: {error}",
        _OPENSSH,
    ),
    (paramiko.SSHException, UnreachableError, "ssh-failed", "SSH with {device} failed: {error}", _OPENSSH),
    (EOFError, UnreachableError, "connection-dropped", "{device} dropped the connection.", _AGAIN),
    (
        TimeoutError,
        UnreachableError,
        "connect-timeout",
        "{device} did not answer in time.",
        "Is it switched on and on the network? Give it longer with --connect-timeout SECONDS.",
    ),
    (OSError, UnreachableError, "connection-dropped", "The connection to {device} broke: {error}", _AGAIN),
)


@contextlib.contextmanager
def translated(device: str) -> Iterator[None]:
    """Turns what paramiko raises inside into edgepack errors about ``device``; edgepack's own pass through."""
    try:
        yield
    except EdgepackError:
        raise
    except Exception as error:
        known = translation(error, device)
        if known is None:
            raise
        raise known from error


def translation(error: Exception, device: str) -> EdgepackError | None:
    """The edgepack error for a foreign exception; None for one that nobody foresaw."""
    for foreign, kind, code, message, hint in TABLE:
        if isinstance(error, foreign):
            words = " ".join(str(error).split()) or type(error).__name__
            return kind(code, message.format(device=device, error=words), hint=hint.format(ssh_words=ssh_words(device)))
    # paramiko's own classes that stand outside its tree (NeedRekeyException, PipeTimeout) never leave it, except by a
    # fault.
    if type(error).__module__.partition(".")[0] == "paramiko":
        return UnreachableError("ssh-failed", f"SSH with {device} failed: {type(error).__name__}", hint=_OPENSSH)
    return None


def connect_error(device: str, host: str, port: int, error: Exception) -> EdgepackError:
    """Why a TCP connection could not be made, each reason with its own code."""
    where = f"{host}, port {port}"
    if isinstance(error, socket.gaierror | UnicodeError):
        return UnreachableError(
            "unknown-host-name",
            f"No host is called {host!r} ({device}).",
            hint="Check its name, or write its IP address; a .local name needs mDNS on this machine.",
        )
    if isinstance(error, ConnectionRefusedError):
        return UnreachableError(
            "connection-refused",
            f"{where}, refuses connections ({device}).",
            hint="Is sshd running there, and on this port? On the device: sudo systemctl enable --now ssh",
        )
    if isinstance(error, TimeoutError):
        return UnreachableError(
            "connect-timeout",
            f"{where}, did not answer in time ({device}).",
            hint="Is it switched on and on the network? Give it longer with --connect-timeout SECONDS.",
        )
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTDOWN):
        return UnreachableError(
            "no-route",
            f"There is no way to {where}, from here ({device}).",
            hint="Are this machine and the device on the same network? A jump host: ProxyJump in ~/.ssh/config.",
        )
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return UnreachableError(
        "connect-failed", f"{where}, cannot be reached ({device}): {words}", hint=f"Try `ssh -v {ssh_words(device)}`."
    )


def host_key_error(device: str, judgement: hostkeys.Judgement, name: str, key_type: str, blob: bytes) -> IntegrityError:
    """Why a host's key is not believed, with the fingerprint that it showed."""
    shown = hostkeys.fingerprint(blob)
    line = judgement.line
    details: dict[str, object] = {"fingerprint": shown, "key_type": key_type, "host": name}
    if line is not None:
        details["known_hosts"] = line.where
    if judgement.standing is hostkeys.Standing.REVOKED:
        return IntegrityError(
            "host-key-revoked",
            f"{device} shows a host key that is marked as revoked: {key_type} {shown}.",
            hint="Do not log in there. Somebody may use a stolen key.",
            **details,
        )
    if line is not None:
        return IntegrityError(
            "host-key-changed",
            f"{device} shows another host key than the one that is known ({line.where}): {key_type} {shown}, not "
            f"{line.key_type} {hostkeys.fingerprint(line.blob)}.",
            hint=f"{hostkeys.CHANGED} " + hostkeys.forget_command(name, line.where.rpartition(":")[0]),
            **details,
        )
    if judgement.has_authority:
        return IntegrityError(
            "unknown-host-key",
            f"{device} is known by a certificate authority only, and its plain key {key_type} {shown} is not known.",
            hint="Use --transport openssh, which understands host certificates.",
            **details,
        )
    return IntegrityError(
        "unknown-host-key",
        f"The host key of {device} is not known: {key_type} {shown}.",
        hint="Compare it with the device's own (there: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), then add "
        "--accept-new-host-key once.",
        **details,
    )
