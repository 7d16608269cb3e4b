"""Reading an SSH signature (SSHSIG): which key made it, and for what; pure, and no judgement of whether it is right.

Structures: OpenSSH's PROTOCOL.sshsig (the signature), RFC 4251 section 5 (strings), PROTOCOL.certkeys (certificates).
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass

from edgepack.errors import IntegrityError

NAMESPACE = "edgepack"
MAX_SIGNATURE_BYTES = 64 * 1024
_BEGIN, _END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"
_MAGIC = b"SSHSIG"
_VERSION = 1
_CERTIFICATE = "-cert-v01@openssh.com"
# How many strings follow a key's type: the public key proper (PROTOCOL.certkeys, PROTOCOL.u2f, RFC 4253, RFC 5656).
_KEY_STRINGS = {
    "ssh-ed25519": 1,
    "ssh-rsa": 2,
    "ecdsa-sha2-nistp256": 2,
    "ecdsa-sha2-nistp384": 2,
    "ecdsa-sha2-nistp521": 2,
    "sk-ssh-ed25519@openssh.com": 2,
    "sk-ecdsa-sha2-nistp256@openssh.com": 3,
}


@dataclass(frozen=True, slots=True)
class Signature:
    """What a signature says of itself. ``fingerprint`` is that of the key, also where a certificate speaks for it."""

    key_type: str
    fingerprint: str
    namespace: str


def read_signature(armored: bytes) -> Signature:
    """The signature in that text, as ``ssh-keygen -Y sign`` writes it.

    Raises :class:`IntegrityError` "bad-signature" where it is none, or by a kind of key that OpenSSH does not know.
    """
    blob = _Reader(_dearmor(armored))
    if blob.take(len(_MAGIC)) != _MAGIC or blob.number() != _VERSION:
        raise malformed("it is no SSHSIG of version 1")
    key, namespace = blob.string(), blob.string()
    for _ in ("reserved", "hash algorithm", "signature"):
        blob.string()
    if blob.left:
        raise malformed("there are bytes after its end")
    key_type, fingerprint = _describe_key(key)
    return Signature(key_type, fingerprint, _text(namespace))


def malformed(fault: str) -> IntegrityError:
    """The error of a signature that cannot be read."""
    return IntegrityError(
        "bad-signature",
        f"The bundle's signature cannot be read: {fault}.",
        hint="Get the bundle again from who made it, or make it anew with `edgepack bundle --sign KEY`.",
    )


def _dearmor(armored: bytes) -> bytes:
    if len(armored) > MAX_SIGNATURE_BYTES:
        raise malformed("it is larger than 64 KiB")
    lines = armored.decode("ascii", "replace").split("\n")
    if len(lines) < 4 or lines[0] != _BEGIN or lines[-2:] != [_END, ""]:
        raise malformed("its armour is damaged")
    try:
        return base64.b64decode("".join(lines[1:-2]), validate=True)
    except ValueError:
        raise malformed("it is no base64") from None


def _describe_key(key: bytes) -> tuple[str, str]:
    """The type of a public key, and the fingerprint that ``ssh-keygen -l`` shows: SHA-256 of the plain key."""
    blob = _Reader(key)
    named = _text(blob.string())
    certified = named.endswith(_CERTIFICATE)
    plain = named.removesuffix(_CERTIFICATE)
    if certified and plain.startswith("sk-"):
        plain += "@openssh.com"
    if plain not in _KEY_STRINGS:
        raise malformed(f"keys of the type {named[:50]!r} are not known")
    if certified:
        blob.string()  # its nonce
    parts = [plain.encode("ascii"), *(blob.string() for _ in range(_KEY_STRINGS[plain]))]
    if not certified and blob.left:
        raise malformed("there are bytes after its key")
    content = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    digest = base64.b64encode(hashlib.sha256(content).digest()).decode("ascii").rstrip("=")
    return named, f"SHA256:{digest}"


def _text(value: bytes) -> str:
    text = value.decode("ascii", "replace")
    if not text.isprintable() or "\ufffd" in text:
        raise malformed("a name in it is no plain text")
    return text


class _Reader:
    """Takes a blob apart; every length is held against what is there."""

    def __init__(self, blob: bytes) -> None:
        self._blob = blob

    @property
    def left(self) -> int:
        return len(self._blob)

    def take(self, size: int) -> bytes:
        if size > len(self._blob):
            raise malformed("it is cut short")
        taken, self._blob = self._blob[:size], self._blob[size:]
        return taken

    def number(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def string(self) -> bytes:
        return self.take(self.number())
