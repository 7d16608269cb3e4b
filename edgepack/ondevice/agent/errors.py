"""Expected failures, as data: a code, a message, a hint, details."""

from __future__ import annotations

import errno
import os
from typing import Any, Dict

MEMORY_HINT = "Stop other programs on the device, or take a smaller model."
WRITABLE_HINT = "Mount it writable, or choose a folder on another file system with --root."


class AgentError(Exception):
    """An expected failure: ``code`` is a stable word, ``hint`` says what to do next, ``details`` are JSON values."""

    def __init__(self, code: str, message: str, hint: str, **details: Any) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.details = details

    def to_json(self) -> Dict[str, Any]:
        """The error as the ``error`` object of a reply."""
        return {"code": self.code, "message": self.message, "hint": self.hint, "details": self.details}

    @classmethod
    def from_json(cls, value: Dict[str, Any]) -> AgentError:
        """The error that :meth:`to_json` wrote."""
        details = value.get("details")
        return cls(
            str(value.get("code", "internal")),
            str(value.get("message", "")),
            str(value.get("hint") or ""),
            **(details if isinstance(details, dict) else {}),
        )


def translate_os_error(error: OSError) -> AgentError:
    """An ``OSError`` in the protocol's words; the disk that is full keeps its own code."""
    where = error.filename if isinstance(error.filename, str) else ""
    what = f"{where}: {error.strerror or error}" if where else str(error.strerror or error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return AgentError("disk-full", f"The device's disk is full ({what}).", "Free some space; `edgepack gc` helps.")
    if error.errno == errno.EROFS:
        return AgentError("read-only", f"The device's file system is mounted read-only ({what}).", WRITABLE_HINT)
    if error.errno == errno.ENOMEM:
        return AgentError("out-of-memory", f"The device is out of memory ({what}).", MEMORY_HINT)
    hint = "See that your account may write there and that the disk is sound (`dmesg` on the device), then try again."
    return AgentError("io-error", f"A file operation failed on the device ({what}).", hint, errno=error.errno)


def internal_error(error: Exception) -> AgentError:
    """A fault of the agent itself, with the place where it happened."""
    trace = error.__traceback__
    places = []
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(f"{os.path.basename(code.co_filename)}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    return AgentError(
        "internal",
        f"The agent failed: {type(error).__name__}: {error}",
        "This is a fault of edgepack: report it, with the places in the error's details.",
        where=places[-5:],
    )


def bad_request(message: str) -> AgentError:
    """The host asked for something that the protocol does not allow."""
    return AgentError(
        "bad-request",
        message,
        "Check the names that you gave. If they are right, this is a fault of edgepack: report it.",
    )


def pinned_error(message: str) -> AgentError:
    """Something that a pinned device does for nobody who deploys."""
    return AgentError(
        "pinned", message, "The device's owner can change that: edgepack trust DEVICE --allowed-signers F."
    )


def unsigned_error(release: str) -> AgentError:
    """A release without a signature on a device that is pinned."""
    return AgentError(
        "unsigned",
        f"Release {release} is not signed, and this device is pinned to its signers.",
        "Have it signed (edgepack bundle --sign KEY --counter N), and push it.",
    )


def broken_pin(what: str) -> AgentError:
    """What the owner laid down is not as it has to be: nothing is done then."""
    return AgentError(
        "pin-broken", f"This device is pinned, and {what}.", "Its owner can pin it again: edgepack trust DEVICE ..."
    )
