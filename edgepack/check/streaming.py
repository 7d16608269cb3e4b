"""A check set that stays here: it goes to the device piece by piece, and the outputs come back.

Neither side holds more than a piece of samples in memory; what comes back lies on this machine's disk until the metric
reads it. A line that breaks costs the piece that was on its way.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack.check.asking import STEP
from edgepack.check.compare import read_outputs
from edgepack.check.pieces import FIRST_PIECE_BYTES, PIECE_BYTES, BoundSamples, Piece
from edgepack.errors import InputError, IntegrityError, MisfitError
from edgepack.events import Event, Reporter
from edgepack.quantize.preprocessing import preprocessing_from
from edgepack.quantize.samples import Samples, open_samples
from edgepack.words import size

if TYPE_CHECKING:
    import numpy as np

    from edgepack.device import Session

    Array = np.ndarray[Any, Any]


class SampleStream:
    """A set of samples on its way through a device, and what came back so far, in ``folder``."""

    def __init__(self, samples: Samples, folder: Path) -> None:
        self.samples = samples
        self.pieces = 0
        self.sent_bytes = 0
        self.received_bytes = 0
        self._folder = folder
        self._done = 0
        self._columns: dict[str, Array] = {}
        self._of = ""

    def told(self) -> dict[str, Any]:
        """What went over the line, for the document."""
        return {
            "name": self.samples.name,
            "samples": self._done,
            "pieces": self.pieces,
            "sent_bytes": self.sent_bytes,
            "received_bytes": self.received_bytes,
        }

    def run(
        self, session: Session, where: Mapping[str, str], measurement: Mapping[str, Any], nice: int, report: Reporter
    ) -> Mapping[str, Array]:
        """Ask the device for all that it was not asked before; arrays by a check set's names, and ``device/<output>``.

        ``where`` are the app and the release, ``measurement`` is what the device said of that release.

        Raises InputError "bad-samples", "no-room", IntegrityError "bad-outputs", MisfitError "old-loader", and what the
        device refuses.
        """
        if self._of != where["release"]:
            self._of, self._done, self._columns = where["release"], 0, {}
        inputs = (measurement.get("tensors") or {}).get("inputs")
        if not inputs:
            raise _old_loader()
        bound = BoundSamples(self.samples, inputs)
        options = {"threads": measurement.get("threads"), "nice": nice}

        def answer(piece: Piece) -> dict[str, Array]:
            return self._answer(session, {**where, "options": options}, piece)

        report(Event(STEP, "check set", self._done, bound.rows, "samples"))
        if self._done == 0:
            self._take(bound, FIRST_PIECE_BYTES, 1, answer, report)
        self._take(bound, PIECE_BYTES, bound.rows, answer, report)
        report(
            Event(
                STEP,
                f"{self._done:,} samples of {self.samples.name} in {self.pieces} pieces:"
                f" {size(self.sent_bytes)} sent, {size(self.received_bytes)} came back",
            )
        )
        return self._columns

    def _take(
        self,
        bound: BoundSamples,
        piece_bytes: int,
        most_pieces: int,
        answer: Callable[[Piece], dict[str, Array]],
        report: Reporter,
    ) -> None:
        """Pieces of about so many bytes, until all rows or so many pieces are done."""
        left = bound.rows - self._done
        if left < 1:
            return
        row_bytes = max(self._row_bytes(bound), 1)
        rows = max(1, min(piece_bytes // row_bytes, left))
        for piece in bound.pieces(self._done, min(left, rows * most_pieces), rows):
            for name, values in {**piece.kept, **answer(piece)}.items():
                self._put(name, values, bound.rows)
            self._done += piece.rows
            self.pieces += 1
            report(Event(STEP, "check set", self._done, bound.rows, "samples"))

    def _row_bytes(self, bound: BoundSamples) -> int:
        """Of one sample: what is sent, or what came back, whichever is more."""
        (one,) = bound.pieces(self._done, 1, 1)
        outputs = [column[:1].nbytes for name, column in self._columns.items() if name.startswith("device/")]
        sent = [array.nbytes for name, array in one.sent.items() if not name.startswith("quantization/")]
        return max(sum(sent), sum(outputs))

    def _answer(self, session: Session, arguments: Mapping[str, Any], piece: Piece) -> dict[str, Array]:
        content = piece.packed()
        reply = session.request("answer", [content], len(content), **arguments)
        self.sent_bytes += len(content)
        self.received_bytes += len(reply.payload)
        if hashlib.sha256(reply.payload).hexdigest() != reply.result.get("sha256"):
            raise _bad_outputs("they did not arrive as the device computed them")
        outputs = {name: array for name, array in read_outputs(reply.payload).items() if name.startswith("device/")}
        if not outputs or any(len(array) != piece.rows for array in outputs.values()):
            raise _bad_outputs(f"{piece.rows} samples were sent, and not as many answers came back")
        return outputs

    def _put(self, name: str, values: Array, rows: int) -> None:
        """Into the array of that name, which lies on the disk."""
        import numpy as np

        column = self._columns.get(name)
        if column is None:
            shape = (rows, *values.shape[1:])
            needed = rows * values[:1].nbytes
            if needed >= shutil.disk_usage(self._folder).free:
                raise InputError(
                    "no-room",
                    f"What {name!r} holds for {rows:,} samples takes {size(needed)}, and there is no room for it in"
                    f" {self._folder.parent}.",
                    hint="Take fewer samples (FILE#0:1000), or name a larger folder in TMPDIR.",
                )
            path = self._folder / f"{len(self._columns)}.npy"
            column = np.lib.format.open_memmap(path, "w+", dtype=values.dtype, shape=shape)  # type: ignore[no-untyped-call]
            self._columns[name] = column
        if column.shape[1:] != values.shape[1:]:
            raise _bad_outputs(f"{name!r} is {list(values.shape[1:])}, and was {list(column.shape[1:])} before")
        column[self._done : self._done + len(values)] = values


@contextmanager
def streamed(text: str, preprocessing: Mapping[str, Any] | None) -> Iterator[SampleStream]:
    """The set of samples of that name, opened, with a folder for what comes back.

    Raises InputError about what cannot be read.
    """
    samples = open_samples(text, preprocessing_from(preprocessing or {}))
    with tempfile.TemporaryDirectory(prefix="edgepack-check-") as folder:
        yield SampleStream(samples, Path(folder))


def _bad_outputs(what: str) -> IntegrityError:
    return IntegrityError("bad-outputs", f"The device's outputs cannot be used: {what}.", hint="Check again.")


def _old_loader() -> MisfitError:
    return MisfitError(
        "old-loader",
        "The release's loader does not tell what the model takes: it is older than this edgepack.",
        hint="Bundle the model again and push it.",
    )
