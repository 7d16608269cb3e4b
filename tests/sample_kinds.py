"""The same rows as a set of samples of every kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Array = np.ndarray[Any, Any]
KINDS = ["npz", "compressed", "folder", "file each", "csv", "function"]


def stored(kind: str, rows: Array, folder: Path, name: str = "set") -> str:
    """The rows [N, values] below ``folder``, as the command line names them; a function's module lies there too.

    "images" makes gray pictures of them, one pixel high, and wants whole numbers of 0 to 255.
    """
    place = folder / name
    match kind:
        case "npz":
            np.savez(folder / f"{name}.npz", x=rows)
        case "compressed":
            np.savez_compressed(folder / f"{name}.npz", x=rows)
        case "folder":
            place.mkdir()
            np.save(place / "x.npy", rows)
        case "file each":
            place.mkdir()
            for number, row in enumerate(rows):
                np.save(place / f"{number:05}.npy", row)
        case "csv":
            lines = [",".join("abcdefgh"[: rows.shape[1]]), *(",".join(map(repr, row)) for row in rows.tolist())]
            (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
        case "function":
            np.save(folder / f"{name}.npy", rows)
            code = f"import numpy\ndef rows():\n    yield from numpy.load({str(folder / f'{name}.npy')!r})\n"
            (folder / f"{name}_rows.py").write_text(code)
            return f"{name}_rows:rows"
        case "images":
            place.mkdir()
            for number, row in enumerate(rows):
                Image.fromarray(row.astype(np.uint8)[None]).save(place / f"{number:05}.png")
    return str(place) + {"npz": ".npz", "compressed": ".npz", "csv": ".csv"}.get(kind, "")
