"""What samples and models are to each other: arrays by name, inputs and outputs by name, and where rows come from."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

LABELS = "y"
SINGLE_INPUT = "x"
_CHUNK_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of a model: its name, shape with the batch first (None where it is open) and dtype."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class SampleArray:
    """Rows of one input or of the labels: their number first, then the shape of one; None is not known yet.

    ``single``: each sample came on its own, and may have a batch dimension of 1 of its own.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    single: bool = False

    @property
    def rows(self) -> int:
        """How many samples there are before a range is taken."""
        return self.shape[0] or 0

    @property
    def is_text(self) -> bool:
        """Whether it holds words, names of classes say, and no numbers."""
        return self.dtype.lstrip("<>|=")[:1] in ("U", "S")

    @property
    def row_bytes(self) -> int:
        """Bytes of one sample; 0 while they are not known."""
        return row_bytes(self.shape, self.dtype)


class SampleStore(Protocol):
    """Where the rows of a set come from: a frozen value that holds no row, and reads the same ones each time.

    ``kind`` says what it is in a word or two; ``left_out`` names what lies beside the samples and is none.
    """

    @property
    def kind(self) -> str: ...  # noqa: D102 (said above)

    @property
    def arrays(self) -> tuple[SampleArray, ...]: ...  # noqa: D102 (said above)

    @property
    def left_out(self) -> tuple[str, ...]: ...  # noqa: D102 (said above)

    def fitted(self, inputs: Sequence[Port]) -> SampleStore:
        """The same rows in the shape and type that the model takes, where that is the model's to say."""

    def read(self, names: Collection[str], start: int, stop: int, size: int) -> Iterator[dict[str, Array]]:
        """The arrays of these names, rows ``start`` to ``stop``, ``size`` at a time (the last piece may be shorter)."""


def row_bytes(shape: Sequence[int | None], dtype: str) -> int:
    """Bytes of one row of an array [rows, ...]; 0 where a size is open."""
    import numpy as np

    return math.prod(size or 0 for size in shape[1:]) * np.dtype(dtype).itemsize


def chunk_rows(arrays: Sequence[SampleArray]) -> int:
    """How many rows make a piece that is worth reading at once: about 16 MB; 1 while their size is not known."""
    if any(None in array.shape for array in arrays):
        return 1
    return max(1, _CHUNK_BYTES // max(1, sum(array.row_bytes for array in arrays)))
