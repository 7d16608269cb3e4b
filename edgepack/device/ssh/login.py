"""Logging in: which keys are tried, in which order, and what a refusal means."""

from __future__ import annotations

import base64
import binascii
import contextlib
import getpass
import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm
from paramiko.agent import AgentSSH

from edgepack.device.address import DeviceAddress
from edgepack.device.hostkeys import SSH_PORT
from edgepack.device.lost import connection_dropped
from edgepack.device.ssh.connection import Connection
from edgepack.device.sshconfig import SshPlace
from edgepack.errors import InputError, UnreachableError

_PASSPHRASE_TRIES = 3
# The keys that a person has unlocked in this process: a line that breaks asks nobody again.
_UNLOCKED: dict[Path, paramiko.PKey] = {}


@dataclass(slots=True)
class _Attempts:
    """What was tried, for the message of a refusal."""

    refused: list[str] = field(default_factory=list)
    locked: list[Path] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)


def log_in(connection: Connection, place: SshPlace, address: DeviceAddress, identity: Path | None) -> None:
    """Offer keys to the host until it takes one: the given identity, the agent's, then the configured files.

    A key file whose public half the agent holds is taken from the agent. An encrypted file is asked for on a terminal,
    after everything else, and only there. Raises UnreachableError "login-refused" or "key-locked",
    "connection-dropped" where the line was cut meanwhile, InputError "key-unusable".
    """
    attempts = _Attempts()
    with contextlib.ExitStack() as stack:
        held = _agent_keys(place, stack)
        for name, key in _keys(place, identity, held, attempts):
            try:
                more = connection.auth_publickey(place.user, key)
            except paramiko.BadAuthenticationType as error:
                raise _refused(address, place, attempts, f"it takes only {', '.join(error.allowed_types)}") from None
            except paramiko.AuthenticationException as error:
                if _was_cut(connection):
                    raise connection_dropped(str(address)) from None
                attempts.refused.append(name)
                if not connection.is_active():
                    raise _refused(address, place, attempts, str(error)) from None
                continue
            except (paramiko.SSHException, EOFError):
                if connection.is_active():
                    raise
                if _was_cut(connection):
                    raise connection_dropped(str(address)) from None
                raise _refused(address, place, attempts, "it hung up: too many keys were tried") from None
            if not more:
                return
            raise _refused(address, place, attempts, f"beside the key it wants {', '.join(more)}")
    raise _refused(address, place, attempts, "")


def _was_cut(connection: Connection) -> bool:
    """Whether the line is dead though sshd did not take its leave, as it does where too many keys were tried."""
    return not connection.is_active() and connection.farewell is None


def _keys(
    place: SshPlace, identity: Path | None, held: dict[bytes, paramiko.PKey], attempts: _Attempts
) -> Iterator[tuple[str, paramiko.PKey]]:
    """The keys to offer, in order, each once; a file is read only when its turn comes."""
    waiting: list[Path] = []
    for position, file in enumerate(dict.fromkeys(place.identity_files)):
        public = _public_half(file)
        if public is not None and (key := held.pop(public, None)) is not None:
            yield f"{file} (agent)", key
        elif position == 0 and identity is not None:
            yield from _from_file(file, attempts, explicit=True)
        else:
            waiting.append(file)
    if not place.identities_only:
        yield from ((getattr(key, "comment", "") or "a key of the agent", key) for key in held.values())
    for file in waiting:
        yield from _from_file(file, attempts)
    for file in attempts.locked:
        if sys.stdin is not None and sys.stdin.isatty() and (key := _ask(file)) is not None:
            yield str(file), key


def _from_file(file: Path, attempts: _Attempts, *, explicit: bool = False) -> Iterator[tuple[str, paramiko.PKey]]:
    if not file.is_file():
        return
    try:
        yield str(file), paramiko.PKey.from_path(file)
    except (paramiko.PasswordRequiredException, TypeError):
        # cryptography says TypeError where a password is missing.
        attempts.locked.append(file)
    except (paramiko.SSHException, paramiko.UnknownKeyType, UnsupportedAlgorithm, ValueError, OSError) as error:
        if explicit:
            raise InputError(
                "key-unusable",
                f"{file} is no private key that edgepack's SSH client can use{_why_unusable(error)}.",
                hint="Name a private key (ed25519, ECDSA or RSA). A FIDO key works with --transport openssh.",
            ) from None
        attempts.unusable.append(str(file))


def _ask(file: Path) -> paramiko.PKey | None:
    """The key of an encrypted file, after the passphrase was typed; None after three wrong ones."""
    if (known := _UNLOCKED.get(file)) is not None:
        return known
    for _ in range(_PASSPHRASE_TRIES):
        with contextlib.suppress(paramiko.SSHException, ValueError, TypeError):
            key = paramiko.PKey.from_path(file, getpass.getpass(f"Passphrase for {file}: ").encode())
            _UNLOCKED[file] = key
            return key
    return None


def _agent_keys(place: SshPlace, stack: contextlib.ExitStack) -> dict[bytes, paramiko.PKey]:
    """The keys of the agent by their public half: of the configured agent, or of the one in the environment."""
    where = place.identity_agent
    if where is None or where == "SSH_AUTH_SOCK":
        path = os.environ.get("SSH_AUTH_SOCK")
    else:
        path = os.environ.get(where[1:]) if where.startswith("$") else where
    if not path or path.lower() == "none":
        return {}
    agent, sock = AgentSSH(), socket.socket(socket.AF_UNIX)
    try:
        sock.settimeout(5.0)
        sock.connect(path)
        # What paramiko.Agent does for SSH_AUTH_SOCK, which is the only agent that it knows.
        agent._connect(sock)
    except (OSError, paramiko.SSHException):
        sock.close()
        return {}
    # Signing may ask a person for a touch or a confirmation.
    sock.settimeout(60.0)
    stack.callback(agent._close)
    return {key.asbytes(): key for key in agent.get_keys()}


def _public_half(file: Path) -> bytes | None:
    try:
        fields = file.with_name(file.name + ".pub").read_text(encoding="utf-8").split()
        return base64.b64decode(fields[1], validate=True)
    except (OSError, ValueError, IndexError, binascii.Error):
        return None


def _refused(address: DeviceAddress, place: SshPlace, attempts: _Attempts, why: str) -> UnreachableError:
    who = DeviceAddress("ssh", place.host, place.user, place.port if place.port != SSH_PORT else None).ssh_words
    if attempts.locked and not why:
        return UnreachableError(
            "key-locked",
            f"{address} took no other key, and {attempts.locked[0]} is encrypted.",
            hint=f"Hand it to an agent first: ssh-add {attempts.locked[0]}",
        )
    tried = f"tried: {', '.join(attempts.refused)}" if attempts.refused else "there was no key to try"
    return UnreachableError(
        "login-refused",
        f"{address} refused the login as {place.user} ({why + '; ' if why else ''}{tried}).",
        hint=f"Install your key there: ssh-copy-id {who}. What needs more than a key works with --transport openssh.",
        user=place.user,
        tried=attempts.refused,
        unusable=attempts.unusable,
    )


def _why_unusable(error: Exception) -> str:
    """The reason in paramiko's words; cryptography's (a ValueError) are about its own insides and a page on the web."""
    words = "" if isinstance(error, ValueError) else " ".join(str(error).split()).rstrip(".")
    return f": {words}" if words else ""
