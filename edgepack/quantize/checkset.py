"""What goes into the check set: the samples that a device is asked, and what it should answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgepack.errors import InputError
from edgepack.hostruntime import dequantize, quantize
from edgepack.quantize.agreement import Outputs
from edgepack.quantize.arrays import Port
from edgepack.quantize.binding import read_batches
from edgepack.quantize.checking import read_labels
from edgepack.quantize.samples import Samples
from edgepack.tflite import TfliteModel

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

# An evaluation set as large as this travels to the device as it is; of a larger one the first rows do.
_TAKEN_BYTES = 64 << 20
_INTEGERS = ("int8", "uint8", "int16")
# The loader on the device holds the whole check set in memory.
MOST_BYTES = 256 << 20


def bytes_per_row(samples: Samples) -> int:
    """What one sample's inputs take; 0 while the model has to say it."""
    return sum(array.row_bytes for array in samples.inputs)


def refuse_large(samples: Samples) -> None:
    """Raise InputError "check-set-too-large" for a check set that a device could not hold in memory."""
    row = bytes_per_row(samples)
    if row * samples.rows > MOST_BYTES:
        raise InputError(
            "check-set-too-large",
            f"{samples.text} is larger than {MOST_BYTES >> 20} MiB, and a device holds its check set in memory.",
            hint=f"Take {MOST_BYTES // row} rows of it at most, for example with #0:500.",
        )


def fitting_rows(samples: Samples) -> int:
    """How many rows of an evaluation set make its check set."""
    return min(samples.rows, max(1, _TAKEN_BYTES // max(1, bytes_per_row(samples))))


def check_set_arrays(
    samples: Samples,
    rows: int,
    inputs: Sequence[Port],
    outputs: Outputs,
    input_names: Mapping[str, str],
    output_names: Mapping[str, str],
) -> dict[str, Array]:
    """The arrays of the first ``rows`` samples by their names in the .npz.

    ``input/<name>`` in the source's types, ``float/<name>`` and ``quantized/<name>`` float32, ``labels`` where the set
    has them. The names are the source's, but for those that ``input_names`` and ``output_names`` change.
    """
    (batch,) = read_batches(samples, inputs, rows, rows)
    arrays = {f"input/{input_names.get(name, name)}": values for name, values in batch.items()}
    for kind, columns in (("float", outputs.reference), ("quantized", outputs.quantized)):
        arrays |= {f"{kind}/{output_names.get(name, name)}": values[:rows] for name, values in columns.items()}
    labels = read_labels(samples, rows)
    return arrays if labels is None else {**arrays, "labels": labels}


def as_stored(arrays: Mapping[str, Array], model: TfliteModel) -> dict[str, Array]:
    """The same, with each float32 input of an integer tensor as the integers that the tensor holds for it.

    That is ``raw/<name>`` and ``quantization/<name>``, float32 [scale, zero point], instead of ``input/<name>``. Device
    and host quantize an input as their first step, so nothing that they compute is lost. An input stays as it is where
    those integers, made numbers, would become others.
    """
    stored = dict(arrays)
    for name, tensor in model.named_inputs:
        values = stored.pop(f"input/{name}", None)
        if values is not None:
            scale, zero_point = (tensor.scales[0], tensor.zero_points[0]) if len(tensor.scales) == 1 else (None, 0)
            stored |= stored_input(name, values, tensor.dtype, scale, zero_point)
    return stored


def stored_input(name: str, values: Array, dtype: str, scale: float | None, zero_point: int) -> dict[str, Array]:
    """One input as :func:`as_stored` has it, for a tensor of that type; ``scale`` is None where it is not quantized."""
    import numpy as np

    if values.dtype == np.float32 and scale and dtype in _INTEGERS and np.isfinite(values).all():
        detail = {"dtype": dtype, "quantization": (scale, zero_point)}
        raw = quantize(values, detail)
        if np.array_equal(quantize(dequantize(raw, detail), detail), raw):
            return {f"raw/{name}": raw, f"quantization/{name}": np.array(detail["quantization"], np.float32)}
    return {f"input/{name}": values}
