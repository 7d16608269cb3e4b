"""Why a quantized model loses accuracy: what its layers have to say; pure."""

from __future__ import annotations

from edgepack.documents import Accuracy, Finding, LayerError
from edgepack.quantize.gate import judge_floor
from edgepack.quantize.layers import Layers
from edgepack.quantize.rangeaudit import short_name

LAYER_ROWS = 32
"""Samples that layers are compared over: ratios of sums over thousands of numbers move by a fraction of a decibel."""


def is_wanted(
    asked: bool, accuracy: Accuracy | None, max_drop: float | None, min_accuracy: float | None = None
) -> bool:
    """Whether to look for the reason: where somebody asked, and where accuracy is beyond a limit of the budget."""
    lost = accuracy is not None and accuracy.drop is not None and max_drop is not None and accuracy.drop > max_drop
    return asked or lost or judge_floor(accuracy, min_accuracy).within is False


def bad_layers(layers: Layers) -> tuple[Finding, ...]:
    """A note on the first layer that spoils the others, if there is one."""
    return tuple(_bad_layer(layer) for layer in layers.layers if layer.tensor == layers.first_bad)[:1]


def _bad_layer(layer: LayerError) -> Finding:
    name = short_name(layer.tensor)
    read = "" if layer.input_sqnr_db is None else f", and {layer.input_sqnr_db:.1f} dB in what it reads"
    return Finding(
        "bad-layer",
        "note",
        name,
        f"{layer.operator} {name!r} is the first layer that quantizing spoils: "
        f"{layer.sqnr_db:.1f} dB of signal to noise{read}.",
        "Leave it and what it reads in float or 16 bit where the target allows that (edgepack tune finds out), or tame "
        "the range of what it reads.",
    )
