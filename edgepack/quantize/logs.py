"""What TensorFlow or a converter printed before it failed, kept where the message can point to it."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

from edgepack.cachefolder import cache_folder
from edgepack.errors import EdgepackError
from edgepack.quantize.failures import FAILURES

# The libraries' own failures; everything else says by itself what is wrong.
_FAILURES = ("conversion-failed", "converter-crashed", "unreadable-model", "unsupported-operators", *FAILURES)
_MOST_LOGS = 20
_MOST_BYTES = 4 << 20  # a log's end says what happened


def log_folder() -> Path:
    """Where the logs lie; like everything below it safe to delete."""
    return cache_folder() / "logs"


def with_log(error: EdgepackError, log: Path) -> EdgepackError:
    """The error with the path of a kept copy of ``log`` in its hint and details, where it is a library's failure.

    Where the copy cannot be written, or nothing was printed, the error comes back as it is.
    """
    if error.code not in _FAILURES:
        return error
    with contextlib.suppress(OSError):
        kept = _keep(log)
        if kept is not None:
            hint = f"{error.hint} The whole log: {kept}".strip()
            return type(error)(error.code, error.message, hint=hint, **{**error.details, "log": str(kept)})
    return error


def _keep(log: Path) -> Path | None:
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - _MOST_BYTES))
        content = stream.read()
    if not content.strip():
        return None
    folder = log_folder()
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / f"quantize-{hashlib.sha256(content).hexdigest()[:12]}.log"
    kept.write_bytes(content)
    for old in sorted(folder.glob("quantize-*.log"), key=lambda path: path.stat().st_mtime_ns)[:-_MOST_LOGS]:
        old.unlink(missing_ok=True)
    return kept
