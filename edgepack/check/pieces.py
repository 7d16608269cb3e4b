"""A set of samples in pieces that a device can take: what is sent of each row, and what it is held against here.

A set is what ``quantize`` takes (an .npz, a folder, a CSV file, ``module:function``), where ``float/<output>`` and
``quantized/<output>`` beside the inputs are the float model's outputs and the host's; or a check set's own .npz, with
``input/`` or ``raw/`` before the inputs' names and ``labels``.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgepack.errors import InputError
from edgepack.quantize.arrays import LABELS, Port
from edgepack.quantize.binding import bind_inputs, fit_samples, read_batches
from edgepack.quantize.checkset import stored_input
from edgepack.quantize.samples import Samples

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

PIECE_BYTES = 8 << 20
"""Of samples as they are sent, or of outputs as they come back, whichever is more: what a small device holds easily."""
FIRST_PIECE_BYTES = 1 << 20
"""Nobody knows yet how large the outputs are."""

_REFERENCES = ("float/", "quantized/")


@dataclass(frozen=True, slots=True)
class Piece:
    """Some rows: ``sent`` is what the device gets, ``kept`` what its answer is held against, by a check set's names."""

    rows: int
    sent: Mapping[str, Array]
    kept: Mapping[str, Array]

    def packed(self) -> bytes:
        """What the device gets, as an .npz."""
        import numpy as np

        stream = io.BytesIO()
        np.savez(stream, **self.sent)
        return stream.getvalue()


class BoundSamples:
    """A set of samples, bound to the model's inputs (``inputs`` as in the ``tensors`` of a measurement).

    Raises InputError "bad-samples" where it has none for an input, or of another shape or type.
    """

    def __init__(self, samples: Samples, inputs: Sequence[Mapping[str, Any]]) -> None:
        self._samples = samples
        self._inputs = {str(one["name"]): one for one in inputs}
        names = {array.name for array in samples.arrays}
        self._references = sorted(name for name in names if name.startswith(_REFERENCES))
        self._is_check_set = any(name.startswith(("input/", "raw/")) for name in names)
        self._labels = "labels" if self._is_check_set else LABELS
        self._ports = [] if self._is_check_set else [_port(one) for one in inputs]
        if self._is_check_set:
            self._columns = [self._stored_name(name) for name in self._inputs]
        else:
            bound = bind_inputs(fit_samples(samples, self._ports), self._ports)
            self._columns = [array.name for array in bound.values()]
        kept = [*([self._labels] if self._labels in names else []), *self._references]
        self._kept = [name for name in kept if self._require_rows(name)]

    @property
    def rows(self) -> int:
        """How many samples there are."""
        return self._samples.rows

    def pieces(self, first: int, rows: int, size: int) -> Iterator[Piece]:
        """``rows`` samples from ``first`` on, ``size`` at a time."""
        if rows < 1:
            return
        rest = self._samples.after(first)
        inputs = (
            rest.read(self._columns, size, rows) if self._is_check_set else read_batches(rest, self._ports, size, rows)
        )
        kept = rest.read(self._kept, size, rows)
        for batch in inputs:
            held = next(kept) if self._kept else {}
            count = len(next(iter(batch.values())))
            yield Piece(count, self._sent(batch), {self._named(name): values for name, values in held.items()})

    def _sent(self, batch: Mapping[str, Array]) -> dict[str, Array]:
        sent: dict[str, Array] = {}
        for name, column in zip(self._inputs, self._columns, strict=True):
            if column.startswith("raw/"):
                sent |= {column: batch[column], f"quantization/{name}": self._quantization(name)}
                continue
            values = batch[column] if self._is_check_set else batch[name]
            one = self._inputs[name]
            scale = one.get("scale")
            sent |= stored_input(name, values, str(one["dtype"]), scale and float(scale), int(one["zero_point"] or 0))
        return sent

    def _quantization(self, name: str) -> Array:
        (found,) = self._samples.store.read([f"quantization/{name}"], 0, 2, 2)
        return found[f"quantization/{name}"]

    def _stored_name(self, name: str) -> str:
        column = next((f"{kind}/{name}" for kind in ("raw", "input") if self._samples.named(f"{kind}/{name}")), None)
        raw = column is not None and column.startswith("raw/")
        if column is None or (raw and self._samples.named(f"quantization/{name}") is None):
            raise InputError(
                "bad-samples",
                f"{self._samples.place} is a check set of another model: it has no samples for the input {name!r}.",
                hint="Take the check set that `quantize` left beside this model, or a plain set of samples.",
            )
        return column

    def _require_rows(self, name: str) -> bool:
        array = self._samples.named(name)
        if array is None or array.rows >= self._samples.stop:
            return array is not None
        raise InputError(
            "bad-samples",
            f"{self._samples.place} has {self._samples.stop} samples, and {name!r} has {array.rows} rows.",
            hint="Every array needs a row for each sample.",
        )

    def _named(self, name: str) -> str:
        return "labels" if name == self._labels else name


def _port(tensor: Mapping[str, Any]) -> Port:
    """An input as samples are given for it: as numbers where the model has integers for them."""
    shape = (None, *(None if size < 0 else int(size) for size in tensor["shape"][1:]))
    return Port(str(tensor["name"]), shape, "float32" if tensor.get("scale") else str(tensor["dtype"]))
