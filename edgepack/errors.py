"""Every way in which edgepack can say no, one root, each with an exit code and a next action.

::

    EdgepackError
      ├── GateFailed          1   a gate failed: accuracy, latency, size, memory
      ├── InputError          2   usage or bad input: a file, an option, a profile
      ├── InconclusiveError   3   throttled, unstable, too few runs: what was measured settles nothing
      ├── UnreachableError    4   a device could not be reached or logged in to
      ├── MisfitError         5   model, bundle, target and device do not fit together
      ├── IntegrityError      6   digest, signature, host key, replay
      ├── DeviceFailure       7   the device failed on the way: disk full, killed, out of memory
      ├── LockedError         8   somebody else holds the lock
      └── InternalError      70   a fault of edgepack itself

``check`` raises no InconclusiveError: its verdict says so, in a document, with the same exit code.

An error is one short paragraph: ``message`` says what happened and where, ``hint`` what to do next, ``code`` is a
stable word for scripts (lower case, hyphens), ``details`` are plain JSON values.
"""

from __future__ import annotations

from typing import ClassVar

INTERRUPTED_EXIT_CODE = 130


class EdgepackError(Exception):
    """The root of every error that edgepack raises on purpose."""

    exit_code: ClassVar[int] = 70

    def __init__(self, code: str, message: str, *, hint: str = "", **details: object) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.details = details

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.code, self.message, self.hint, self.details)


def _rebuild(
    kind: type[EdgepackError], code: str, message: str, hint: str, details: dict[str, object]
) -> EdgepackError:
    return kind(code, message, hint=hint, **details)


class GateFailed(EdgepackError):
    """A gate failed: accuracy, latency, size or memory is outside the budget."""

    exit_code = 1


class InputError(EdgepackError):
    """Usage or bad input: a file, an option or a profile is not what it has to be."""

    exit_code = 2


class InconclusiveError(EdgepackError):
    """What was measured settles nothing: throttled, unstable, too few runs."""

    exit_code = 3


class UnreachableError(EdgepackError):
    """A device could not be reached or logged in to."""

    exit_code = 4


class MisfitError(EdgepackError):
    """Model, bundle, target and device do not fit together."""

    exit_code = 5


class IntegrityError(EdgepackError):
    """Something is not what it claims to be: a digest, a signature, a host key."""

    exit_code = 6


class DeviceFailure(EdgepackError):
    """The device failed on the way: disk full, killed, out of memory."""

    exit_code = 7


class LockedError(EdgepackError):
    """Somebody else holds the device's lock; try again."""

    exit_code = 8


class InternalError(EdgepackError):
    """A fault of edgepack itself."""

    exit_code = 70
