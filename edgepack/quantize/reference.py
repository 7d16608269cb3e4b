"""What a conversion is held against: the source's own outputs, computed by whatever can compute them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack.digest import sha256_file
from edgepack.documents import Finding
from edgepack.errors import MisfitError
from edgepack.quantize.agreement import refuse_difference
from edgepack.quantize.arrays import Port
from edgepack.quantize.checking import CheckedSamples
from edgepack.quantize.workshop import Workshop
from edgepack.tflite import read_model

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

COMPARED_ROWS = 8
"""Rows on which the converted float model has to agree with the source, and the delivered one is held against it."""

# The one custom operator that a model exported from TensorFlow has no working body for; all others are computed there.
_PLACEHOLDER = "TFLite_Detection_PostProcess"
_JUDGED_BY_TFLITE = Finding(
    "float-tflite-reference",
    "note",
    _PLACEHOLDER,
    "TensorFlow holds a placeholder where TFLite runtimes have an operator of their own: accuracy is against the float "
    ".tflite.",
    "",
)


class Reference:
    """The source's outputs, once a float .tflite of it has been compared with it.

    They are TensorFlow's, or those of the float .tflite where only a runtime can compute them: TensorFlow holds a
    placeholder for the post-processing of detections. A model may mix the rows of a batch (a condition over all of
    them); such a one is asked with as many rows at once as it was pinned to.
    """

    def __init__(self, shop: Workshop, inputs: tuple[Port, ...], batch: int | None) -> None:
        self._shop = shop
        self._inputs = inputs
        self._batch = batch
        self._judge: Path | None = None
        self._rows_at_once: int | None = None
        self._compared: set[str] = set()

    def compare(self, float_model: Path, samples: CheckedSamples | None) -> tuple[Finding, ...]:
        """Hold a float .tflite against the source, each one once; what is worth a note comes back.

        Raises MisfitError "conversion-differs" or "not-finite".
        """
        digest = sha256_file(float_model)
        if digest not in self._compared:
            self._compare(float_model, samples)
            self._compared.add(digest)
        return () if self._judge is None else (_JUDGED_BY_TFLITE,)

    def _compare(self, float_model: Path, samples: CheckedSamples | None) -> None:
        if any(operator.custom_name == _PLACEHOLDER for operator in read_model(float_model).operators):
            self._judge = float_model
            return
        converted = self._shop.host(float_model, self._inputs, samples, COMPARED_ROWS)
        try:
            refuse_difference(self.outputs(samples, COMPARED_ROWS), converted)
        except MisfitError:
            if self._batch is None or self._rows_at_once is not None:
                raise
            self._rows_at_once = self._batch
            refuse_difference(self.outputs(samples, COMPARED_ROWS), converted)

    def outputs(self, samples: CheckedSamples | None, rows: int | None = None) -> dict[str, Array]:
        """Float32 [rows, ...] by name."""
        if self._judge is not None:
            return self._shop.host(self._judge, self._inputs, samples, rows)
        return self._shop.reference(samples, rows, self._rows_at_once)
