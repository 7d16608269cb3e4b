"""Room on a disk: whether a failure is for want of it, and whether there is enough to begin with."""

from __future__ import annotations

import errno
import re
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from edgepack.errors import InputError
from edgepack.words import size

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# As libraries say it that keep no number: the words of strerror, and for ENOSPC the class of TensorFlow, where it names
# a file (its tsl/platform/errors.cc); where memory ran out it says OOM.
_WORDS = re.compile(r"No space left on device|Disk quota exceeded|File too large")
_EXHAUSTED = "ResourceExhaustedError"
# The loaded model is written once more before it is converted, and what comes out of it beside it.
_LEAST_BYTES = 1 << 20


def is_full_disk(fault: BaseException | None) -> bool:
    """Whether a failure, or what it came from, is for want of room on a disk."""
    while fault is not None:
        if isinstance(fault, OSError) and fault.errno in _NO_ROOM:
            return True
        words = str(fault)
        if _WORDS.search(words) or (type(fault).__name__ == _EXHAUSTED and "OOM" not in words and "/" in words):
            return True
        fault = fault.__cause__ or fault.__context__
    return False


def no_room(what: str) -> InputError:
    """The error "cannot-write"; ``what`` happened, in a clause."""
    return InputError(
        "cannot-write",
        f"{what}.",
        hint="Make room beside the output and in the folder for temporary files (TMPDIR), or name a folder that has "
        "some: -o FOLDER/OUT.tflite",
    )


def require_room(source_bytes: int, outputs: Iterable[Path]) -> None:
    """Look at the free space before minutes are spent; ``source_bytes`` is what the model takes.

    Raises InputError "cannot-write" where a folder of ``outputs``, or that for temporary files, has less than a copy of
    the model and a megabyte.
    """
    needed = source_bytes + _LEAST_BYTES
    for folder in dict.fromkeys((*(output.parent for output in outputs), Path(tempfile.gettempdir()))):
        free = shutil.disk_usage(folder).free
        if free < needed:
            raise no_room(f"{folder} has {size(free)} free, and converting the model needs {size(needed)} and more")
