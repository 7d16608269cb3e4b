"""What known_hosts files say about a host's key; pure, but for reading the files and adding a line.

The format is that of sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT": an optional marker, comma-separated patterns or one hashed
name, a key type, the key in base64, a comment.
"""

from __future__ import annotations

import base64
import enum
import fnmatch
import hashlib
import hmac
import os
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgepack.errors import InputError
from edgepack.events import Event

SSH_PORT = 22


class Standing(enum.Enum):
    """What is known about a key that a host showed."""

    KNOWN = "known"
    UNKNOWN = "unknown"
    CHANGED = "changed"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class KnownKey:
    """One line: its marker ("", "@revoked" or "@cert-authority"), its patterns, its key, and where it stands."""

    marker: str
    patterns: tuple[str, ...]
    key_type: str
    blob: bytes
    where: str

    def names(self, name: str) -> bool:
        """Whether the line is about this host (a name as :func:`host_names` gives it)."""
        wanted = name.lower()
        matched = False
        for pattern in self.patterns:
            if pattern.startswith("|1|"):
                matched = matched or _hash_matches(pattern, wanted)
            elif pattern.startswith("!"):
                if fnmatch.fnmatchcase(wanted, _globbed(pattern[1:])):
                    return False
            else:
                matched = matched or fnmatch.fnmatchcase(wanted, _globbed(pattern))
        return matched


@dataclass(frozen=True, slots=True)
class Judgement:
    """How a host's key stands, the line that decided it, and whether an authority is trusted for this host."""

    standing: Standing
    line: KnownKey | None = None
    has_authority: bool = False


def host_names(host: str, port: int, alias: str | None = None) -> tuple[str, ...]:
    """The names that a host's key is looked up under, the one to write first: ``[host]:port`` off port 22, then the
    bare host.

    OpenSSH takes a key that is known for the bare host on any port, and a HostKeyAlias as it is.
    """
    if alias:
        return (alias,)
    return (host,) if port == SSH_PORT else (f"[{host}]:{port}", host)


def judge(lines: Iterable[KnownKey], names: Sequence[str], blob: bytes) -> Judgement:
    """How the key ``blob`` stands for a host that goes by ``names`` (the first is its own, the others may only
    confirm).

    A host that is known by other keys only is CHANGED, also where their type differs: who is in between could offer a
    type that was never seen. Lines of authorities are left to OpenSSH.
    """
    changed: KnownKey | None = None
    known: KnownKey | None = None
    has_authority = False
    for line in lines:
        own, other = line.names(names[0]), any(line.names(name) for name in names[1:])
        if not (own or other):
            continue
        if line.marker == "@cert-authority":
            has_authority = True
        elif line.marker == "@revoked":
            if line.blob == blob:
                return Judgement(Standing.REVOKED, line)
        elif line.blob == blob:
            known = known or line
        elif own:
            changed = changed or line
    if known:
        return Judgement(Standing.KNOWN, known, has_authority)
    if changed:
        return Judgement(Standing.CHANGED, changed, has_authority)
    return Judgement(Standing.UNKNOWN, None, has_authority)


def known_types(lines: Iterable[KnownKey], names: Sequence[str]) -> tuple[str, ...]:
    """The key types that a host is known by, in the order of the files: what to ask it for."""
    found = (line.key_type for line in lines if not line.marker and any(line.names(name) for name in names))
    return tuple(dict.fromkeys(found))


def parse_known_hosts(text: str, where: str = "") -> list[KnownKey]:
    """The lines of a known_hosts file. As in OpenSSH, what cannot be read is skipped: the host is unknown then."""
    lines = []
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.split()
        if not fields or fields[0].startswith("#"):
            continue
        marker = fields.pop(0) if fields[0].startswith("@") else ""
        if len(fields) < 3 or marker not in ("", "@revoked", "@cert-authority"):
            continue
        try:
            blob = base64.b64decode(fields[2], validate=True)
        except ValueError:
            continue
        lines.append(KnownKey(marker, tuple(fields[0].lower().split(",") if fields[0][0] != "|" else [fields[0]]),
                              fields[1], blob, f"{where}:{number}"))  # fmt: skip
    return lines


def read_known_hosts(files: Iterable[Path]) -> list[KnownKey]:
    """The lines of several files; those that do not exist hold none."""
    lines = []
    for file in files:
        try:
            text = file.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            continue
        except OSError as error:
            raise InputError(
                "bad-known-hosts",
                f"{file} cannot be read: {error.strerror}.",
                hint="Make it readable, or name another with --known-hosts.",
            ) from None
        lines += parse_known_hosts(text, str(file))
    return lines


def add_known_host(file: Path, name: str, key_type: str, blob: bytes, *, hashed: bool) -> None:
    """Append a host's key. The file and its folder are made for their owner only where they are missing."""
    pattern = _hash(name.lower(), os.urandom(20)) if hashed else name.lower()
    line = f"{pattern} {key_type} {base64.b64encode(blob).decode()}\n".encode()
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line
            os.write(descriptor, line)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise InputError(
            "bad-known-hosts",
            f"The new host key cannot be written to {file}: {error.strerror}.",
            hint="Make it writable, or name another with --known-hosts.",
        ) from None


CHANGED = "Somebody may be in between. If the device was set up anew, forget its old key:"


def forget_command(name: str, file: str) -> str:
    """What makes a known_hosts file forget a host, by a name as :func:`host_names` gives it."""
    return f"ssh-keygen -R {shlex.quote(name)} -f {shlex.quote(file)}"


def added(name: str, blob: bytes, file: Path) -> Event:
    """What is told where a new host's key was written down."""
    return Event("connect", f"added {fingerprint(blob)} of {name} to {file}")


def fingerprint(blob: bytes) -> str:
    """A key's fingerprint as ``ssh-keygen -l`` prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def _globbed(pattern: str) -> str:
    """A pattern for fnmatch: in known_hosts only ``*`` and ``?`` are special, brackets are part of the name."""
    return re.sub(r"\[", "[[]", pattern)


def _hash(name: str, salt: bytes) -> str:
    # HMAC-SHA1 with a random salt: the format that HashKnownHosts writes; it hides names, it protects no key.
    digest = hmac.new(salt, name.encode(), hashlib.sha1).digest()
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"


def _hash_matches(pattern: str, name: str) -> bool:
    try:
        salt = base64.b64decode(pattern.split("|")[2], validate=True)
    except (ValueError, IndexError):
        return False
    return hmac.compare_digest(_hash(name, salt), pattern)
