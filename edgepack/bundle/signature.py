"""Signing a bundle's manifest and checking signatures, by OpenSSH's own ``ssh-keygen -Y`` (ssh-keygen(1)).

What is signed is the canonical manifest, which holds every file's size and digest. Nothing cryptographic is done here:
keys, agents, certificates, namespaces and lifetimes are OpenSSH's business, and its judgement stands.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from edgepack.bundle.signers import MAX_BYTES, require_any_signer
from edgepack.bundle.sshsig import NAMESPACE, Signature, read_signature
from edgepack.bundledocuments import SignatureInfo
from edgepack.errors import InputError, IntegrityError

# A key in hardware waits for a touch, an agent may ask its user.
_SIGN_TIMEOUT_S = 120
_VERIFY_TIMEOUT_S = 30


def sign(content: bytes, key: Path) -> bytes:
    """The armored signature of ``content`` by ``key``.

    That is a private key's file, or a public key's whose private half ssh-agent has. An encrypted key asks for its
    passphrase where standard input is a terminal. Raises :class:`InputError`: "no-sign-key", "bad-sign-key",
    "sign-key-locked", "no-ssh-keygen".
    """
    key = key.expanduser()
    require_key(key)
    # Without a terminal of its own ssh-keygen cannot ask, and fails instead of waiting for ever.
    apart = not sys.stdin.isatty() if sys.stdin else True
    done = _ssh_keygen(["sign", "-f", str(key), "-n", NAMESPACE], content, _SIGN_TIMEOUT_S, apart=apart)
    if done.returncode != 0:
        raise _sign_error(key, done.stderr.decode("utf-8", "replace"))
    read_signature(done.stdout)
    return done.stdout


def require_key(key: Path) -> None:
    """Raises :class:`InputError` "no-sign-key" where there is no such file."""
    if not key.expanduser().is_file():
        raise InputError(
            "no-sign-key", f"There is no key {key}.", hint="Name one with --sign, or make one: ssh-keygen -t ed25519"
        )


def require_signers(allowed_signers: Path) -> None:
    """Raises :class:`InputError`: "no-allowed-signers" where the file cannot be read, "bad-allowed-signers" for others.

    ssh-keygen passes over lines that are none, and would say of any file that the key is not in it.
    """
    try:
        with allowed_signers.expanduser().open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(
            "no-allowed-signers",
            f"The file of allowed signers {allowed_signers} cannot be read: {error.strerror}.",
            hint="Name one with --allowed-signers; a line of it is a name and a public key: "
            f'alice@example.com namespaces="{NAMESPACE}" ssh-ed25519 AAAA...',
        ) from None
    if len(content) > MAX_BYTES:
        raise InputError(
            "bad-allowed-signers", f"{allowed_signers} is no file of allowed signers: it is larger than 256 KiB.",
            hint="Name the file that has a line for each signer.",
        )  # fmt: skip
    require_any_signer(content.decode("utf-8", "replace"), str(allowed_signers))


def check_signature(
    content: bytes, armored: bytes | None, allowed_signers: Path | None, subject: str
) -> SignatureInfo | None:
    """Who signed ``content``; None where nobody did and nobody had to.

    With ``allowed_signers`` (ssh-keygen(1), ALLOWED SIGNERS) the signature has to be by one of them, valid now; without
    it, it has to be a signature of this content, by whomever. Raises :class:`IntegrityError`: "unsigned",
    "bad-signature", "wrong-namespace", "foreign-signature", "signer-expired".
    """
    if allowed_signers is not None:
        require_signers(allowed_signers)
    if armored is None:
        if allowed_signers is None:
            return None
        raise IntegrityError(
            "unsigned",
            f"{subject} is not signed, and only signed bundles are taken here.",
            hint="Have it signed: `edgepack bundle ... --sign KEY`, by a key of the file of allowed signers.",
        )
    found = read_signature(armored)
    if found.namespace != NAMESPACE:
        raise IntegrityError(
            "wrong-namespace",
            f"{subject} is signed for {found.namespace!r}, not for {NAMESPACE!r}.",
            hint="Sign it with `edgepack bundle --sign KEY`: a signature made for something else says nothing here.",
        )
    with tempfile.NamedTemporaryFile(prefix="edgepack-", suffix=".sig") as file:
        file.write(armored)
        file.flush()
        _require_right(content, file.name, subject)
        principal = (
            None if allowed_signers is None else _find_signer(content, file.name, allowed_signers, found, subject)
        )
    return SignatureInfo(principal, found.fingerprint, found.key_type, found.namespace)


def _require_right(content: bytes, signature: str, subject: str) -> None:
    done = _ssh_keygen(["check-novalidate", "-n", NAMESPACE, "-s", signature], content, _VERIFY_TIMEOUT_S)
    if done.returncode != 0:
        raise IntegrityError(
            "bad-signature",
            f"The signature of {subject} is not one of what it holds.",
            hint="Do not use it: it was changed after it was signed. Get it again from who made it.",
        )


def _find_signer(content: bytes, signature: str, allowed_signers: Path, found: Signature, subject: str) -> str:
    """The principal of the allowed signers who made it, as far as ssh-keygen takes it today."""
    signers = str(allowed_signers.expanduser())
    asked = _ssh_keygen(["find-principals", "-f", signers, "-s", signature], b"", _VERIFY_TIMEOUT_S)
    said = asked.stderr
    for principal in asked.stdout.decode("utf-8", "replace").splitlines() if asked.returncode == 0 else ():
        arguments = ["verify", "-f", signers, "-I", principal, "-n", NAMESPACE, "-s", signature]
        done = _ssh_keygen(arguments, content, _VERIFY_TIMEOUT_S)
        if done.returncode == 0:
            return principal
        said += done.stderr
    raise _refusal(said.decode("utf-8", "replace"), allowed_signers, found, subject)


def _refusal(said: str, allowed_signers: Path, found: Signature, subject: str) -> IntegrityError:
    """Why no signer was found, by what ssh-keygen says (sshsig.c); pure."""
    reason = next((line for line in said.splitlines() if re.search(r"expired|not yet valid", line)), "")
    if reason:
        return IntegrityError(
            "signer-expired",
            f"{subject} is signed by {found.fingerprint}, which is not valid today: {reason.strip()}.",
            hint="Sign the bundle with a key that is valid, or renew valid-before in that key's line of "
            f"{allowed_signers}.",
            fingerprint=found.fingerprint,
        )
    namespaced = "not permitted for use in signature namespace" in said
    why = f"not for the namespace {NAMESPACE!r}" if namespaced else "not in it"
    return IntegrityError(
        "foreign-signature",
        f"{subject} is signed by {found.fingerprint}, which {allowed_signers} does not allow: the key is {why}.",
        hint="Do not use it unless you know that key. Whoever may sign has a line in that file: NAME "
        f'namespaces="{NAMESPACE}" and the public key.',
        fingerprint=found.fingerprint,
    )


def _sign_error(key: Path, said: str) -> InputError:
    """Why ssh-keygen would not sign, by what it says (ssh-keygen.c, sig_sign); pure."""
    last = next((line.strip() for line in reversed(said.splitlines()) if line.strip()), "it said nothing")
    if "passphrase" in said:
        return InputError(
            "sign-key-locked",
            f"The key {key} is encrypted, and there was no passphrase that opens it.",
            hint=f"Put it into an agent (ssh-add {key}), or run the command in a terminal.",
        )
    if "UNPROTECTED PRIVATE KEY" in said:
        return InputError(
            "bad-sign-key", f"The key {key} can be read by others, so it is not used.", hint=f"chmod 600 {key}"
        )
    if "No private key found" in said or _is_public_key(key):
        return InputError(
            "bad-sign-key",
            f"{key} is a public key, and its private half is neither beside it (without .pub) nor in an agent.",
            hint=f"Put it there with ssh-add, or name the private key with --sign. ssh-keygen said: {last}",
        )
    return InputError(
        "bad-sign-key",
        f"ssh-keygen cannot sign with {key}: {last}",
        hint="Name an SSH key: a private key's file, or a public key's whose private half is in ssh-agent.",
    )


def _is_public_key(key: Path) -> bool:
    """Whether a file has the one line of a public key, whatever its name ends in."""
    try:
        with key.open("rb") as file:
            return re.match(rb"(ssh|ecdsa|sk)-[a-z0-9@.-]+ AAAA", file.read(100)) is not None
    except OSError:
        return False


def _ssh_keygen(
    arguments: list[str], content: bytes, timeout_s: float, *, apart: bool = True
) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            ["ssh-keygen", "-Y", *arguments],
            input=content,
            capture_output=True,
            timeout=timeout_s,
            check=False,
            start_new_session=apart,
        )
    except FileNotFoundError:
        raise InputError(
            "no-ssh-keygen",
            "Signatures are made and checked by ssh-keygen, which this machine lacks.",
            hint="Install it (Debian: sudo apt install openssh-client; 8.2 or newer).",
        ) from None
    except subprocess.TimeoutExpired:
        raise InputError(
            "no-signature",
            f"ssh-keygen did not end within {timeout_s:.0f} s.",
            hint="A key in hardware waits for a touch, an agent for its user: answer it, and run the command again.",
        ) from None
