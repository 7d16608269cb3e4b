"""From a loaded source to a .tflite, by the engine that a conversion names. Runs in the worker process."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack.errors import InputError
from edgepack.quantize.conversion import LITERT, Conversion, refuse_conversion
from edgepack.quantize.floatmodel import FloatModel
from edgepack.quantize.litert import quantize_float, refuse_unknown_layers
from edgepack.target import Scheme
from edgepack.tflite import read_model

if TYPE_CHECKING:
    from edgepack.quantize.trained import TrainedModel

Calibration = Callable[[], Iterator[Mapping[str, Any]]]


class Maker:
    """Conversions of one source; what they have in common (the pinned SavedModel, the float .tflite) is made once."""

    def __init__(self, source: TrainedModel | FloatModel, scratch: Path) -> None:
        self._source = source
        self._scratch = scratch
        self._pinned: dict[int | None, Path] = {}
        self._floats: dict[int | None, Path] = {}

    def convert(
        self, wanted: Conversion, batch: int | None, calibration: Calibration | None, output: Path
    ) -> Path | None:
        """Write the .tflite; return the float .tflite on the way to it, None where TensorFlow did not show one.

        Raises InputError "bad-conversion", "unknown-layer", "batch-fixed"; MisfitError where it cannot be converted.
        """
        refuse_conversion(wanted)
        if wanted.engine != LITERT:
            return self._by_tensorflow(wanted, batch, calibration, output)
        float_model = self._float_model(batch)
        if wanted.scheme == Scheme.FLOAT32:
            output.write_bytes(float_model.read_bytes())
        else:
            quantize_float(float_model, wanted, calibration, output)
        return float_model

    def _float_model(self, batch: int | None) -> Path:
        if isinstance(self._source, FloatModel):
            return self._source.path
        if batch not in self._floats:
            path = self._scratch / f"float-{len(self._floats)}.tflite"
            self._by_tensorflow(Conversion(Scheme.FLOAT32), batch, None, path)
            self._floats[batch] = path
        return self._floats[batch]

    def _by_tensorflow(
        self, wanted: Conversion, batch: int | None, calibration: Calibration | None, output: Path
    ) -> Path | None:
        if isinstance(self._source, FloatModel):
            raise InputError(
                "bad-conversion",
                f"TensorFlow's converter does not take a .tflite, as {self._source.source} is one.",
                hint="Name the SavedModel, .keras or .h5 that it came from, or the engine litert.",
            )
        from edgepack.quantize.converter import Loops, convert
        from edgepack.quantize.trained import save_pinned

        if batch not in self._pinned:
            folder = Path(tempfile.mkdtemp(dir=self._scratch, prefix="pinned-"))
            save_pinned(self._source, batch, folder)
            self._pinned[batch] = folder
        shown = self._scratch / "calibrated.tflite"
        try:
            converted = convert(self._pinned[batch], wanted, calibration)
        except Loops as found:
            shown.write_bytes(found.float_model)
            quantize_float(shown, dataclasses.replace(wanted, engine=LITERT), calibration, output)
            return shown
        output.write_bytes(converted.model)
        if converted.float_model is None:
            return None
        shown.write_bytes(converted.float_model)
        if wanted.float_layers:
            refuse_unknown_layers(wanted, read_model(shown))
        return shown
