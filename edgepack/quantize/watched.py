"""Files that a run reads more than once, held to what they were when it began.

A result is kept under the digest of what it was made from. Another process that writes to the model or the samples
meanwhile would make that digest a lie.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgepack.errors import InputError

_Mark = tuple[str, int, int, int]


@dataclass(frozen=True, slots=True)
class Watched:
    """Files and folders, and what their sizes, times of change and inodes were."""

    marks: Mapping[Path, tuple[_Mark, ...]]

    def refuse_changes(self) -> None:
        """Raise InputError "changed-meanwhile" where one of them is not what it was."""
        for path, before in self.marks.items():
            if _marks(path) != before:
                raise InputError(
                    "changed-meanwhile",
                    f"{path} was changed while it was being read, and nothing was written.",
                    hint="Wait until it is written completely, and run the command again.",
                )


def watch(paths: Iterable[Path]) -> Watched:
    """The files as they are now; what is not there is left out."""
    return Watched({path: _marks(path) for path in paths if path.exists()})


def _marks(path: Path) -> tuple[_Mark, ...]:
    found = []
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        try:
            status = file.stat()
        except OSError:
            continue  # gone, or out of reach: then it is not among the marks
        # edgepack's own staging folders may lie among somebody's samples.
        if not file.is_dir() and not any(part.startswith(".edgepack-") for part in file.parts):
            found.append((str(file), status.st_size, status.st_mtime_ns, status.st_ino))
    return tuple(found)
