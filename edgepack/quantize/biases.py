"""Biases that 32 or 64 bits do not hold at the scale that quantizing gave them."""

from __future__ import annotations

from edgepack.errors import MisfitError
from edgepack.quantize.legacy import read_objects
from edgepack.tflite import TfliteModel

# Which of an operator's inputs is its bias.
_BIAS_PLACE = {"CONV_2D": 2, "DEPTHWISE_CONV_2D": 2, "FULLY_CONNECTED": 2, "TRANSPOSE_CONV": 3}


def overflowing_biases(data: bytes, made: bytes, model: TfliteModel) -> tuple[str, ...]:
    """Layers with a bias that its integers do not hold; litert-quantizer lets it wrap around, to the other sign.

    A bias has the scale of input times weights: a channel whose weights are almost zero makes it tiny.
    """
    import numpy as np

    before, after = read_objects(data), read_objects(made)
    kept = {tensor.name: tensor for tensor in after.subgraphs[0].tensors}
    layers = []
    for operator in model.operators:
        place = _BIAS_PLACE.get(operator.name)
        if operator.subgraph or place is None or len(operator.inputs) <= place or operator.inputs[place] < 0:
            continue
        source = before.subgraphs[0].tensors[operator.inputs[place]]
        tensor = kept.get(source.name)
        scales = None if tensor is None or tensor.quantization is None else tensor.quantization.scale
        kind = {2: "<i4", 4: "<i8"}.get(-1 if tensor is None else tensor.type)
        if tensor is None or scales is None or kind is None:
            continue
        wanted = np.frombuffer(bytes(before.buffers[source.buffer].data), "<f4")
        stored = np.frombuffer(bytes(after.buffers[tensor.buffer].data), kind) * np.asarray(scales, np.float64)
        if (np.abs(stored - wanted) > np.asarray(scales) + 1e-3 * np.abs(wanted)).any():
            layers.append(model.tensor(0, operator.outputs[0]).name)
    return tuple(layers)


def bias_overflow(layers: tuple[str, ...]) -> MisfitError:
    """The error about those layers, as :func:`overflowing_biases` names them."""
    return MisfitError(
        "bias-overflow",
        f"The bias of {', '.join(map(repr, layers[:3]))} does not fit 32 bits at the scale of its weights.",
        hint="Those weights are almost zero: take the layer out, or keep it in float.",
        layers=list(layers),
    )
