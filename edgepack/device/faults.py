"""Agent error codes as edgepack errors: one table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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

# Every code that ondevice/agent.py can send, its own and those of the loader that it runs (a test holds both against
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
    "no-app": InputError,
    "several-apps": InputError,
    "bad-request": InputError,
    "bad-check-set": InputError,
    "bad-input": InputError,
    "digest-mismatch": IntegrityError,
    "release-damaged": IntegrityError,
    "unsafe-path": IntegrityError,
    "runtime-refused": MisfitError,
    "no-runtime": MisfitError,
    "numpy-mismatch": MisfitError,
    "runtime-clash": MisfitError,
    "delegate-missing": MisfitError,
    "noexec": MisfitError,
    "python-too-old": MisfitError,
    "not-checked": GateFailed,
    "hook-failed": GateFailed,
    "health-failed": GateFailed,
    "closed": InternalError,
    "internal": InternalError,
}


def error_from_reply(error: object, device: str) -> EdgepackError:
    """The edgepack error for the ``error`` object of a reply; a malformed one is a DeviceFailure, never a crash."""
    given: Mapping[str, Any] = error if isinstance(error, Mapping) else {}
    code = str(given.get("code") or "unknown")
    details = given.get("details")
    named = {str(key): value for key, value in details.items()} if isinstance(details, Mapping) else {}
    # These four are the parameters of the error itself.
    for taken in ("code", "message", "hint", "self"):
        if taken in named:
            named[f"device_{taken}"] = named.pop(taken)
    named.setdefault("device", device)
    message = str(given.get("message") or f"The device answered with the error {code!r}.")
    return ERROR_KINDS.get(code, DeviceFailure)(code, message, hint=str(given.get("hint") or ""), **named)
