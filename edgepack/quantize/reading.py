"""Whatever a damaged file of samples makes a library raise becomes one named error."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgepack.errors import InputError


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """What numpy, zipfile, zlib and the disk raise over ``path`` becomes InputError: "broken-samples", "no-samples"."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, KeyError, NotImplementedError, RuntimeError) as fault:
        raise InputError(
            "broken-samples",
            f"{path} cannot be read as samples: {fault}.",
            hint="Write it again with numpy.savez(FILE, x=..., y=...).",
        ) from fault
    except OSError as fault:
        raise InputError(
            "no-samples", f"{path} cannot be read: {fault.strerror or fault}.", hint="Check path and permissions."
        ) from fault
