"""What a session can end with: the agent's error codes in one table, and what is said when the far side is gone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgepack.device.bootstrap import last_line
from edgepack.device.lost import RESUMES, connection_lost
from edgepack.errors import (
    DeviceFailure,
    EdgepackError,
    GateFailed,
    InputError,
    IntegrityError,
    InternalError,
    LockedError,
    MisfitError,
)
from edgepack.words import printable

# The exit status of an agent that has heard nothing for too long (ondevice/agent/serving.py, watch_silence).
_HEARD_NOTHING = 3

# Every code that ondevice/agent/ can send, its own and those of the loader that it runs (a test holds both against
# this table). What a newer agent may add beyond them is a failure of the device.
ERROR_KINDS: Mapping[str, type[EdgepackError]] = {
    "locked": LockedError,
    "disk-full": DeviceFailure,
    "killed": DeviceFailure,
    "out-of-memory": DeviceFailure,
    "memory-short": DeviceFailure,
    "io-error": DeviceFailure,
    "read-only": DeviceFailure,
    "timeout": DeviceFailure,
    "measure-failed": DeviceFailure,
    "worker-died": DeviceFailure,
    "no-release": InputError,
    "no-candidate": InputError,
    "no-previous": InputError,
    "no-current": InputError,
    "same-release": InputError,
    "no-app": InputError,
    "several-apps": InputError,
    "bad-request": InputError,
    "bad-check-set": InputError,
    "bad-input": InputError,
    "digest-mismatch": IntegrityError,
    "release-damaged": IntegrityError,
    "unsafe-path": IntegrityError,
    "unsigned": IntegrityError,
    "foreign-signature": IntegrityError,
    "replayed": IntegrityError,
    "hook-refused": IntegrityError,
    "pinned": IntegrityError,
    "pin-broken": IntegrityError,
    "within-reach": InputError,
    "not-the-owner": InputError,
    "no-account": InputError,
    "no-ssh-keygen": InputError,
    "no-permission": InputError,
    "runtime-refused": MisfitError,
    "no-runtime": MisfitError,
    "numpy-mismatch": MisfitError,
    "runtime-clash": MisfitError,
    "no-turns": MisfitError,
    "delegate-missing": MisfitError,
    "noexec": MisfitError,
    "python-too-old": MisfitError,
    "not-checked": GateFailed,
    "marked-bad": GateFailed,
    "hook-failed": GateFailed,
    "health-failed": GateFailed,
    "closed": InternalError,
    "internal": InternalError,
}


def error_from_reply(error: object, device: str) -> EdgepackError:
    """The edgepack error for the ``error`` object of a reply; a malformed one is a DeviceFailure, never a crash."""
    given: Mapping[str, Any] = error if isinstance(error, Mapping) else {}
    code = _plain(given.get("code") or "unknown", 64)
    details = given.get("details")
    named = {str(key): value for key, value in details.items()} if isinstance(details, Mapping) else {}
    # These four are the parameters of the error itself.
    for taken in ("code", "message", "hint", "self"):
        if taken in named:
            named[f"device_{taken}"] = named.pop(taken)
    named.setdefault("device", device)
    message = _plain(given.get("message") or f"The device answered with the error {code!r}.")
    return ERROR_KINDS.get(code, DeviceFailure)(code, message, hint=_plain(given.get("hint") or ""), **named)


def _plain(said: object, limit: int = 4000) -> str:
    """What a device said, as a terminal can be given it: nothing that moves its cursor, and not without end."""
    return printable(str(said)[:limit])


def lost_error(device: str, status: int | None, failure: EdgepackError | None, stderr: bytes) -> EdgepackError:
    """What to say when the agent's output ended in the middle of a session. Pure.

    ``status`` is the agent's exit status (None: unknown, -1: ended by a signal), ``failure`` what the transport says.
    """
    if status is None or failure is not None:
        # That the line broke is said already; anything else the transport knows is worth telling.
        return connection_lost(device, failure.message if failure and failure.code != "connection-dropped" else "")
    said = last_line(stderr)
    if status == _HEARD_NOTHING and not said:
        return connection_lost(device, "its agent heard nothing from here for a minute")
    # No status at all is a signal's doing; shells report it as 128 and the signal's number.
    killed = status < 0 or status > 128
    what = "was killed, most likely for its memory" if killed else f"ended in the middle (exit status {status})"
    return DeviceFailure(
        "agent-ended",
        f"edgepack's agent on {device} {what}" + (f": {said}" if said and not killed else "."),
        hint=RESUMES,
        exit_status=status,
    )


def timeout_error(device: str, timeout_s: float | None) -> EdgepackError:
    """What to say when a reply did not come in time."""
    return DeviceFailure(
        "timeout",
        f"{device} did not answer within {timeout_s:.0f} s.",
        hint="Look at the device: it may be overloaded or out of memory. Then run the command again; it resumes.",
    )


def payload_error(verb: str, sent: int, n: int) -> EdgepackError:
    """What to say when a payload is not as long as it was announced: a fault of edgepack's own."""
    return InternalError("payload-size", f"The payload of {verb!r} ended after {sent} of {n} bytes.")
