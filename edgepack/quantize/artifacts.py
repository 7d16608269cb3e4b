"""What ``quantize`` leaves beside OUT.tflite: the check set and the provenance, the same bytes for the same input."""

from __future__ import annotations

import io
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from edgepack.documents import canonical_json
from edgepack.files import is_document
from edgepack.quantize.libraries import library_versions
from edgepack.tflite import is_tflite

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first day that a ZIP can name
_REGULAR_FILE = 0o100644 << 16
_CHECK_SET_MEMBER = re.compile(r"(input|raw|quantization|float|quantized)/.+\.npy|labels\.npy")
_PIECE_BYTES = 16 << 20


def check_set_path(output: Path) -> Path:
    """Where the check set of ``output`` lies."""
    return output.with_suffix(".check.npz")


def provenance_path(output: Path) -> Path:
    """Where the provenance of ``output`` lies."""
    return output.with_suffix(".provenance.json")


def uncompiled_path(output: Path) -> Path:
    """Where the model lies that the compiler made ``output`` from; only this one runs on a machine like this."""
    return output.with_suffix(".uncompiled.tflite")


def places_beside(output: Path) -> dict[Path, tuple[str, Callable[[Path], bool]]]:
    """Every place that a run writes or clears, with what belongs there and how that is recognized."""
    return {
        output: ("a .tflite", is_tflite),
        check_set_path(output): ("a check set of edgepack", _is_check_set),
        provenance_path(output): ("what edgepack writes beside a model", _is_provenance),
        uncompiled_path(output): ("a .tflite", is_tflite),
    }


def _is_check_set(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
    return any(name.startswith(("input/", "raw/")) for name in names) and all(map(_CHECK_SET_MEMBER.fullmatch, names))


def _is_provenance(path: Path) -> bool:
    return is_document(path, "model", "libraries")


def write_npz(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write an uncompressed .npz whose bytes depend on nothing but names and arrays: sorted, dated 1980-01-01.

    Arrays may be mapped from a disk: they are copied a piece at a time.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(arrays):
            entry = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            entry.external_attr = _REGULAR_FILE
            entry.create_system = 3  # Unix, wherever it is written
            large = arrays[name].nbytes > zipfile.ZIP64_LIMIT // 2
            with archive.open(entry, "w", force_zip64=large) as stream:
                _write_npy(stream, arrays[name])


def _write_npy(stream: IO[bytes], array: Array) -> None:
    import numpy as np

    head = io.BytesIO()
    description = {
        "descr": np.lib.format.dtype_to_descr(array.dtype),  # type: ignore[no-untyped-call]
        "fortran_order": False,
        "shape": array.shape,
    }
    np.lib.format.write_array_header_1_0(head, description)  # type: ignore[no-untyped-call]
    stream.write(head.getvalue())
    rows = max(1, _PIECE_BYTES // max(1, array[:1].nbytes)) if array.ndim else 1
    for first in range(0, len(array) if array.ndim else 0, rows):
        stream.write(np.ascontiguousarray(array[first : first + rows]).tobytes())
    if not array.ndim:
        stream.write(array.tobytes())


def write_provenance(path: Path, facts: Mapping[str, Any]) -> None:
    """Write where a model came from, with the versions of the libraries; no path, no time, no user."""
    path.write_bytes(canonical_json({"schema": 1, **facts, "libraries": library_versions()}) + b"\n")


@dataclass(frozen=True, slots=True)
class Staged:
    """Finished files in ``folder`` by the places where they belong; None removes what an earlier run left there."""

    folder: Path
    files: Mapping[Path, Path | None]


def place(sets: Sequence[Staged]) -> None:
    """Move all files of all sets into their places, in order; on an error or an interruption none.

    What was there is kept by a second name until the last file is in its place, so that no file is missing meanwhile.
    """
    done: list[tuple[Path, Path | None]] = []
    try:
        for staged in sets:
            for goal, made in staged.files.items():
                done.append((goal, _kept(goal, staged.folder / f"before-{len(done)}")))
                if made is None:
                    goal.unlink(missing_ok=True)
                else:
                    made.replace(goal)
    except BaseException:
        for goal, before in reversed(done):
            if before is None:
                goal.unlink(missing_ok=True)
            else:
                before.replace(goal)
        raise


def _kept(goal: Path, before: Path) -> Path | None:
    """A second name of what lies at ``goal``, None where nothing does."""
    if not goal.exists():
        return None
    try:
        os.link(goal, before)
    except OSError:  # a file system without links
        shutil.copy2(goal, before)
    return before
